#!/usr/bin/env bash
# advisories.sh LOCK [OPTION OF pip-audit...]: what is publicly known against the packages of a lock
# (requirements/cloister.txt), asked of the Python package index's advisories or, with `-s osv`, of OSV's.
#
# On standard output a bill of materials (CycloneDX, JSON) with whatever is known; on standard error a table of it.
# Exit 0: nothing is known. 1: something is. 5: nobody could be asked. Needs the environment `dev` and a network.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"

lock="${1:-}"
[ -f "$lock" ] || { say 'error: name a lock, such as requirements/cloister.txt'; say "hint: $0 --help"; exit 2; }
shift

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
status=0
# --disable-pip: what is locked, with hashes, is what is asked about; --strict: a package nobody answers for is no answer
pip-audit --disable-pip --require-hashes --strict -r "$lock" --format cyclonedx-json --output "$work/bom.json" \
  --progress-spinner off "$@" 2>"$work/said" || status=$?
if [ ! -s "$work/bom.json" ]; then
  say 'error: no answer about known vulnerabilities'
  say "hint: $(tail -n 1 "$work/said")"
  exit 5
fi
cat "$work/bom.json"
tail -n 1 "$work/said" >&2
exit "$status"
