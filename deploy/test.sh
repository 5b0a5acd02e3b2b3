#!/usr/bin/env bash
# test.sh [--fast] [PYTEST ARGUMENT...]: checks everything, on a fresh machine too.
#
# Makes the environment (with the development tools), the engine and the images, then runs style, types,
# import contracts and tests; all of them, whatever fails. Two lanes beside each other: the tests that need no engine, as
# many at once as there are processors, and, before them in the queue for a processor, all the rest one after the other:
# images, checks, and the tests that need the engine. With PYTEST ARGUMENTs only what they name, one after the other.
# The last line is `tests: N passed, M failed`. Exit 0 only if nothing failed anywhere.
#
#   --fast   leaves out the tests that need the engine or are slow: for your own machine, never for CI
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/say.sh"
cd "$repo"

fast=no
if [ "${1:-}" = --fast ]; then
  fast=yes
  shift
fi
[ "$fast$([ -n "${CI:-}" ] && echo ci)" != yesci ] || { say 'error: --fast is not for CI'; exit 2; }

venv="$(deploy/lib/environment.sh dev)"
export PATH="$venv/bin:$PATH"
# A wrong argument is told now, not behind the images and every other check.
if [ $# -gt 0 ] && ! told="$(python -m pytest --collect-only -qq "$@" 2>&1 </dev/null)"; then
  printf '%s\n' "$told" | tail -5 >&2
  say 'error: pytest finds no test with these arguments'
  say 'hint: name a file or a folder below tests/, or an option of pytest'
  exit 2
fi
quick='not engine and not slow'
if [ "$fast" = no ]; then
  deploy/lib/walls.sh
  DOCKER_HOST="$(deploy/lib/engine.sh)"
  export DOCKER_HOST
  deploy/lib/dicom_tools.sh
  deploy/lib/systemd.sh
fi

reports="$(mktemp -d)"
lane='' # the process group of the tests in the background
trap '[ -z "$lane" ] || kill -- "-$lane" 2>/dev/null || true; rm -rf "$reports"' EXIT
summary=() # one line per check, printed together at the end
bad=0

# check NAME COUNTER COMMAND...: runs it, shows what it said, notes how many findings COUNTER sees in that.
check() {
  local name="$1" counter="$2" out="$reports/$1" status=0 failures started=$SECONDS
  shift 2
  say "== $name"
  "$@" >"$out" 2>&1 </dev/null || status=$?
  cat "$out"
  failures="$($counter "$out")"
  # A tool that fails without a finding we can count has failed once.
  if [ "$status" -eq 0 ]; then failures=0; elif [ "${failures:-0}" -eq 0 ]; then failures=1; fi
  [ "$failures" -eq 0 ] || bad=1
  summary+=("$name: $failures failed ($((SECONDS - started)) s)")
}

count_lint() { sed -nE 's/^Found ([0-9]+) errors?.*/\1/p' "$1" | tail -1; }
count_format() { sed -nE 's/^([0-9]+) files? would be reformatted.*/\1/p' "$1" | tail -1; }
count_types() { sed -nE 's/^Found ([0-9]+) errors? in.*/\1/p' "$1" | tail -1; }
count_contracts() { sed -nE 's/^Contracts: [0-9]+ kept, ([0-9]+) broken.*/\1/p' "$1" | tail -1; }

run=() # the names of pytest's runs

# run_tests NAME PYTEST ARGUMENT...: the report is what we count in; the terminal shows pytest's own words as they come.
run_tests() {
  local name="$1" status=0
  shift
  say "== tests: $name"
  python -m pytest --junit-xml="$reports/$name.xml" "$@" || status=$?
  echo "$status" >"$reports/$name.status"
}

# beside NAME PYTEST ARGUMENT...: the same in the background; it says its words when `join` waits for it. A group of its
# own (set -m): what is started in the background of a script otherwise ignores an interrupt, and so would every process
# that a test starts and interrupts.
beside() {
  set -m
  (
    renice -n 5 -p "$BASHPID" >/dev/null # tests that measure an engine's seconds go first
    run_tests "$@"
  ) >"$reports/$1.out" 2>&1 </dev/null &
  lane=$!
  set +m
}

join() {
  wait "$lane" || true
  lane=''
  cat "$reports/$1.out"
}

started=$SECONDS
# a file's tests stay together: some share what they made
many=(-n "$(nproc)" --dist loadfile)
[ "$fast$#" != no0 ] || beside plain -m 'not engine' "${many[@]}"
[ "$fast" = yes ] || deploy/lib/images.sh >&2

check lint count_lint ruff check --output-format=concise .
check format count_format ruff format --check .
check types count_types mypy
check contracts count_contracts lint-imports --no-logo

if [ $# -gt 0 ]; then
  [ "$fast" = no ] || set -- -m "$quick" "$@"
  run=(chosen)
  run_tests chosen "$@"
elif [ "$fast" = yes ]; then
  run=(quick)
  run_tests quick -m "$quick" "${many[@]}"
else
  run=(plain engine)
  run_tests engine -m engine
  join plain
fi
# A run that was killed has left no status.
reported=()
for name in "${run[@]}"; do
  reported+=("$reports/$name.xml" "$(cat "$reports/$name.status" 2>/dev/null || echo 1)")
done
read -r passed failed skipped < <(python deploy/lib/count_tests.py "${reported[@]}")
[ "$failed" -eq 0 ] || bad=1

# What deploy/release.sh asks for: the committed tree on which everything passed.
if [ "$bad$fast$#" = 0no0 ] && [ -z "$(git status --porcelain 2>/dev/null || echo none)" ]; then
  git rev-parse 'HEAD^{tree}' >"$(git rev-parse --git-path cloister-tested)"
fi

printf '\n'
printf '%s\n' "${summary[@]}"
printf 'seconds: %s, of which tests %s; skipped: %s\n' "$SECONDS" "$((SECONDS - started))" "$skipped"
printf 'tests: %s passed, %s failed\n' "$passed" "$failed"
exit "$bad"
