#!/usr/bin/env bash
# systemd.sh: systemd-analyze, by which the tests judge the units: how much each is exposed, and whether systemd reads it.
# Installs Debian's package when it may, and starts nothing; without it those tests fail, they are never skipped.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
takes_none "$@"

command -v systemd-analyze >/dev/null && exit 0
if ! am_root || ! command -v apt-get >/dev/null; then
  say 'warning: systemd-analyze missing: the tests that need it will fail'
  exit 0
fi
say 'installing systemd'
install_packages /var/log/cloister-systemd.log systemd ||
  not_now 'systemd could not be installed' 'see /var/log/cloister-systemd.log'
