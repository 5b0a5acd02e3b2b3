#!/usr/bin/env bash
# usage: deploy/release.sh VERSION --key RELEASE_KEY [--out DIR] [--dry-run]
#        deploy/release.sh keygen --out FILE --name NAME
#        deploy/release.sh verify DIR [--release-key KEY.pub]...
#
# Makes a release of the commit that is checked out: looks whether it may be made (nothing uncommitted, the version in
# pyproject.toml and CHANGELOG.md, deploy/test.sh passed on this very tree, the key one that sites trust), then wheel,
# bundle, bill of materials, provenance and checksums, and at the very end the signed tag. What fails leaves nothing.
#
#   --key FILE      the private release key, FILE.pub beside it
#   --out DIR       where the release goes (default: dist/cloister-VERSION beside this repository)
#   --dry-run       make the checks, print the steps, change nothing
#   --system NAME   debian-12 (default) or ubuntu-24.04; again for another bundle
#   --untested, --no-advisories, --unlisted-key    go on all the same; the provenance says so
#   --ignore-advisory ID   what was looked at and does not reach us; again for another
#   and --engine, --image, --root, --keyring, --debs, --images, --no-debs, --no-images, as deploy/bundle.sh --help says
#   keygen          make a release key: FILE (mode 0600) and FILE.pub, and print its fingerprint
#   verify DIR      check a release's signatures, and every file against them
#   --help          this text
#
# Exit codes: 0 done · 1 our defect · 2 wrong usage · 3 refused by a rule · 4 not what was signed · 5 not now.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/say.sh"

only_told "$@"
case "${1:-}" in
  keygen | verify) set -- "$@" ;;
  [0-9]*.[0-9]*.[0-9]*) set -- make "$@" ;;
  *) say 'error: name a version, such as 0.2.0, or keygen or verify'; say 'hint: deploy/release.sh --help'; exit 2 ;;
esac
kind=product
# what is publicly known against the packages is asked with a tool of the development environment
[ "$1" != make ] || case " $* " in *' --no-advisories '* | *' --dry-run '*) ;; *) kind=dev ;; esac
venv="$("$repo/deploy/lib/environment.sh" "$kind")"
PATH="$venv/bin:$PATH" PYTHONPATH="$repo" exec "$venv/bin/python" -P -m deploy.release "$@"
