"""One message, document or reply that goes wrong ends that one: the link lives, and what waits behind it goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from federation import control
from federation.client.control import _lines
from federation.client.ports import Delivery
from mediator.errors import CloisterError, NotNow
from mediator.signatures import open_signed
from mediator.types import Instruction
from tests.federation.ground import Town, model
from tests.federation.rogue_hub import RogueHub
from tests.sim.core import FakeCore


def notes(town: Town, site: str) -> list[Path]:
    return list((town.link_folder(site) / "notes/pulled").iterdir())


async def here(core: FakeCore) -> None:
    while not core.connected:
        await asyncio.sleep(0.05)


def like(core: FakeCore, kind: type[FakeCore]) -> FakeCore:
    return kind(core.site, core.release, core.instruction_keys, core.specs, core.spool)


async def test_an_array_named_by_half_a_character_ends_its_message_and_no_start_meets_it_again(town: Town) -> None:
    rogue, core = RogueHub(town.folder / "hub.toml"), town.core("aachen")
    odd = ArrayRecord({"\ud800": Array(np.zeros(3, dtype=np.float32))})
    async with town.links(core):
        await here(core)
        signed = rogue.instruct("aachen", model())
        assert await asyncio.to_thread(rogue.send, "aachen", signed, odd) == "refused_instruction"
    assert not core.instructions and not notes(town, "aachen")
    assert list(core.failures.values()) == [1], "core writes it down"
    async with town.links(core):
        town.submit("after-half", sites=("aachen",), rounds=1)
        assert (await town.settled("after-half"))["state"] == "done"


class Spoken:
    """What a hub says on its events stream, in pieces."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    async def iter_any(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._said), 1 << 16):
            yield self._said[at : at + (1 << 16)]


async def test_a_line_without_end_is_left_out_and_those_after_it_are_not() -> None:
    said = b"first\n" + b"x" * (2 * control.MAX_MESSAGE_BYTES) + b"\nlast\n" + b"y" * (control.MAX_MESSAGE_BYTES + 1)
    assert [line async for line in _lines(Spoken(said))] == [b"first", b"last"]  # type: ignore[arg-type]


class NoRoom(FakeCore):
    """A core whose disk has no room for one run's models, until it has."""

    full: bool = True
    asked: int = 0

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        if open_signed(Instruction, signed, self.instruction_keys).document.run == "large" and self.full:
            self.asked += 1
            raise NotNow("the disk is full")
        return await super().deliver_instruction(signed, reply_context, model)


async def test_a_message_that_core_has_no_room_for_keeps_none_behind_it_waiting(town: Town) -> None:
    core = like(town.core("bergen"), NoRoom)
    assert isinstance(core, NoRoom)
    async with town.links(core):
        town.submit("large", sites=("bergen",), rounds=1)
        while core.asked < 2:
            await asyncio.sleep(0.05)
        town.submit("small", sites=("bergen",), rounds=1)
        assert (await town.settled("small"))["state"] == "done"
        assert town.hub.run_history("large")["completed_round"] == -1 and not core.failures
        core.full = False
        assert (await town.settled("large"))["state"] == "done"


class Choking(FakeCore):
    """A core that fails over one document, every time."""

    poison: str = ""
    tried: int = 0

    async def deliver_document(self, text: str) -> str:
        if text == self.poison:
            self.tried += 1
            raise CloisterError("internal error in another process of this node")
        return await super().deliver_document(text)


async def test_a_document_that_core_fails_over_is_set_aside_and_the_others_arrive(town: Town) -> None:
    core = like(town.core("coimbra"), Choking)
    assert isinstance(core, Choking)
    with town.hub.database.read():
        core.poison = town.hub.documents.after(0)[0][1]  # the first that a stream begins with
    async with town.links(core):
        while core.failures.get(next(iter(core.failures), ""), 0) < 5:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
    (name,) = core.failures
    assert name.startswith("document ") and core.tried == 5 and core.documents


@pytest.fixture
def full_disk(town: Town) -> Iterator[Path]:
    """The link's own folder on a file system with room for no byte and no name."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = town.link_folder("aachen") / "notes"
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=2,mode=700", "tmpfs", str(folder)], check=True)
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 1024):
                pass
        except OSError:
            pass
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_under_the_link_ends_nothing(town: Town, full_disk: Path) -> None:
    """Rounds are served, a restart on the full disk serves them too, and with room again notes are taken again."""
    core = town.core("aachen")
    for run in ("full", "full-again"):
        async with town.links(core):
            town.submit(run, sites=("aachen",), rounds=1)
            history = await town.settled(run)
            assert history["state"] == "done" and not any(entry["refusals"] for entry in history["rounds"])
    remount = ["mount", "-o", "remount,size=1m,nr_inodes=1000", str(full_disk)]
    await asyncio.to_thread(subprocess.run, remount, check=True)
    async with town.links(core):
        town.submit("room", sites=("aachen",), rounds=1)
        assert (await town.settled("room"))["state"] == "done"
    assert len(list((full_disk / "used").iterdir())) == 3 and (full_disk / "node-id").exists()
    assert not core.failures
