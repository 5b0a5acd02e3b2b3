#!/usr/bin/env bash
# usage: deploy/install.sh node|hub [--check] [--dry-run] [--bundle FILE] [--answers FILE] [OPTION...]
#        deploy/install.sh upgrade [--bundle FILE] [--wait-for-jobs SECONDS] [--dry-run]
#        deploy/install.sh rollback
#        deploy/install.sh uninstall --keep-data|--destroy-data [--yes] [--dry-run]
#
# Installs a hospital's node or a hub on this machine as systemd services: Debian 12 or Ubuntu 24.04, as root.
# Looks at the machine first and changes nothing where something is missing. What fails, or is interrupted, is undone.
#
#   node, hub     install it; safe to run again
#   upgrade       install the version of this folder, or of the bundle, beside the one that runs, and switch to it;
#                 goes back by itself when the new one does not do its work
#   rollback      go back to the version before
#   uninstall     take everything away; --keep-data leaves the state folder and says where, --destroy-data shreds keys
#
#   --check       only look, and print the table (--json: as JSON)
#   --dry-run     print every change, and make none
#   --bundle FILE install from a signed bundle, without any network; --release-key FILE names who may have signed it
#   --answers FILE    the answers as TOML, instead of questions; `deploy/install.sh node --help-answers` lists them
#   --help        this text
#
# Exit codes: 0 done, 1 our defect, 2 wrong usage, 3 refused by a rule, 4 integrity broken, 5 not now (safe to retry).
set -euo pipefail

for word in "$@"; do
  case "$word" in
    -h | --help)
      sed -n '1d; /^#/!q; s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
  esac
done

here="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd -P)"
# The system's own interpreter: the services' users cannot read one under somebody's home. Its default first: a bundle is
# made for that one, whichever others are there.
for python in /usr/bin/python3 /usr/bin/python3.12 /usr/bin/python3.11; do
  if [ -x "$python" ] && "$python" -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
    umask 022
    exec "$python" -I -B "$here/install/run.py" "$@"
  fi
done
printf 'error: no Python 3.11 or 3.12 in /usr/bin\nhint: use Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv\n' >&2
exit 5
