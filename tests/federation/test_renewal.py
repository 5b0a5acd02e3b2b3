"""A renewal or an alarm that does not go as it should: full disks, answers that are lost. No sockets."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durable.files import replace_file
from federation import control, pki
from federation.client import enrolment, link
from federation.client.expiry import ExpiryWarning
from federation.client.hub_errors import HubUnreachable
from federation.client.link import Link
from mediator.errors import Code, Denied, NotNow, Reason
from tests.federation.ground import SITES, Town, found
from tests.sim.core import FakeCore

SITE = "dresden"


class Channel:
    """The hub's own renewal without the network. The first `lost` answers do not arrive."""

    def __init__(self, town: Town, lost: int = 0) -> None:
        self.town, self.lost, self.asked, self.shown = town, lost, 0, 0

    async def ask(self, _path: str, message: control.Renewal, _kind: Any) -> control.Renewed:
        self.asked += 1
        certificate = self.town.hub.certificates.renew(SITE, current(self.town), message.request)
        if self.asked <= self.lost:
            raise HubUnreachable("the hub does not answer")
        return control.Renewed(certificate=certificate)

    async def show_certificate(self) -> None:
        self.shown += 1
        self.town.hub.certificates.take_up(current(self.town))


def current(town: Town) -> int:
    return pki.parse_certificate((town.link_folder(SITE) / "tls.crt").read_text()).serial_number


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    """A site whose certificate is due, and whose link takes hundredths of a second for five minutes."""
    town = found(tmp_path)
    town.enrol(SITE, timedelta(days=25))
    town.hub.certificates.take_up(current(town))
    monkeypatch.setattr(link, "_RENEWAL_AGAIN_S", 0.01)
    return town


async def renewed(town: Town, channel: Channel) -> None:
    """Let the link do its errand until it has shown its new certificate."""
    mine = Link(town.link_config(SITE), town.core(SITE))
    mine._channel = channel  # type: ignore[assignment]
    errand = asyncio.create_task(mine._renew())
    async with asyncio.timeout(5):
        while not channel.shown:
            await asyncio.sleep(0.01)
    errand.cancel()
    assert pki.parse_certificate((town.link_folder(SITE) / "tls.crt").read_text()).not_valid_after_utc > datetime.now(
        UTC
    ) + timedelta(days=29)


async def test_a_full_disk_under_a_renewal_costs_one_request(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        tries.append(path)
        if len(tries) < 9:
            raise OSError(errno.ENOSPC, "no space left on device")
        replace_file(path, content)

    monkeypatch.setattr("federation.client.enrolment.replace_file", full)
    channel = Channel(town)
    await renewed(town, channel)
    assert channel.asked == 1 and town.hub.alarms() == []


async def test_lost_answers_make_no_second_certificate_and_no_alarm(town: Town) -> None:
    channel = Channel(town, lost=8)
    await renewed(town, channel)
    assert channel.asked == 9 and town.hub.alarms() == []
    with pytest.raises(Denied):  # the old one has ended
        town.hub.certificates.renew(SITE, current_before(town), "")


def current_before(town: Town) -> int:
    (serial,) = town.hub.certificates.standing().ended
    return serial


def test_the_same_request_does_not_bring_back_what_another_has_ended(town: Town) -> None:
    ask = [enrolment.renewal_request(town.link_folder(SITE), SITE) for _ in range(2)]
    book, serial = town.hub.certificates, current(town)
    first = book.renew(SITE, serial, ask[0])
    assert book.renew(SITE, serial, ask[0]) == first and town.hub.alarms() == []
    second = book.renew(SITE, serial, ask[1])
    assert second != first and [alarm["code"] for alarm in town.hub.alarms()] == [Code.RENEWED_TWICE]
    assert book.renew(SITE, serial, ask[0]) not in (first, second)


async def test_a_renewal_that_failed_is_not_tried_again_in_haste(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert link._RENEWAL_AGAIN_S >= 60
    channel = Channel(town, lost=99)
    mine = Link(town.link_config(SITE), town.core(SITE))
    mine._channel = channel  # type: ignore[assignment]
    errand = asyncio.create_task(mine._for_ever("renewal", mine._renew))
    await asyncio.sleep(1.0)
    errand.cancel()
    assert channel.asked == 1


class Unwriting(FakeCore):
    """A core that cannot write an alarm down."""

    async def certificate_alarm(self, code: Code) -> None:
        raise NotNow("the disk is full")


class Stream:
    opened = 0

    async def events(self) -> AsyncIterator[control.ControlEvent]:
        self.opened += 1
        yield control.ControlEvent(kind="alarm", text="renewed_twice.4")
        yield control.ControlEvent(kind="document", text="revocation-list")


async def test_an_alarm_that_core_cannot_write_down_keeps_no_document_back(town: Town) -> None:
    core = town.core(SITE)
    core.__class__ = Unwriting
    passed: list[str] = []

    async def take(text: str) -> str:
        passed.append(text)
        return "stored"

    core.deliver_document = take  # type: ignore[method-assign]
    mine = Link(town.link_config(SITE), core)
    mine._channel = Stream()  # type: ignore[assignment]
    for _ in range(2):
        await mine._hear()
    assert passed == ["revocation-list"] * 2 and "alarm renewed_twice.4" in mine._again


class Robbed:
    async def events(self) -> AsyncIterator[control.ControlEvent]:
        raise Denied(Reason(Code.CERTIFICATE_REPLACED))
        yield


async def test_a_link_whose_certificate_was_replaced_says_so_until_core_has_it(town: Town) -> None:
    """The hub can tell it nothing any more: its certificate opens no stream."""
    core, told, away = town.core(SITE), list[Code](), True

    async def alarm(code: Code) -> None:
        if away:
            raise NotNow("core is away")
        told.append(code)

    core.certificate_alarm = alarm  # type: ignore[method-assign]
    mine = Link(town.link_config(SITE), core)
    mine._channel = Robbed()  # type: ignore[assignment]
    for attempt in range(6):
        away = attempt < 3
        with pytest.raises((Denied, NotNow)):
            await mine._listen()
    assert told == [Code.CERTIFICATE_REPLACED]


@pytest.mark.parametrize("text", ["renewed_twice.4." + "a" * 1_000_000, "renewed_twice", "renewed_twice.4\nx.1", "é.1"])
def test_an_alarm_is_a_code_and_a_number(text: str) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        control.ControlEvent(kind="alarm", text=text)


@pytest.mark.parametrize("kind", ["wake", "alive"])
def test_what_is_no_document_carries_nothing(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"no {kind}"):
        control.ControlEvent(kind=kind, text="x" * 1000)


async def test_an_alarm_of_a_kind_that_is_none_reaches_neither_core_nor_the_disk(town: Town) -> None:
    mine = Link(town.link_config(SITE), town.core(SITE))
    await mine._pass_alarm_on("malformed.7")
    assert "alarm malformed.7" not in mine._again and not mine._notes.alarmed("malformed.7")


def test_a_hub_whose_clock_was_ahead_still_tells_of_a_replaced_certificate(town: Town) -> None:
    hub, now = town.hub.certificates, datetime.now(UTC)
    old = current(town)
    given = hub.renew(SITE, old, enrolment.renewal_request(town.link_folder(SITE), SITE))
    hub.take_up(pki.parse_certificate(given).serial_number)
    for ahead, says in ((timedelta(days=10), SITE), (timedelta(hours=1), SITE), (timedelta(hours=2), None)):
        hub._clock = lambda ahead=ahead: now + ahead  # type: ignore[misc]
        assert hub.shown_after_end(old) == says


async def test_a_message_that_finds_no_room_to_wait_says_so(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.client.again.MOST", 0)
    mine = Link(town.link_config(SITE), town.core(SITE))

    async def fails(_note: bytes) -> None:
        raise NotNow("the disk is full")

    monkeypatch.setattr(mine, "_fetch", fails)
    with pytest.raises(NotNow, match="too many messages"):
        await mine._handle("name", b"note")


def test_a_certificate_near_its_end_is_said_in_the_log_once_a_day(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    """And not while there is time: a renewal that fails for an hour is nobody's business."""
    certificate = pki.parse_certificate((town.link_folder(SITE) / "tls.crt").read_text())
    ends, warning = certificate.not_valid_after_utc, ExpiryWarning()
    for hours, said in ((24 * 8, 0), (24 * 7 - 1, 1), (24 * 6, 1), (24 * 6 - 2, 2), (24 * 3, 3), (-1, 4), (-2, 4)):
        warning.look(certificate, ends - timedelta(hours=hours))
        assert len(caplog.records) == said, (hours, caplog.messages)
    assert "ends in 7.0 days" in caplog.messages[0] and "has ended" in caplog.messages[-1]


async def test_the_link_looks_at_its_certificate_whenever_a_renewal_fails(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    channel = Channel(town, lost=5)
    await renewed(town, channel)
    near = [message for message in caplog.messages if "this node's certificate ends in" in message]
    assert len(near) == 1 and "5.0 days" in near[0]


def test_the_hub_names_sites_that_do_not_renew(town: Town) -> None:
    assert town.hub.registry.near_their_end(timedelta(days=7)) == [SITE]
    assert town.hub.registry.near_their_end(timedelta(days=31)) == sorted({SITE, *SITES})
    town.hub.revoke(SITE)
    assert town.hub.registry.near_their_end(timedelta(days=7)) == []
