#!/usr/bin/env bash
# usage: deploy/bundle.sh --key RELEASE_KEY [--out DIR] [--system SYSTEM] [--engine docker|podman|none] [--image NAME]...
#        deploy/bundle.sh check FILE [--release-key KEY.pub]... [--unpack DIR]
#
# Makes one file that deploy/install.sh installs from without a network: the wheels of requirements/cloister.txt and our
# own, Debian packages that a server may lack, the sentinel's image, a bill of materials, the installer, signed as one.
# It holds what is committed, nothing else, and prints the file's path. The same inputs give the same bytes.
#
#   --key FILE      the private release key (deploy/release.sh keygen makes one; FILE.pub beside it)
#   --out DIR       where the file goes (default: dist beside this repository)
#   --system NAME   debian-12 (default) or ubuntu-24.04: its Python, its packages
#   --engine NAME   whose packages to bring: docker (default), podman or none
#   --image NAME    images to bring instead of cloister-sentinel, as deploy/lib/images.sh calls them
#   --root DIR      a root folder of that system, whose package sources are asked instead of this machine's
#   --keyring FILE  the keys of that system's archive, where the root holds none
#   --debs DIR      take the Debian packages from this folder, --images DIR the image archives: to make a bundle again
#   --no-debs, --no-images    leave them out
#   check FILE      verify signature and content, whatever machine it is for; --unpack DIR writes it out
#   --help          this text
#
# Exit codes: 0 done · 2 wrong usage · 4 a file is not what was signed · 5 not now (safe to try again).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/say.sh"

[ $# -gt 0 ] || { say 'error: deploy/bundle.sh needs --key RELEASE_KEY'; say 'hint: deploy/bundle.sh --help'; exit 2; }
only_told "$@"
verb=bundle
if [ "$1" = check ]; then
  verb=check
  shift
fi
venv="$("$repo/deploy/lib/environment.sh" product)"
PYTHONPATH="$repo" exec "$venv/bin/python" -P -m deploy.release "$verb" "$@"
