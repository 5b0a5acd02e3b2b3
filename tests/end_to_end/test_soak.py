"""The short form of `python -m tests.bench.soak`: a few laps in the house that is there already."""

from __future__ import annotations

import pytest

from deploy.driver.roles import ROLES
from tests.bench.soak import COLUMNS, grown, soak
from tests.end_to_end.house import House

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]
LAPS = 7


def test_nothing_grows_with_every_lap_of_rounds_imports_and_questions(house: House) -> None:
    permit = house.grant("soak", house.rogue, house.hospitals[0])
    rows = soak(house, house.hospitals[0], permit, laps=LAPS).rows()
    assert all(tuple(row) == COLUMNS for row in rows)
    kinds = ("memory_kb", "descriptors", "threads")
    looked_at = {f"{name} {kind}" for name in ("hub", "superlink", "supervisor", *ROLES) for kind in kinds}
    assert {row["what"] for row in rows} >= looked_at
    assert grown(rows) == []
