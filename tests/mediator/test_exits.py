"""How often a run is told more than a plain word about how its jobs end."""

from __future__ import annotations

import re
from pathlib import Path

from mediator.errors import EXIT_REASONS, Code, HubCode
from mediator.exits import RAISED, TOLD_PER_RUN, told

_ROOT = Path(__file__).parents[2]
_GATE_2 = ("mediator/release", "mediator/tensors.py", "mediator/airlock/decide.py")


def test_whatever_a_job_can_bring_about_is_one_word_after_so_many() -> None:
    codes = {Code.JOB_FAILED, *EXIT_REASONS, *RAISED.values()}
    for path in (_ROOT / name for name in _GATE_2):
        for source in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            codes |= {Code[name] for name in re.findall(r"\bCode\.([A-Z_]+)", source.read_text(encoding="utf-8"))}
    assert {Code.DIFFERENCING, Code.BYTES_EXHAUSTED, Code.FILE_MISSING, Code.TENSOR_SHAPE, Code.NOT_FINITE} <= codes
    codes.discard(Code.METRIC_UNPROTECTED)  # the permit's own fault, whatever the job does
    assert {code: told(code, TOLD_PER_RUN) for code in codes} == dict.fromkeys(codes, HubCode.JOB_FAILED)
