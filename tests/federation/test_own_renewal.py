"""The hub renews its own certificate: a month before its end, for a name that was added, and while it serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509 import Certificate

from federation import pki, tls
from federation.hub import service
from federation.hub.config import load_config
from federation.hub.service import Service
from federation.hub.state import HubState
from tests.federation.ground import Town, found


class Clock:
    """The time as it is, and so much later."""

    def __init__(self) -> None:
        self.later = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.later


@pytest.fixture
def quiet(tmp_path: Path) -> Town:
    """A hub that does not run."""
    town = found(tmp_path)
    town.hub.close()
    return town


@contextlib.asynccontextmanager
async def serving(town: Town, clock: Clock) -> AsyncIterator[HubState]:
    """The hub at work, by this clock."""
    hub, ending, ready = HubState(load_config(town.folder / "hub.toml"), clock), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(Service(hub).run(ending, ready.set))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert ready.is_set(), running
        yield hub
    finally:
        ending.set()
        await running
        hub.close()


def on_disk(hub: HubState) -> Certificate:
    return pki.parse_certificate(hub.authority.server_certificate.read_text("ascii"))


async def shown(hub: HubState) -> Certificate:
    """The certificate that whoever connects is shown."""
    listen = hub.config.ingress
    raw = await asyncio.to_thread(tls.shown_by, listen.listen, listen.port, listen.hosts[0], 10.0)
    return pki.parse_der(raw)


def left(hub: HubState, days: int) -> Certificate:
    """Have it hold a certificate with so many days left."""
    hub.authority.issue_server(hub.config.ingress.hosts, datetime.now(UTC) - pki.SERVER_LIFE + timedelta(days=days))
    return on_disk(hub)


@pytest.mark.parametrize(("days", "renewed"), [(29, True), (31, False)])
async def test_at_its_start_in_the_last_month(quiet: Town, days: int, renewed: bool) -> None:
    hub = HubState(quiet.config)
    before = left(hub, days)
    hub.close()
    async with serving(quiet, Clock()) as hub:
        seen = await shown(hub)
        assert (seen != before) == renewed and seen == on_disk(hub)
        life = seen.not_valid_after_utc - datetime.now(UTC)
        assert life > timedelta(days=360) if renewed else life < timedelta(days=31)
        seen.verify_directly_issued_by(hub.authority.certificate)
        assert hub.authority.server_key.stat().st_mode & 0o777 == 0o600


async def test_for_a_name_that_the_configuration_has_more(quiet: Town) -> None:
    path = quiet.folder / "hub.toml"
    path.write_text(path.read_text().replace('hosts = ["127.0.0.1"]', 'hosts = ["127.0.0.1", "hub.new.test"]'))
    async with serving(quiet, Clock()) as hub:
        seen = await shown(hub)
    assert pki.names_host(seen, "hub.new.test") and pki.names_host(seen, "127.0.0.1")


async def test_while_it_serves(quiet: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody restarts a hub that runs for a year: the next who connects is shown the new one."""
    monkeypatch.setattr(service, "_LOOK_EVERY_S", 0.1)
    clock = Clock()
    hub = HubState(quiet.config)
    before = left(hub, 31)
    hub.close()
    async with serving(quiet, clock) as hub:
        assert await shown(hub) == before
        clock.later = timedelta(days=2)
        async with asyncio.timeout(30):
            while (after := await shown(hub)) == before:
                await asyncio.sleep(0.1)
        assert after == on_disk(hub) and after.not_valid_after_utc > before.not_valid_after_utc
        after.verify_directly_issued_by(hub.authority.certificate)
