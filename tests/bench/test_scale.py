"""The short form of `python -m tests.bench.scale`: smaller sizes, the same line."""

from __future__ import annotations

import pytest

from tests.bench.scale import COLUMNS, SUBJECTS, run, too_steep

pytestmark = pytest.mark.slow


def test_no_cost_grows_much_faster_than_what_it_is_for() -> None:
    rows = run(short=True)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [row["what"] for row in rows] == list(SUBJECTS)
    assert too_steep(rows) == []
