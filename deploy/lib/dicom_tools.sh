#!/usr/bin/env bash
# dicom_tools.sh: Debian's DICOM tools, by which the tests judge what gate 0 writes: dcmtk, dicom3tools, libgdcm-tools.
# Installs what is missing when it may; without them those tests fail, they are never skipped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
takes_none "$@"

log=/var/log/cloister-dicom-tools.log
packages=(dcmtk dicom3tools libgdcm-tools)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if ! am_root || ! command -v apt-get >/dev/null; then
  say "warning: ${missing[*]} missing: the tests that need them will fail"
  exit 0
fi
say "installing ${missing[*]}"
install_packages "$log" "${missing[@]}" || not_now "${missing[*]} could not be installed" "see $log"
