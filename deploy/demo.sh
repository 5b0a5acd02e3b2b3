#!/usr/bin/env bash
# usage: deploy/demo.sh [--work DIR] [--rounds N] [--keep] [--docs]
#        deploy/demo.sh --stop [--work DIR]
#
# Runs a hub and three hospital nodes on this machine, as separate processes (as root: under separate users).
# Takes DICOM in, trains one model in sealed containers over several rounds, and shows what each gate let pass
# and what it refused. Debian 12 or Ubuntu 24.04. Asks nothing.
#
#   --work DIR   where everything goes (default: demo-work beside this repository); its content is replaced
#   --rounds N   federated rounds, at least 3 (default 4)
#   --keep       leave hub and nodes running at the end and print their addresses
#   --docs       put this demo's result into the documents: deploy/docs/demo.json, .svg, .png and README's transcript
#   --stop       end what --keep left running
#   --help       this text
#
# The report is DIR/report.html (to read) and DIR/demo-report.json (for programs), its curves DIR/demo.svg and demo.png,
# the logs are in DIR/logs.
# Exit codes: 0 all is well · 1 a promise of the demo was not kept · 2 wrong usage · 4 a log does not verify, or an
# identifier got out · 5 not now (safe to try again).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/say.sh"

only_told "$@"
stop=no
for word in "$@"; do
  case "$word" in
    --stop) stop=yes ;;
  esac
done

# A slip in the arguments is told now, and not after the minutes that a first run takes to get ready.
if command -v python3 >/dev/null; then
  PYTHONPATH="$repo" PYTHONDONTWRITEBYTECODE=1 python3 -m deploy.demo.arguments "$@"
fi

now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.2f", to - from }'; }

began="$(now)"
early="$(mktemp -d)"
trap 'rm -rf "$early"' EXIT
: >"$early/talk"

# What is said before the demo itself runs belongs to the terminal's record as well.
heard() { tee -a "$early/talk" >&2; }

# The engine is started while the environment is made: on a first run both take a while.
start_engine() {
  "$repo/deploy/lib/engine.sh" >"$early/engine" 2> >(heard)
  since "$began" >"$early/engine_s"
}
engine=''
if [ "$stop" = no ]; then
  start_engine &
  engine=$!
fi
venv="$("$repo/deploy/lib/environment.sh" product 2> >(heard))" || {
  code=$?
  [ -z "$engine" ] || wait "$engine" || true
  exit "$code"
}
spent=(--spent "environment=$(since "$began")")
if [ -n "$engine" ]; then
  wait "$engine"
  DOCKER_HOST="$(cat "$early/engine")"
  export DOCKER_HOST
  spent+=(--spent "engine=$(cat "$early/engine_s")")
fi

# Our own byte code, made once: the processes of hub and nodes run as users who may not write it beside the source, and
# would compile the same files at every start. Only what changed is compiled.
"$venv/bin/python" -m compileall -q -j 0 "$repo"/{containers,durable,federation,mediator,node} >/dev/null 2>&1 || true

CLOISTER_DEMO_TALK="$(cat "$early/talk")"
export CLOISTER_DEMO_TALK
rm -rf "$early"
# -P and PYTHONPATH: the demo's modules come from this repository, never from the folder somebody stands in
PYTHONPATH="$repo" exec "$venv/bin/python" -P -m deploy.demo "$@" "${spent[@]}" --began "$began"
