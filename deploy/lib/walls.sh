#!/usr/bin/env bash
# walls.sh: what the tests need beside Docker: Podman (and what it starts with) and gVisor's runsc, from Debian.
# Installs what is missing when it may; without them those tests fail, they are never skipped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
takes_none "$@"

log=/var/log/cloister-walls.log
missing=()
for program in podman catatonit runc runsc; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if ! am_root || ! command -v apt-get >/dev/null; then
  say "warning: ${missing[*]} missing: the tests that need them will fail"
  exit 0
fi
say "installing ${missing[*]}"
install_packages "$log" "${missing[@]}" || not_now "${missing[*]} could not be installed" "see $log"
