from __future__ import annotations

from mediator.disclosure import releasable


def test_a_count_leaves_from_the_threshold_on() -> None:
    assert [releasable(count, 10) for count in (0, 1, 9, 10, 11)] == [False, False, False, True, True]


def test_a_threshold_below_one_releases_nothing() -> None:
    assert not releasable(100, 0)
    assert not releasable(100, -5)
