"""Coverage-guided fuzzing of one edge (`edges.py`).

usage: fuzz_edges.py TARGET [libFuzzer option...] [CORPUS...]
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["federation", "mediator", "node.ipc", "node.core"]):
    from tests.fuzz.edges import TARGETS

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    target = TARGETS[sys.argv.pop(1)]
    for number in range(8):
        target(bytes([number]))  # what each stands on is made before the clock runs
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
