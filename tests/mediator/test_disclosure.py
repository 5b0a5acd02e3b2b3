from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediator.disclosure import releasable, suppress, suppress_table

tables = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 50), max_size=6)


def test_a_count_leaves_from_the_threshold_on() -> None:
    assert [suppress(count, 10) for count in (0, 1, 9, 10, 11)] == [None, None, None, 10, 11]


def test_a_threshold_below_one_releases_nothing() -> None:
    assert not releasable(100, 0)
    assert not releasable(100, -5)


@given(tables, st.integers(1, 20))
def test_a_single_hidden_cell_cannot_be_subtracted_out_of_the_total(cells: dict[str, int], threshold: int) -> None:
    shown = suppress_table(cells, threshold)
    assert shown.keys() == cells.keys()
    hidden = [name for name, count in shown.items() if count is None]
    assert all(count is None or count == cells[name] >= threshold for name, count in shown.items())
    assert len(hidden) != 1 or len(cells) == 1


def test_a_table_without_small_counts_stays_whole() -> None:
    assert suppress_table({"f": 40, "m": 60}, 10) == {"f": 40, "m": 60}
    assert suppress_table({"f": 4, "m": 60, "x": 12}, 10) == {"f": None, "m": 60, "x": None}
