from __future__ import annotations

from itertools import product

import pytest

from mediator import imports
from mediator.errors import IntegrityBroken
from mediator.imports import (
    AFTER_RESTART,
    IMPORT_ENDED,
    ImportState,
    ImportStep,
    StudyState,
    StudyStep,
)

# The whole cross product: a row for each state, a column for each step in the order of `ImportStep`; `-` is impossible.
COLUMNS = ["take_in", "deidentify", "wait", "retry", "give_up", "report", "publish", "stop", "destroy", "fail"]
EXPECTED = """
ordered       taking_in -             -       -             -         -          -         stopping -       failed
taking_in     -         deidentifying -       -             -         -          -         stopping -       failed
deidentifying -         -             waiting -             -         publishing -         stopping -       failed
waiting       -         -             -       deidentifying giving_up -          -         stopping -       -
giving_up     -         -             -       -             -         publishing -         stopping -       failed
publishing    -         -             -       -             -         -          published -        -       failed
stopping      -         -             -       -             -         -          -         -        stopped -
published     -         -             -       -             -         -          -         -        -       -
failed        -         -             -       -             -         -          -         -        -       -
stopped       -         -             -       -             -         -          -         -        -       -
"""
ROWS = {line.split()[0]: line.split()[1:] for line in EXPECTED.strip().splitlines()}
STUDY_COLUMNS = ["deidentify", "wait", "retry", "search", "hand_over", "forget"]
STUDY_EXPECTED = """
taken_in     deidentified waiting -        -        -           -
waiting      -            -       taken_in -        -           forgotten
deidentified -            waiting -        searched -           -
searched     -            -       -        -        handed_over forgotten
handed_over  -            -       -        -        -           forgotten
forgotten    -            -       -        -        -           -
"""
STUDY_ROWS = {line.split()[0]: line.split()[1:] for line in STUDY_EXPECTED.strip().splitlines()}


def test_the_tables_are_written_out_for_every_state_and_step() -> None:
    assert list(ROWS) == [state.value for state in ImportState] and [step.value for step in ImportStep] == COLUMNS
    assert list(STUDY_ROWS) == [state.value for state in StudyState]
    assert [step.value for step in StudyStep] == STUDY_COLUMNS


@pytest.mark.parametrize(("state", "step"), list(product(ImportState, ImportStep)), ids=str)
def test_every_state_of_an_import_under_every_step(state: ImportState, step: ImportStep) -> None:
    expected = ROWS[state.value][COLUMNS.index(step.value)]
    if expected == "-":
        with pytest.raises(IntegrityBroken):
            imports.advance(state, step)
    else:
        assert imports.advance(state, step) is ImportState(expected)


@pytest.mark.parametrize(("state", "step"), list(product(StudyState, StudyStep)), ids=str)
def test_every_state_of_a_study_under_every_step(state: StudyState, step: StudyStep) -> None:
    expected = STUDY_ROWS[state.value][STUDY_COLUMNS.index(step.value)]
    if expected == "-":
        with pytest.raises(IntegrityBroken):
            imports.advance_study(state, step)
    else:
        assert imports.advance_study(state, step) is StudyState(expected)


def test_after_a_crash_every_import_goes_on_where_it_was() -> None:
    assert dict(AFTER_RESTART) == {state: state for state in ImportState}


def test_an_import_that_ended_has_no_way_out_and_every_other_can_end() -> None:
    for state in ImportState:
        leaves = [step for step in ImportStep if ROWS[state.value][COLUMNS.index(step.value)] != "-"]
        assert bool(leaves) is (state not in IMPORT_ENDED)


def test_a_person_can_end_whatever_is_not_over_or_being_published() -> None:
    stopped = {state for state in ImportState if ROWS[state.value][COLUMNS.index("stop")] != "-"}
    assert stopped == frozenset(ImportState) - IMPORT_ENDED - {ImportState.PUBLISHING, ImportState.STOPPING}


def test_the_pictures_show_every_transition() -> None:
    assert imports.mermaid().count(" --> ") == len(imports.TRANSITIONS) + 1 + len(IMPORT_ENDED)
    assert imports.study_mermaid().count(" --> ") == len(imports.STUDY_TRANSITIONS) + 2
