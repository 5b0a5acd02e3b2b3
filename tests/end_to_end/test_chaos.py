"""The short form of `python -m tests.bench.chaos`: one schedule, with a fault of each kind."""

from __future__ import annotations

import pytest

from tests.bench.chaos import COLUMNS, chaos, schedule
from tests.end_to_end.house import House
from tests.end_to_end.machine import AS_ROOT

SEED, STEPS = 277, 4


def test_the_seed_draws_faults_of_four_kinds_over_rounds_and_imports() -> None:
    drawn = schedule(SEED, STEPS)
    assert [(step.work, step.fault) for step in drawn] == [
        ("import", "kill node"), ("round", "cut"), ("round", "clock"), ("import", "full"),
    ]  # fmt: skip


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_breaks_every_promise_holds(house: House) -> None:
    if not AS_ROOT:
        pytest.skip("only root can mount a small disk")
    row = chaos(house, SEED, STEPS, print)
    assert tuple(row) == COLUMNS
    assert row["broken"] == "", row
    # a full disk may end its import, which is on record then and can be ordered again; nothing else ends anything
    assert (row["rounds_done"], row["rounds_ended_otherwise"]) == (2, 0) and row["imports_published"] >= 1, row
