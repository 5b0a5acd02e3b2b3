#!/usr/bin/env bash
# podman.sh: makes sure that Podman's service answers on a socket of its own, beside Docker, and prints its URL.
#
# For the tests, which hold both engines to one contract, and for whoever wants to try Cloister on Podman. It
# installs what is missing (walls.sh; nothing of it touches docker.io). Its images and containers live in a folder of
# their own. NAME... are images to hand over from Docker, by their ids.
#
#   podman.sh [NAME...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
only_told "$@"

log=/var/log/cloister-podman.log
socket=/run/cloister-podman/podman.sock
# cgroupfs: on a machine without systemd nobody else could make the groups. runc: Debian's crun refuses a machine that
# has both versions of control groups mounted.
options=(--root=/var/lib/cloister-podman --runroot=/run/cloister-podman/run --cgroup-manager=cgroupfs --runtime=runc
  --events-backend=file)
ready_within_s=30

answers() { [ -S "$socket" ] && python3 "$repo/deploy/lib/ping.py" "$socket"; }

am_root || not_now 'podman.sh runs as root' 'for an engine of your own: systemctl --user start podman.socket'
exec 9>/run/cloister-podman.lock
flock 9

"$repo/deploy/lib/walls.sh"
if ! answers; then
  mkdir -p /run/cloister-podman
  rm -f "$socket"
  cd /run/cloister-podman # what it starts leaves notes where it stands
  # 9>&-: the service must not keep our lock
  setsid podman "${options[@]}" system service --time=0 "unix://$socket" >>"$log" 2>&1 </dev/null 9>&- &
  disown
  deadline=$((SECONDS + ready_within_s))
  until answers; do
    [ "$SECONDS" -lt "$deadline" ] || not_now "podman did not become ready in $ready_within_s s" "see $log"
    sleep 0.2
  done
fi
for name in "$@"; do
  id="$(docker image inspect --format '{{.Id}}' "$name")"
  have="$(podman "${options[@]}" image inspect --format 'sha256:{{.Id}}' "localhost/$name" 2>/dev/null || true)"
  if [ "$id" != "$have" ]; then
    say "podman: taking over $name"
    docker save "$name:latest" | podman "${options[@]}" load >>"$log" 2>&1 9>&- ||
      not_now "podman did not take $name" "see $log"
  fi
done
printf 'unix://%s\n' "$socket"
