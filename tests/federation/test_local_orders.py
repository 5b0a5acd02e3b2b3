"""Orders for local analyses at the hub: passed on as they are, and nothing is run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from federation.hub.tables import RunRow
from mediator.errors import Code, Denied, UsageFault
from mediator.types import Kind
from tests.federation.ground import COMMITTEE, RESEARCHER, Town, found, order, permit
from tests.mediator.analyses import RULES

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    built = found(tmp_path_factory.mktemp("town"))
    granted = permit(permit="local", kinds=(Kind.ANALYSE,), analysis=RULES, metrics={})
    built.hub.submit_permit(COMMITTEE.sign(granted))
    return built


def local(run: str, **changes: Any) -> str:
    return RESEARCHER.sign(order(run, **{"permit": "local", "strategy": "local", "rounds": 1, **changes}))


def texts(town: Town) -> list[str]:
    return [text for _, text in town.hub.documents.after(0)]


def test_a_local_order_is_passed_on_and_no_run_begins(town: Town, tmp_path: Path) -> None:
    text = local("look-1")
    assert town.hub.submit_local(text).run == "look-1" and text in texts(town)
    sequence = town.hub.documents.newest_sequence()
    town.hub.submit_local(text)
    assert town.hub.documents.newest_sequence() == sequence, "the same again is no fault"
    with town.hub.database.read() as session:
        assert list(session.scalars(select(RunRow.run))) == []
    with pytest.raises(UsageFault, match="another"):
        town.hub.submit_local(local("look-1", nonce="other"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"strategy": "fedavg"}, Code.RUN_ORDER_MISMATCH),
        ({"permit": "p1"}, Code.KIND_NOT_PERMITTED),
        ({"permit": "unheard-of"}, Code.PERMIT_MISSING),
        ({"expires": NOW - timedelta(hours=1)}, Code.RUN_ORDER_EXPIRED),
    ],
)
def test_what_is_no_local_order_is_not_passed_on(town: Town, changes: dict[str, Any], code: Code) -> None:
    before = texts(town)
    with pytest.raises(Denied) as denied:
        town.hub.submit_local(local("look-2", **changes))
    assert denied.value.reasons[0].code is code and texts(town) == before


def test_a_local_order_is_not_submitted_as_a_run(town: Town) -> None:
    with pytest.raises(Denied) as denied:
        town.hub.submit_order(local("look-3"), b"")
    assert Code.RUN_ORDER_MISMATCH in {reason.code for reason in denied.value.reasons}
