#!/usr/bin/env bash
# run.sh [SECONDS]: fuzz gate 0's reader for so long (60 by default), in a venv of its own under /tmp or $FUZZ_DIR.
# Exit 0: nothing found. What breaks it stays in $FUZZ_DIR as crash-*, timeout-* or oom-*.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib/say.sh"
only_told "$@"
case "${1:-60}" in *[!0-9]*) say "error: $1 is no number of seconds"; say "hint: $0 --help"; exit 2 ;; esac
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
work="${FUZZ_DIR:-/tmp/cloister-fuzz}"
mkdir -p "$work/corpus"
if [ ! -x "$work/venv/bin/python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -q -r "$here/requirements.txt"
fi
"$work/venv/bin/python" "$here/reader.py" --seed "$work/corpus"
cd "$work"
exec "$work/venv/bin/python" "$here/reader.py" -max_total_time="${1:-60}" -timeout=10 -rss_limit_mb=1024 -max_len=65536 \
  -dict="$here/dicom.dict" -print_final_stats=1 corpus
