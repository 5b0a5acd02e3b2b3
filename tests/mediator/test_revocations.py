"""Revocation lists one after another: what is silent takes nothing back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator.errors import UnsupportedVersion
from mediator.permit import open_revocations
from mediator.revocations import Revocations, forks, newest, overheard, take_up
from mediator.signatures import Signed, open_signed
from mediator.types import RevocationList, RevocationListV2
from tests.mediator.samples import COMMITTEE, COMMITTEE_RING, NOW


def signed(listed: RevocationList) -> Signed[RevocationList]:
    return open_revocations(COMMITTEE.sign(listed), COMMITTEE_RING)


def first(*permits: str) -> Signed[RevocationList]:
    return signed(RevocationListV2(1, NOW, permits, None, ()))


def after(last: Signed[RevocationList], *permits: str, restored: tuple[str, ...] = ()) -> Signed[RevocationList]:
    number = last.document.number + 1
    return signed(RevocationListV2(number, NOW + timedelta(days=number), permits, last.sha256, restored))


def held(*lists: Signed[RevocationList]) -> Revocations:
    kept: Revocations | None = None
    for each in lists:
        kept = take_up(kept, each)
    assert kept is not None
    return kept


def test_a_list_that_leaves_out_an_earlier_permit_restores_nothing() -> None:
    one = first("p1")
    assert held(one, after(one)).permits == {"p1"}
    assert held(one, after(one, "p2")).permits == {"p1", "p2"}


def test_a_list_of_version_1_adds_to_those_before_it() -> None:
    one, two = signed(RevocationList(1, NOW, ("p1",))), signed(RevocationList(2, NOW, ()))
    assert held(one, two).permits == {"p1"}
    assert held(first("p1"), two).permits == {"p1"}


def test_only_what_a_list_names_as_restored_is_taken_back() -> None:
    one = first("p1", "p2")
    two = after(one, restored=("p1",))
    assert held(one, two).permits == {"p2"}
    assert held(one, two, after(two, "p1", "p2")).permits == {"p1", "p2"}, "it may be revoked again"


def test_who_missed_a_list_misses_nothing() -> None:
    one = first("p1", "p2")
    two = after(one, "p2", restored=("p1",))
    three = after(two, "p2", "p3", restored=("p1",))
    assert held(one, three).permits == held(one, two, three).permits == {"p2", "p3"}


def test_a_list_that_forks_revokes_and_restores_nothing() -> None:
    one, other = first("p1"), first("p2")
    fork = after(other, "p3", restored=("p1",))
    assert forks(held(one), fork) and not forks(held(other), fork)
    assert held(one, fork).permits == {"p1", "p3"}


def test_what_was_only_heard_ends_and_restores_nothing() -> None:
    one = first("p1")
    two = after(one, "p2", restored=("p1",))
    heard = overheard(None, two)
    assert newest(held(one), heard) == Revocations(2, two.document.issued, frozenset({"p1", "p2"}), two.sha256)
    assert newest(held(one, two), heard) == held(one, two), "once it is written down, it says all it says"
    assert newest(None, heard) == heard and newest(held(one), None) == held(one)
    three = after(two, "p4")
    assert overheard(heard, three).permits == {"p2", "p4"}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd"))), max_size=6))
def test_a_permit_comes_back_by_name_alone(steps: list[tuple[set[str], set[str]]]) -> None:
    last, kept = first("a"), held(first("a"))
    for revoked, restored in steps:
        last = after(last, *sorted(revoked), restored=tuple(sorted(restored - revoked)))
        before, kept = kept.permits, take_up(kept, last)
        assert before - kept.permits <= restored and revoked <= kept.permits


def test_a_list_of_either_version_opens_as_itself() -> None:
    old, new = signed(RevocationList(3, NOW, ("p1",))), first("p1")
    assert type(old.document) is RevocationList and type(new.document) is RevocationListV2
    with pytest.raises(UnsupportedVersion):
        open_signed(RevocationList, new.text, COMMITTEE_RING)


def test_a_list_that_contradicts_itself_is_none() -> None:
    good = RevocationListV2(2, NOW, ("p1",), "ab" * 32, ("p2",))
    for change in (
        {"previous_sha256": None},
        {"number": 1},
        {"restored": ("p1",)},
        {"restored": ("p 1",)},
        {"number": 0},
    ):
        with pytest.raises(ValueError):
            replace(good, **change)
