#!/usr/bin/env bash
# images.sh [NAME...]: makes sure Cloister's images are there (all but cloister-torch-cuda, or the named and their
# parents) and prints `name sha256:…` for each. Uses the environment and the engine, and makes those first where needed.
#
#   CLOISTER_TORCH_INDEX     an index that has the CPU build of torch, where pip's own has not (no default)
#   CLOISTER_DEBIAN_MIRROR   a Debian mirror of yours, where the public one cannot be reached (no default)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"
only_told "$@"

for name in "$@"; do # before the minutes that environment and engine may take
  grep -q "Recipe(\"$name\"" "$repo/deploy/lib/images.py" || {
    say "error: no image is called $name"
    say "hint: one of $(grep -o 'Recipe("[a-z-]*"' "$repo/deploy/lib/images.py" | cut -d'"' -f2 | tr '\n' ' ')"
    exit 2
  }
done
venv="$("$repo/deploy/lib/environment.sh" product)"
DOCKER_HOST="$("$repo/deploy/lib/engine.sh")"
export DOCKER_HOST
exec "$venv/bin/python" -I "$repo/deploy/lib/images.py" "$@"
