"""What who shows no certificate makes the hub do while the door is open, and reads that come back in another order."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from federation.control import ENROL
from federation.hub.certificates import Certificates, Credential, Standing
from federation.hub.database import Database
from federation.hub.ingress import Ingress
from federation.pki import Authority
from mediator.errors import Denied

LATER = datetime.now(UTC) + timedelta(days=9)
BERLIN: Any = SimpleNamespace(site="berlin")
# certificate 8 has taken the place of 7
BEFORE = Standing({7: Credential(BERLIN, LATER, False)}, frozenset(), 1)
AFTER = Standing({8: Credential(BERLIN, LATER, False)}, frozenset({7}), 2)


class Book:
    """A read that has seen what was before and comes back late."""

    def __init__(self) -> None:
        self.reads, self.late = 0, threading.Event()

    def standing(self) -> Standing:
        self.reads += 1
        self.late.wait(5)
        return BEFORE

    def take_up(self, serial: int) -> None: ...

    def shown_after_end(self, serial: int) -> str | None:
        return None


def ingress(book: Book) -> Ingress:
    async def hand_in(_: web.Request) -> web.Response:
        return web.Response(status=201)

    door: Any = SimpleNamespace(is_open=True, hand_in=hand_in)
    nothing: Any = SimpleNamespace()
    return Ingress(
        nothing, Path("/nowhere"), book=book, door=door, clock=lambda: datetime.now(UTC), alarm=lambda _: None,
        limits=nothing, speaks=lambda *_: None,
    )  # fmt: skip


async def test_who_shows_no_certificate_asks_the_database_nothing() -> None:
    book = Book()
    here = ingress(book)

    async def reached(_: web.Request) -> web.StreamResponse:
        return web.Response(status=201)

    for path, status in (("/", 403), ("/v1/control/events", 403), (ENROL, 201)):
        answer = await here._authenticate(make_mocked_request("POST", path), reached)
        assert answer.status == status
    assert not book.reads


async def test_an_older_read_never_takes_a_newer_ones_place() -> None:
    book = Book()
    here = ingress(book)
    here.refresh(BEFORE)
    late = asyncio.create_task(here._admit(9))  # of whom nobody has heard
    while not book.reads:
        await asyncio.sleep(0.01)
    here.refresh(AFTER)
    book.late.set()
    for asked in (late, here._admit(7)):
        with pytest.raises(Denied):
            await asked
    assert await here._admit(8) is AFTER.in_force[8]


def test_reads_are_numbered(tmp_path: Path) -> None:
    database = Database(tmp_path / "hub.db")
    database.upgrade()
    book = Certificates(database, Authority(tmp_path), lambda: datetime.now(UTC))
    first, second = book.standing(), book.standing()
    assert 0 < first.number < second.number and first == second
    database.close()
