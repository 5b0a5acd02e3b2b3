#!/bin/sh
# Makes the four locks again. Needs `uv` on PATH and, for the torch lock, an index or folder that holds the
# CPU build (CLOISTER_TORCH_INDEX, or PIP_FIND_LINKS naming a folder). Prefers the versions locked today;
# UPGRADE=1 lets everything move.
set -eu
cd "$(dirname "$0")/.."

compile() {
  # -q: the lock itself is the output; line annotations keep "why is this here" at one line a package
  uv pip compile -q --generate-hashes --no-header --annotation-style line ${UPGRADE:+--upgrade} "$@"
}
product="pyproject.toml requirements/build.in --extra node --extra hub --universal --python-version 3.11"

# shellcheck disable=SC2086  # a list of words, on purpose
compile $product -o requirements/cloister.txt
# The dev lock holds the product's at the very same versions.
# shellcheck disable=SC2086
compile $product --extra dev -c requirements/cloister.txt -o requirements/dev.txt
# The job image's Python is Debian 12's: one version, one platform, no markers.
compile requirements/job-torch.in --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  ${CLOISTER_TORCH_INDEX:+--index "$CLOISTER_TORCH_INDEX"} ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
  -o requirements/job-torch.txt

# The CUDA build of torch is the package index's own; all else at the versions of the image for the CPU.
constraints="$(mktemp)"
trap 'rm -f "$constraints"' EXIT
grep -E '^[a-z0-9_.-]+==' requirements/job-torch.txt | sed 's/ .*//' | grep -v '^torch==' >"$constraints"
compile requirements/job-torch-cuda.in --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  -c "$constraints" -o requirements/job-torch-cuda.txt
sed -i "s#, -c $constraints##; s#-c $constraints, ##" requirements/job-torch-cuda.txt

# A lock names packages and hashes, never a place.
if grep -nE '://|^--(index|extra|find)' requirements/*.txt; then
  echo "error: a lock names an index" >&2
  exit 1
fi
