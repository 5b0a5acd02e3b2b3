# shellcheck shell=bash
# Sourced by every script here: how they talk, and the two questions all of them ask.
# Talk goes to stderr, results to stdout. Exit codes: 0 done, 1 our bug, 2 usage, 5 not now (safe to retry).

# shellcheck disable=SC2034  # used by whoever sources this
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"

say() { printf '%s\n' "$*" >&2; }

# not_now ERROR HINT: the two lines a person needs, and the exit code that says "try again after that".
not_now() {
  printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
  exit 5
}

# quietly LOG COMMAND...: its talk goes to LOG, and it inherits none of our locks (a daemon would keep them).
quietly() {
  local log="$1"
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >>"$log" 2>&1 </dev/null 8>&- 9>&-
}

# Every script answers -h and --help, anywhere before a `--`, with the comment at its head, and does nothing else.
for word in "$@"; do
  case "$word" in
    --) break ;;
    -h | --help)
      sed -n '1d; /^#/!q; s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
  esac
done

# only_told "$@": an option that the comment at the script's head does not name is refused, before anything is prepared.
only_told() {
  local word
  for word in "$@"; do
    case "$word" in
      --) break ;;
      -*)
        sed '1d; /^#/!q' "$0" | grep -qE -- "(^|[^a-z-])${word%%=*}([^a-z-]|\$)" || {
          printf 'error: %s knows no option %s\nhint: %s --help\n' "${0##*/}" "${word%%=*}" "$0" >&2
          exit 2
        }
        ;;
    esac
  done
}

# takes_none "$@": for scripts without arguments, so that a slip is not taken for consent.
takes_none() {
  [ "$#" -eq 0 ] || { printf 'error: %s takes no argument\nhint: %s --help\n' "${0##*/}" "$0" >&2; exit 2; }
}

am_root() { [ "$(id -u)" -eq 0 ]; }

# The two systems this is tried on. Elsewhere one clear line, before anything is changed.
require_supported_system() {
  local id='' version=''
  if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091
    id="$(. /etc/os-release && printf '%s' "${ID:-}")"
    # shellcheck disable=SC1091
    version="$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")"
  fi
  [ "$(uname -sm)" = 'Linux x86_64' ] ||
    not_now "this machine is $(uname -sm), not Linux x86_64" 'use Debian 12 or Ubuntu 24.04 on x86_64'
  case "$id $version" in
    'debian 12' | 'ubuntu 24.04') ;;
    *) not_now "this system is '${id:-unknown} ${version}', which cloister does not support" \
      'use Debian 12 or Ubuntu 24.04' ;;
  esac
}

# install_packages LOG NAME...: as root, non-interactive, no recommends; package lists fetched only when needed.
# One at a time: apt waits for a busy dpkg, but gives up at once on busy package lists.
install_packages() (
  log="$1"
  shift
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
  apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install)
  exec 8>/run/cloister-apt.lock
  flock 8
  quietly "$log" "${apt[@]}" "$@" && exit 0
  quietly "$log" apt-get -q -o DPkg::Lock::Timeout=300 update || true
  quietly "$log" "${apt[@]}" "$@"
)
