#!/usr/bin/env bash
# newer_engines.sh: Debian 13's Docker (26) and Podman (5.4) beside whatever this machine has, and prints their folder.
#
# For the tests: GPUs by CDI want a newer engine than Debian 12's. Nothing is installed on the machine but mmdebstrap,
# which the images need too: the engines lie unpacked in a folder of their own. `programs/` in it holds those of Docker
# that run here as they are (dockerd, containerd); Podman wants the whole folder as its root.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
takes_none "$@"

log=/var/log/cloister-newer-engines.log
place=/var/lib/cloister-newer-engines
release=trixie
packages=docker.io,podman,runc,catatonit,golang-github-containers-common

am_root || not_now 'newer_engines.sh runs as root' 'the tests that need it do too'
exec 9>/run/cloister-newer-engines.lock
flock 9
if [ ! -e "$place/programs" ]; then
  command -v mmdebstrap >/dev/null || install_packages "$log" mmdebstrap debian-archive-keyring ||
    not_now 'mmdebstrap could not be installed' "see $log"
  say 'collecting newer engines (about a minute)'
  part="$place.part"
  rm -rf --one-file-system "$part" "$place"
  quietly "$log" mmdebstrap --variant=minbase --include="$packages" --format=directory \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists' \
    "$release" "$part" ${CLOISTER_DEBIAN_MIRROR:+"$CLOISTER_DEBIAN_MIRROR"} ||
    not_now 'the newer engines could not be collected' "see $log"
  mkdir "$part/programs"
  for program in usr/sbin/dockerd usr/bin/containerd usr/bin/containerd-shim-runc-v2 usr/bin/docker-init; do
    ln -s "../$program" "$part/programs/"
  done
  mv "$part" "$place"
fi
printf '%s\n' "$place"
