"""The short form of `python -m tests.bench.chaos`: each kind of fault once, by a seed of this very run."""

from __future__ import annotations

import os
import random

import pytest

from tests.bench.chaos import COLUMNS, chaos
from tests.end_to_end.house import House
from tests.end_to_end.machine import AS_ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow]
# another schedule on every run; `CLOISTER_CHAOS_SEED` takes one again
SEED = int(os.environ.get("CLOISTER_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
FAULTS = 10  # as many as there are kinds


def test_whatever_breaks_in_whatever_order_every_promise_holds(house: House) -> None:
    if not AS_ROOT:
        pytest.skip("only root can mount a small disk")
    row = chaos(house, SEED, FAULTS, print)
    assert tuple(row) == COLUMNS
    assert row["broken"] == "", f"CLOISTER_CHAOS_SEED={SEED}: {row}"
    well = row["rounds_done"] + row["imports_published"]
    assert well > FAULTS // 2, f"most work ends well once what broke is mended: {row}"
