#!/usr/bin/env bash
# test.sh [--fast] [PYTEST ARGUMENT...]: checks everything, on a fresh machine too.
#
# Makes the environment (with the development tools), the engine and the images, then runs style, types,
# import contracts and tests; all of them, whatever fails: first those that need no engine, side by side, then those that
# need one, one after the other. With PYTEST ARGUMENTs only what they name, one after the other.
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
  deploy/lib/images.sh >&2
  deploy/lib/dicom_tools.sh
  deploy/lib/systemd.sh
fi

reports="$(mktemp -d)"
trap 'rm -rf "$reports"' EXIT
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

check lint count_lint ruff check --output-format=concise .
check format count_format ruff format --check .
check types count_types mypy
check contracts count_contracts lint-imports --no-logo

started=$SECONDS
reported=() # a report and pytest's exit status, once for each run

# run_tests NAME PYTEST ARGUMENT...: the report is what we count in; the terminal shows pytest's own words as they come.
run_tests() {
  local name="$1" status=0
  shift
  say "== tests: $name"
  python -m pytest --junit-xml="$reports/$name.xml" "$@" || status=$?
  reported+=("$reports/$name.xml" "$status")
}

if [ $# -gt 0 ]; then
  [ "$fast" = no ] || set -- -m "$quick" "$@"
  run_tests chosen "$@"
else
  # a file's tests stay together: some share what they made
  beside=(-n "$(nproc)" --dist loadfile)
  if [ "$fast" = yes ]; then
    run_tests quick -m "$quick" "${beside[@]}"
  else
    run_tests plain -m 'not engine' "${beside[@]}"
    run_tests engine -m engine
  fi
fi
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
