#!/usr/bin/env bash
# engine.sh: makes sure a container engine answers, and prints its socket's URL: unix:///run/docker.sock
#
# 1. DOCKER_HOST, if set, is used or refused: never silently replaced by another engine.
# 2. A socket that answers: Docker's, then Podman's, the user's own before the machine's.
# 3. As root: install Debian's docker.io where dockerd is missing, start it (systemd, or by hand without), wait.
#    Started by hand, it has gVisor as runtime `runsc` where that is installed; elsewhere the administrator registers it.
# 4. Otherwise: one line that says what to install, exit 5.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
takes_none "$@"

log=/var/log/cloister-engine.log
ready_within_s=60 # first start on a slow disk; 3 to 20 s is usual

answers() { [ -S "$1" ] && /usr/bin/env python3 "$repo/deploy/lib/ping.py" "$1"; }

settle() {
  printf 'unix://%s\n' "$1"
  exit 0
}

sockets() {
  local mine="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
  printf '%s\n' "$mine/docker.sock" /run/docker.sock /var/run/docker.sock \
    "$mine/podman/podman.sock" /run/podman/podman.sock
}

use_a_running_engine() {
  local path
  while read -r path; do
    if answers "$path"; then settle "$path"; fi
  done < <(sockets)
}

# A pid file left by a killed process names a number that another program may have by now, and dockerd then
# refuses to start. Removed only if no process of that name has that number.
drop_stale_pid_file() {
  local file="$1" name="$2" pid
  [ -s "$file" ] || return 0
  pid="$(tr -dc 0-9 <"$file")"
  [ "$(cat "/proc/${pid:-0}/comm" 2>/dev/null)" = "$name" ] || rm -f "$file"
}

wait_until_ready() {
  local deadline=$((SECONDS + ready_within_s))
  while [ "$SECONDS" -lt "$deadline" ]; do
    if answers /run/docker.sock; then return 0; fi
    # started by hand and already gone: no use waiting
    if [ -n "${1:-}" ] && ! kill -0 "$1" 2>/dev/null; then return 1; fi
    sleep 0.3
  done
  return 1
}

# Without systemd nobody has mounted the control groups that limits on pids, memory and CPU need.
mount_control_groups() {
  mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup 2>>"$log" || true
}

# gVisor without KVM, and without a network stack of its own: our containers have none. A daemon.json of the
# administrator's is left alone.
with_gvisor() {
  if [ -e /etc/docker/daemon.json ] || ! command -v runsc >/dev/null; then return 0; fi
  printf '{"runtimes": {"runsc": {"path": "%s", "runtimeArgs": ["--platform=ptrace", "--network=none"]}}}\n' \
    "$(command -v runsc)" >/run/cloister-engine.json
  printf '%s\n' --config-file=/run/cloister-engine.json
}

# start_by_hand [OPTION...]: in a session of its own, so that it outlives this script and its terminal.
start_by_hand() {
  drop_stale_pid_file /run/docker.pid dockerd
  drop_stale_pid_file /run/docker/containerd/containerd.pid containerd
  # 9>&-: the daemon must not keep our lock
  # shellcheck disable=SC2046  # one option or none
  setsid dockerd --host=unix:///run/docker.sock --pidfile=/run/docker.pid $(with_gvisor) "$@" \
    >>"$log" 2>&1 </dev/null 9>&- &
  local started=$!
  disown "$started"
  wait_until_ready "$started"
}

start_docker() {
  if grep -qsx dockerd /proc/[0-9]*/comm; then
    wait_until_ready && return 0
    not_now "dockerd is running but /run/docker.sock does not answer" "see $log, or restart dockerd"
  fi
  if [ -d /run/systemd/system ]; then
    quietly "$log" systemctl start docker.service && wait_until_ready && return 0
    not_now 'systemd could not start docker.service' 'see: journalctl -u docker.service'
  fi
  mount_control_groups
  if start_by_hand; then return 0; fi
  if grep -qsx dockerd /proc/[0-9]*/comm; then # alive but slow: a second one would only quarrel with it
    not_now "dockerd did not become ready in $ready_within_s s" "its last words are in $log; running again waits again"
  fi
  # Jobs have no network at all, so an engine that may not touch the firewall serves as well.
  say 'engine: no bridge network on this machine, starting without one'
  if start_by_hand --bridge=none --iptables=false --ip-forward=false --ip-masq=false; then return 0; fi
  not_now 'dockerd could not be started' "its last words are in $log"
}

if ! command -v python3 >/dev/null && am_root; then # a bare machine: even asking a socket needs it
  require_supported_system
  install_packages "$log" python3 || not_now 'python3 could not be installed' "see $log"
fi

if [ -n "${DOCKER_HOST:-}" ]; then
  case "$DOCKER_HOST" in
    unix://*) if answers "${DOCKER_HOST#unix://}"; then settle "${DOCKER_HOST#unix://}"; fi ;;
    *) not_now 'DOCKER_HOST is not a local socket' 'set it to unix:///path/to.sock, or unset it' ;;
  esac
  # This script's own answer from an earlier day is no choice of the user's: then go on and start the engine.
  [ "$DOCKER_HOST" = unix:///run/docker.sock ] && am_root ||
    not_now 'no engine answers at DOCKER_HOST' 'start that engine, or unset DOCKER_HOST'
fi

use_a_running_engine
require_supported_system
am_root || not_now 'no container engine answers for this user' \
  'start one (systemctl --user start podman.socket), or ask an administrator to install docker.io'

# Two scripts at once must not start two daemons.
exec 9>/run/cloister-engine.lock
flock 9
use_a_running_engine
if ! command -v dockerd >/dev/null; then
  say 'engine: installing docker.io'
  install_packages "$log" docker.io ||
    not_now 'docker.io could not be installed' "see $log"
fi
say 'engine: starting dockerd'
start_docker
settle /run/docker.sock
