"""Counts held against those before, and against an oracle that looks at every pair."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.disclosure import MAX_PAIRS, CountsBefore, EarlierCounts, ShownCount
from tests.mediator import samples

V1, V2 = "sha256:" + "1" * 64, "sha256:" + "2" * 64
FORTY = ShownCount("patients", (("sex", "f"),), 40)


def earlier(*counts: ShownCount, version: str = V1, left: bool = True, name: str = "a.csv") -> EarlierCounts:
    return EarlierCounts(name, "run-1", version, samples.NOW, left, counts)


RENAMED = (
    ShownCount("patients", (("group", "x"),), 39),
    ShownCount("n", (("sex", "f"),), 39),
    ShownCount("patients", (), 39),
    ShownCount("patients", (("age", "old"), ("sex", "f")), 41),
    ShownCount("train.num-examples", (), 49),
    ShownCount("n", (("sex", "f"),), 40),
)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("renamed", RENAMED)
def test_a_count_renamed_is_shown_to_a_person_with_the_one_it_is_near(renamed: ShownCount, left: bool) -> None:
    found = CountsBefore([earlier(FORTY, left=left)]).compare([renamed], V1, 10)
    assert (found.contradictions, found.near) == (0, 1)
    (pair,) = found.pairs
    assert (pair.here, pair.earlier, pair.name, pair.left, pair.others) == (renamed, FORTY, "a.csv", left, 0)


def test_one_group_with_two_numbers_is_a_contradiction_however_far_they_are() -> None:
    for number in (39, 41, 400):
        found = CountsBefore([earlier(FORTY)]).compare([replace(FORTY, count=number)], V1, 10)
        assert (found.contradictions, found.near) == (1, 0) and found.pairs[0].same_group


def test_the_same_number_of_the_same_group_is_nothing_new_once_it_left() -> None:
    near = ShownCount("n", (), 39)
    assert CountsBefore([earlier(FORTY), earlier(near)]).compare([FORTY, near], V1, 10).minded == 0


def test_a_twin_of_a_file_that_still_waits_is_judged_as_the_first_was() -> None:
    """The first may yet be refused for what it is near to; its twin must not pass meanwhile."""
    before = CountsBefore([earlier(ShownCount("n", (), 39)), earlier(FORTY, left=False)])
    assert before.compare([FORTY], V1, 10).near == 1


def test_another_version_of_the_data_tells_who_came_or_went() -> None:
    before = CountsBefore([earlier(FORTY)])
    assert before.compare([replace(FORTY, count=41)], V2, 10).near == 1
    assert before.compare([replace(FORTY, count=50)], V2, 10).minded == 0
    assert before.compare([FORTY], V2, 10).minded == 0


def test_a_file_that_says_both_is_no_reason_to_ask_when_one_of_them_comes_again() -> None:
    men = ShownCount("patients", (("sex", "m"),), 40)
    before = CountsBefore([earlier(FORTY, men, left=False)])
    assert before.compare([FORTY], V1, 10).minded == 0
    assert before.compare([FORTY], V2, 10).near == 1


def test_far_enough_is_far_enough() -> None:
    before = CountsBefore([earlier(FORTY)])
    assert before.compare([ShownCount("n", (), 50), ShownCount("n", (("a", "b"),), 30)], V1, 10).minded == 0


def test_what_a_person_is_shown_is_bounded_and_the_nearest_comes_first() -> None:
    old = [ShownCount("n", (("a", str(number)),), 10 * number) for number in range(1000)]
    new = [ShownCount("m", (("b", str(number)),), 10 * number + number % 5) for number in range(1000)]
    found = CountsBefore([earlier(*old)]).compare(new, V1, 10)
    assert found.near == 1000 and len(found.pairs) == MAX_PAIRS
    assert {pair.difference for pair in found.pairs} == {0} and found.pairs[0].others <= 1


COUNTS = st.builds(
    ShownCount,
    st.sampled_from(["n", "m"]),
    st.sampled_from([(), (("sex", "f"),), (("sex", "m"),)]),
    st.integers(0, 12),
    st.sampled_from([(), ("age",)]),
)
EARLIER = st.builds(
    lambda counts, version, left: earlier(*counts, version=version, left=left),
    st.lists(COUNTS, max_size=4), st.sampled_from([V1, V2]), st.booleans(),
)  # fmt: skip


@given(st.lists(EARLIER, max_size=4), COUNTS, st.integers(1, 5))
def test_it_finds_what_looking_at_every_pair_finds(
    before: list[EarlierCounts], new: ShownCount, threshold: int
) -> None:
    found = CountsBefore(before).compare([new], V1, threshold)
    pairs = [(count, each) for each in before for count in each.counts or ()]
    same = [(count, each) for count, each in pairs if (count.column, count.key) == (new.column, new.key)]
    wrong = any(
        each.dataset_version == V1 and count.count != new.count and count.over == new.over for count, each in same
    )
    again = any(each.dataset_version == V1 and count.said == new.said and each.left for count, each in same)
    together = [each for count, each in same if each.dataset_version == V1 and count.said == new.said]
    apart = [count for count, each in pairs if all(each is not other for other in together)]
    near = [count for count in apart if count.said != new.said and abs(count.count - new.count) < threshold]
    assert found.contradictions == int(wrong and not again)
    assert found.near == int(not wrong and not again and bool(near))
    if found.near:
        assert found.pairs[0].difference == min(abs(count.count - new.count) for count in near)
        assert found.pairs[0].others == len(near) - 1


def test_ten_thousand_counts_are_held_against_ten_thousand_without_looking_at_every_pair() -> None:
    made = random.Random(7)
    old = [ShownCount("n", (("cell", str(number)),), made.randrange(10, 100_000)) for number in range(10_000)]
    new = [ShownCount("m", (("cell", str(number)),), made.randrange(10, 100_000)) for number in range(10_000)]
    began = time.thread_time()
    found = CountsBefore([earlier(*old)]).compare(new, V1, 10)
    took_s = time.thread_time() - began
    assert found.looked_at == 10_000 and found.near > 5000
    assert took_s < 5, "a hundred million pairs would take minutes"
