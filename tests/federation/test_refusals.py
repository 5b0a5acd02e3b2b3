"""An enrolled site that sends what is refused, as fast as it can: the hub's record stays bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from federation.hub.channel import Channel
from federation.hub.refusals import KEPT_PER_DAY, MORE, Allowance, SiteRefusals
from federation.hub.steering import Reply, ReplyVerdict
from federation.hub.tables import EventRow, ReplyRow
from mediator import tensors
from mediator.errors import Denied
from mediator.types import Kind, ReleasedObject, ReleaseEnvelope
from tests.federation.ground import RESEARCHER, Town, found, model, order, permit


def unasked(town: Town, site: str) -> str:
    """An envelope, properly signed, for an instruction that no hub ever sent."""
    objects = (ReleasedObject("0" * 64, 9),)
    until = datetime.now(UTC) + timedelta(hours=1)
    envelope = ReleaseEnvelope(
        site, "nobodys/1/train/1", "p1", 1, "nobodys", 1, Kind.TRAIN, "0" * 64, objects, until
    )  # fmt: skip
    return town.keys[site].sign(envelope)


async def push(town: Town, times: int) -> None:
    channel, peer, text = (
        Channel(town.hub, lambda _: None),
        town.hub.registry.active()["aachen"],
        unasked(town, "aachen"),
    )
    for _ in range(times):
        with pytest.raises(Denied):
            channel._take_envelope(peer, text)


async def test_a_site_that_posts_nobodys_releases_all_day_fills_its_lines_of_a_day(tmp_path: Path) -> None:
    town = found(tmp_path)
    hub, more = town.hub, 150
    await push(town, KEPT_PER_DAY + more)
    assert len(refused(town)) == KEPT_PER_DAY
    hub.database.refusals.sum_up(hub.database.write, hub.clock())
    assert len(refused(town)) == KEPT_PER_DAY, "the day is not over"
    tomorrow = hub.clock() + timedelta(days=1)
    for _ in range(2):
        hub.database.refusals.sum_up(hub.database.write, tomorrow)
    today = datetime.now(UTC).date().isoformat()
    assert [row.object for row in refused(town) if row.action == MORE] == [f"{today}/{more}"]


async def test_a_hub_that_was_started_again_gives_no_second_day(tmp_path: Path) -> None:
    town = found(tmp_path)
    for _ in range(2):
        await push(town, KEPT_PER_DAY)
        town.hub.database.refusals = SiteRefusals()
    assert len(refused(town)) == KEPT_PER_DAY


def test_what_is_kept_for_good_has_a_number_a_day() -> None:
    allowance, now = Allowance(3), datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    assert [allowance.take(now, "aachen") for _ in range(5)] == [True, True, True, False, False]
    assert allowance.take(now, "bergen") and allowance.take(now + timedelta(minutes=1), "aachen")


def refused(town: Town) -> list[EventRow]:
    with town.hub.database.read() as session:
        return list(session.scalars(select(EventRow).where(EventRow.verdict == "refused")))


def test_a_site_that_comes_and_goes_is_asked_ever_later_and_has_one_line_a_round(tmp_path: Path) -> None:
    town = found(tmp_path)
    town.hub.runs.submit(RESEARCHER.sign(order("flapping")), tensors.encode(model()), 0, "test")
    conductor = town.hub.conductor(order("flapping"), permit(), lambda _: None)
    conductor.opened(1)
    conductor.begin(0, Kind.EVALUATE, model())
    conductor.instruct("aachen", again=False)
    answers = [conductor.judge(Reply("aachen", away=True)) for _ in range(8)]
    assert [wait_s for _, wait_s in answers] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert {verdict for verdict, _ in answers} == {ReplyVerdict.AGAIN}
    with town.hub.database.read() as session:
        assert [row.code for row in session.scalars(select(ReplyRow))] == ["away"]
