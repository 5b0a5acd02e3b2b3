"""A file's life in the airlock, and what a review is worth: by whom, of what, when, how often."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from mediator.airlock.review import (
    ENDED,
    FileEvent,
    FileFacts,
    FileState,
    Review,
    advance,
    mermaid,
    overdue,
    review,
    review_id,
)
from mediator.errors import Code, Denied, IntegrityBroken
from mediator.signatures import KeyRing, SigningKey, open_signed
from tests.mediator import samples

# The whole cross product: a row for each state, a column for each event in the order of `FileEvent`.
EXPECTED = """
produced  checked  -        -         -         refused  -
checked   -        waiting  approved  -         refused  expired
waiting   -        -        approved  -         refused  expired
approved  -        -        -         released  refused  expired
released  -        -        -         -         -        -
refused   -        -        -         -         -        -
expired   -        -        -         -         -        -
"""
ROWS = {line.split()[0]: line.split()[1:] for line in EXPECTED.strip().splitlines()}
COLUMNS = ["check", "endorse", "approve", "release", "refuse", "expire"]


@pytest.mark.parametrize(("state", "event"), list(product(FileState, FileEvent)), ids=str)
def test_every_state_under_every_event(state: FileState, event: FileEvent) -> None:
    expected = ROWS[state.value][COLUMNS.index(event.value)]
    if expected == "-":
        with pytest.raises(IntegrityBroken):
            advance(state, event)
    else:
        assert advance(state, event) is FileState(expected)


def test_nothing_leaves_without_a_person_and_whatever_waits_can_expire() -> None:
    assert [COLUMNS, list(ROWS)] == [[each.value for each in FileEvent], [each.value for each in FileState]]
    for state in FileState:
        assert (set(ROWS[state.value]) == {"-"}) is (state in ENDED)
        if state in (FileState.CHECKED, FileState.WAITING, FileState.APPROVED):
            assert ROWS[state.value][-1] == "expired"
    assert {row for row in ROWS if "released" in ROWS[row]} == {"approved"}
    assert mermaid().count("-->") == sum(cell != "-" for row in ROWS.values() for cell in row) + 1 + len(ENDED)


ANNA, BERT = map(samples.key, ("anna", "bert"))
RING = KeyRing([key.verify_key for key in (ANNA, BERT, samples.RESEARCHER)])
SUBJECTS = {ANNA.key_id: "anna", BERT.key_id: "bert", samples.RESEARCHER.key_id: "researcher-1"}
CONTENT, RECORD = "c" * 64, "d" * 64
BASE = Review(samples.SITE, "file-1", CONTENT, RECORD, "approve", "safe", samples.NOW)
FACTS = FileFacts(
    site=samples.SITE, file="file-1", content_sha256=CONTENT, record_sha256=RECORD, state=FileState.CHECKED, needed=1,
    requesters=frozenset({"researcher-1", samples.RESEARCHER.key_id}), approved_by=frozenset(), reviewed=frozenset(),
)  # fmt: skip


def decide(
    by: SigningKey = ANNA, facts: FileFacts = FACTS, now: datetime = samples.NOW, **changes: Any
) -> FileEvent | Code:
    try:
        return review(open_signed(Review, by.sign(replace(BASE, **changes)), RING), SUBJECTS, facts, now)
    except Denied as denied:
        return denied.reasons[0].code


def test_one_person_or_two_as_the_rules_ask() -> None:
    assert decide() is FileEvent.APPROVE
    two = replace(FACTS, needed=2)
    assert decide(facts=two) is FileEvent.ENDORSE
    waiting = replace(two, state=FileState.WAITING, approved_by=frozenset({"anna"}))
    assert decide(BERT, waiting) is FileEvent.APPROVE
    for state in (FileState.CHECKED, FileState.WAITING, FileState.APPROVED):
        no = decide(BERT, replace(FACTS, state=state), decision="refuse", why="small_groups")
        assert no is FileEvent.REFUSE, "one no is enough, even after the yes"


def test_a_requester_who_reviews_their_own_file_is_refused_by_key_and_by_name() -> None:
    assert decide(samples.RESEARCHER) is Code.REVIEWER_NOT_PERMITTED
    renamed = replace(FACTS, requesters=frozenset({samples.RESEARCHER.key_id}))
    assert decide(samples.RESEARCHER, renamed) is Code.REVIEWER_NOT_PERMITTED
    another_key = replace(FACTS, requesters=frozenset({"anna"}))
    assert decide(ANNA, another_key) is Code.REVIEWER_NOT_PERMITTED


def test_the_same_reviewer_twice_is_one_person_with_any_number_of_keys() -> None:
    waiting = replace(FACTS, needed=2, state=FileState.WAITING, approved_by=frozenset({"anna"}))
    assert decide(ANNA, waiting) is Code.REVIEWER_NOT_PERMITTED
    signed = open_signed(Review, BERT.sign(BASE), RING)
    with pytest.raises(Denied, match="approved it already"):
        review(signed, {BERT.key_id: "anna"}, waiting, samples.NOW)


def test_a_key_that_the_hospital_has_not_named_reviews_nothing() -> None:
    signed = open_signed(Review, ANNA.sign(BASE), RING)
    with pytest.raises(Denied, match="named nobody"):
        review(signed, {}, FACTS, samples.NOW)


@pytest.mark.parametrize(
    "change",
    [{"site": "hospital-b"}, {"file": "file-2"}, {"content_sha256": "e" * 64}, {"record_sha256": "e" * 64}],
)
def test_a_review_of_another_content_is_none(change: dict[str, str]) -> None:
    assert decide(**change) is Code.REVIEW_MISMATCH


def test_a_review_kept_back_or_sent_again_is_refused() -> None:
    late = samples.NOW + timedelta(hours=2)
    assert decide(now=late) is decide(now=samples.NOW - timedelta(minutes=3)) is Code.REVIEW_REPLAYED
    signed = open_signed(Review, ANNA.sign(BASE), RING)
    with pytest.raises(Denied, match="seen before"):
        review(signed, SUBJECTS, replace(FACTS, reviewed=frozenset({review_id(signed)})), samples.NOW)


@pytest.mark.parametrize("state", [FileState.PRODUCED, *sorted(ENDED)])
def test_a_file_that_does_not_wait_for_people_takes_no_review(state: FileState) -> None:
    assert decide(facts=replace(FACTS, state=state)) is Code.REVIEW_MISMATCH


def test_a_yes_has_no_reason_and_a_no_has_one() -> None:
    for decision, why in (("approve", "unclear"), ("refuse", "safe")):
        with pytest.raises(ValueError, match="safe is why"):
            replace(BASE, decision=decision, why=why)


def test_two_persons_who_say_the_same_in_the_same_second_are_two() -> None:
    anna, bert = (open_signed(Review, key.sign(BASE), RING) for key in (ANNA, BERT))
    waiting = replace(FACTS, needed=2, state=FileState.WAITING, approved_by=frozenset({"anna"}))
    assert review_id(anna) != review_id(bert)
    assert decide(BERT, replace(waiting, reviewed=frozenset({review_id(anna)}))) is FileEvent.APPROVE


def test_what_waits_too_long_is_counted() -> None:
    ages = [(state, samples.NOW - timedelta(days=day)) for state in FileState for day in (1, 3)]
    waiting = len(FileState) - len(ENDED)
    assert overdue(ages, timedelta(days=2), samples.NOW) == waiting
