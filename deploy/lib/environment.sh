#!/usr/bin/env bash
# environment.sh [product|dev]: makes Cloister's own Python environment and prints its folder.
#
# Stock `venv` and `pip`, every package by hash from requirements/, nothing resolved and nothing built.
# A stamp of what went in makes the second run a no-op. `dev` holds everything `product` holds, at the very
# same versions, so either request is content with it.
#
#   CLOISTER_VENV   the folder to use instead of .venv beside this repository
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
only_told "$@"

kind="${1:-product}"
case "$kind" in
  product) lock=requirements/cloister.txt ;;
  dev) lock=requirements/dev.txt ;;
  *) say "error: there is no environment $kind"; say 'hint: usage: environment.sh [product|dev]'; exit 2 ;;
esac
cd "$repo"
umask 022 # the node's processes run as other users and must be able to read what we install

# True if any user may walk from / to this folder. A clone under /root is closed to the node's own users.
open_to_all() {
  local at="$1"
  while [ "$at" != / ]; do
    [ $((0$(stat -c %a "$at") & 1)) -eq 1 ] || return 1
    at="$(dirname "$at")"
  done
}

editable=yes
venv="${CLOISTER_VENV:-$repo/.venv}"
if am_root && ! open_to_all "$repo"; then
  editable=no
  venv="${CLOISTER_VENV:-/var/lib/cloister/venv-$(printf '%s' "$repo" | sha256sum | cut -c1-8)}"
fi

# Everything that decides what is in the environment; with a copied install, our own sources too.
fingerprint() {
  {
    printf '%s %s\n' "$editable" "$repo" # an editable install points at one checkout
    sed '/^\[tool\.ruff\]/,$d' pyproject.toml # what is installed, not how it is checked
    cat requirements/cloister.txt requirements/dev.txt
    if [ "$editable" = no ]; then
      find pyproject.toml node mediator containers federation durable -type f ! -name '*.pyc' -print0 |
        sort -z | xargs -0r sha256sum
    fi
  } | sha256sum | cut -d' ' -f1
}
want="$(fingerprint)"
stamp="$venv/cloister.stamp"
log="$venv/cloister-install.log"

stands() {
  [ -x "$venv/bin/python" ] || return 1
  case "$(cat "$stamp" 2>/dev/null)" in
    "$kind $want" | "dev $want") "$venv/bin/python" -c '' ;;
    *) return 1 ;;
  esac
}

# The system's interpreter first: the node's own users cannot read one under somebody's home.
find_python() {
  local name
  for name in /usr/bin/python3.12 /usr/bin/python3.11 python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}

require_python() {
  python="$(find_python)" && return 0
  am_root || not_now 'no Python 3.11 or 3.12 with venv here' 'as root: apt-get install python3 python3-venv'
  say 'environment: installing python3-venv'
  install_packages /var/log/cloister-environment.log python3 python3-venv ca-certificates ||
    not_now 'python3-venv could not be installed' 'see /var/log/cloister-environment.log'
  python="$(find_python)" || not_now 'no usable Python after installing python3-venv' \
    'see /var/log/cloister-environment.log'
}

failed() {
  say "$(grep -m1 '^ERROR' "$log" || true)"
  not_now "$1" "the whole story is in $log; running again is safe"
}

pip() { quietly "$log" "$venv/bin/python" -m pip --no-input install --no-deps "$@"; }

if stands; then
  printf '%s\n' "$venv"
  exit 0
fi
require_supported_system
if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
  say "error: $venv is there and is no Python environment"
  say 'hint: remove it, or set CLOISTER_VENV to another folder'
  exit 2
fi
require_python
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9 # two first runs at once: the second waits, then finds it done
if ! stands; then
  say "environment: $(grep -c '^[a-z].*==' "$lock") packages into $venv (about a minute the first time)"
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv" || not_now "could not make $venv" 'is the disk full?'
  fi
  rm -f "$stamp"
  # Wheels only: an sdist would run its author's code here. Byte code afterwards, on every core at once.
  pip --no-compile --require-hashes --only-binary=:all: -r "$lock" || failed 'the packages could not be installed'
  "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >>"$log" 2>&1 || true
  if [ "$editable" = yes ]; then
    pip --no-build-isolation --editable . || failed 'cloister itself could not be installed'
  else
    pip --no-build-isolation --force-reinstall . || failed 'cloister itself could not be installed'
  fi
  printf '%s %s\n' "$kind" "$want" >"$stamp"
fi
printf '%s\n' "$venv"
