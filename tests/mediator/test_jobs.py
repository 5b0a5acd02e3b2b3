from __future__ import annotations

from itertools import product

import pytest

from mediator.errors import IntegrityBroken
from mediator.jobs import AFTER_RESTART, TERMINAL, JobState, JobStep, advance, mermaid

# The whole cross product: a row for each state, a column for each event in the order of `JobStep`; `-` is impossible.
COLUMNS = [
    "admit", "redeliver", "prepare", "start", "preempt", "produce", "release", "spool", "deliver", "hold", "refuse",
    "fail", "stop",
]  # fmt: skip
EXPECTED = """
received  admitted released -         -       -        -        -         -        -         -    refused failed stopped
admitted  -        released preparing -       -        -        -         -        -         -    refused failed stopped
preparing -        -        -         running -        -        -         -        -         -    refused failed stopped
running   -        -        -         -       admitted produced -         -        -         -    -       failed stopped
produced  -        -        -         -       -        -        releasing -        -         held refused failed stopped
releasing -        -        -         -       -        -        -         released -         -    refused failed stopped
released  -        -        -         -       -        -        -         -        delivered -    -       failed stopped
delivered -        -        -         -       -        -        -         -        -         -    -       -      -
held      -        -        -         -       -        -        -         -        -         -    -       -      -
refused   -        -        -         -       -        -        -         -        -         -    -       -      -
failed    -        -        -         -       -        -        -         -        -         -    -       -      -
stopped   -        -        -         -       -        -        -         -        -         -    -       -      -
"""
ROWS = {line.split()[0]: line.split()[1:] for line in EXPECTED.strip().splitlines()}
RESTART = {"preparing": "admitted", "running": "admitted", "releasing": "produced"}


def test_the_table_is_written_out_for_every_state_and_event() -> None:
    assert list(ROWS) == [state.value for state in JobState]
    assert [event.value for event in JobStep] == COLUMNS


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobStep)), ids=str)
def test_every_state_under_every_event(state: JobState, event: JobStep) -> None:
    expected = ROWS[state.value][COLUMNS.index(event.value)]
    if expected == "-":
        with pytest.raises(IntegrityBroken):
            advance(state, event)
    else:
        assert advance(state, event) is JobState(expected)


def test_after_a_crash_every_state_goes_on_somewhere() -> None:
    assert {state.value: after.value for state, after in AFTER_RESTART.items()} == {
        state.value: RESTART.get(state.value, state.value) for state in JobState
    }


def test_a_terminal_state_has_no_way_out_and_every_other_can_reach_one() -> None:
    for state in JobState:
        leaves = [event for event in JobStep if ROWS[state.value][COLUMNS.index(event.value)] != "-"]
        assert bool(leaves) is (state not in TERMINAL)


def test_the_picture_shows_every_transition() -> None:
    picture = mermaid()
    assert picture.startswith("stateDiagram-v2\n    [*] --> received\n")
    arrows = sum(cell != "-" for row in ROWS.values() for cell in row)
    assert picture.count("-->") == arrows + 1 + len(TERMINAL)
    assert "    running --> produced: produce\n" in picture
