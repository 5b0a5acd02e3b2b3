#!/usr/bin/env bash
# images.sh [NAME...]: makes sure Cloister's images are there (all but cloister-torch-cuda, or the named and their
# parents) and prints `name sha256:…` for each. Uses the environment and the engine, and makes those first where needed.
#
#   CLOISTER_TORCH_INDEX     an index that has the CPU build of torch, where pip's own has not (no default)
#   CLOISTER_DEBIAN_MIRROR   a Debian mirror of yours, where the public one cannot be reached (no default)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"

venv="$("$repo/deploy/lib/environment.sh" product)"
DOCKER_HOST="$("$repo/deploy/lib/engine.sh")"
export DOCKER_HOST
exec "$venv/bin/python" -I "$repo/deploy/lib/images.py" "$@"
