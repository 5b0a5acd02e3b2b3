"""Nothing is lost, done twice or counted twice when a side is killed, be it the hub, the link or core."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from federation.client.objects import FlowerCodec
from federation.client.ports import Delivery, OutgoingReply
from mediator.errors import CloisterError, IntegrityBroken, NotNow
from mediator.signatures import open_signed
from mediator.types import Instruction
from tests.federation.ground import Town, found
from tests.sim.core import FakeCore

VALUES = {"aachen": 1.0, "bergen": 2.0, "coimbra": 3.0}


@pytest.fixture
def own_town(tmp_path: Path) -> Iterator[Town]:
    town = found(tmp_path)
    town.start()
    yield town
    town.stop(signal.SIGKILL)


async def test_a_killed_hub_continues_at_the_next_round(own_town: Town) -> None:
    cores = [
        own_town.core(site, value=value, seconds=0.3) for site, value in (("aachen", 1), ("bergen", 2), ("coimbra", 3))
    ]
    async with own_town.links(*cores):
        own_town.submit("killed")
        await own_town.until("killed", lambda history: history["completed_round"] == 1)
        after_one = own_town.hub.checkpoints.model("killed", 1)
        own_town.stop(signal.SIGKILL)
        served = [set(core.computed) for core in cores]
        await asyncio.sleep(0.5)
        own_town.start()
        history = await own_town.settled("killed")
    assert history["state"] == "done" and history["completed_round"] == 3
    assert history["attempt"] == 2 and [each["reason"] for each in history["attempts"]] == ["opened", "opened"]
    # round 1 stands as it was, and the run is the one it would have been
    assert own_town.hub.checkpoints.model("killed", 1) == after_one
    digest = hashlib.sha256(own_town.hub.checkpoints.model("killed", 3)).hexdigest()
    assert history["model_sha256"] == digest == await undisturbed(own_town)
    for core, before in zip(cores, served, strict=True):
        assert len(core.computed) == len(set(core.computed)) == 7 and before <= set(core.computed)
        answered = [each.instruction for each in core.released]
        assert len(answered) == len(set(answered))


async def undisturbed(town: Town) -> str:
    cores = [town.core(site, value=value) for site, value in VALUES.items()]
    async with town.links(*cores):
        town.submit("undisturbed")
        return str((await town.settled("undisturbed"))["model_sha256"])


class Interrupted(FakeCore):
    """A core that goes away in the middle of the hand-over, once."""

    broken = False

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        answer = await super().deliver_instruction(signed, reply_context, model)
        if not self.broken:
            self.broken = True
            raise NotNow("core has gone away")
        return answer


async def test_an_instruction_survives_a_core_that_falls_over_it(town: Town) -> None:
    known = town.core("bergen")
    core = Interrupted("bergen", known.release, known.instruction_keys, known.specs, known.spool)
    async with town.links(core):
        town.submit("fallen", sites=("bergen",), rounds=1)
        history = await town.settled("fallen")
    assert core.broken and history["state"] == "done" and history["attempt"] == 1
    assert len(core.instructions) == 3 and not core.refused


class Failing(FakeCore):
    """A core that fails over one run's instructions, and over every document."""

    error: Exception = ValueError("a word that nobody may hear")

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        if open_signed(Instruction, signed, self.instruction_keys).document.run.startswith("odd"):
            raise self.error
        return await super().deliver_instruction(signed, reply_context, model)

    async def deliver_document(self, text: str) -> str:
        await super().deliver_document(text)
        raise CloisterError("internal error in another process of this node")


@pytest.mark.parametrize("error", [ValueError("a word"), CloisterError("internal error"), IntegrityBroken("damaged")])
async def test_what_core_fails_over_ends_that_message_and_not_the_link(town: Town, error: Exception) -> None:
    known = town.core("bergen")
    core = Failing("bergen", known.release, known.instruction_keys, known.specs, known.spool)
    core.error = error
    odd, even = f"odd-{type(error).__name__.lower()}", f"even-{type(error).__name__.lower()}"
    async with town.links(core):
        town.submit(odd, sites=("bergen",), rounds=1)
        history = await town.settled(odd)
        assert history["state"] == "stopped" and history["rounds"][0]["refusals"][0]["code"] == "internal"
        # the same link serves the next run, and got every document though core took none
        town.submit(even, sites=("bergen",), rounds=1)
        assert (await town.settled(even))["state"] == "done"
    assert len(core.documents) >= 4
    assert not list((town.link_folder("bergen") / "notes/pulled").iterdir())


async def test_a_reply_whose_objects_are_gone_ends_that_reply_and_not_the_link(town: Town) -> None:
    def gone(core: FakeCore, instruction: Instruction, context: bytes) -> OutgoingReply | None:
        if instruction.run != "gone":
            return None
        root, objects = FlowerCodec().encode(instruction.task, {}, {"auc": 0.5, "loss": 0.1, "num-examples": 10})
        outgoing = core.wrap(instruction, context, root, objects)
        shutil.rmtree(core.spool / str(outgoing.folder))
        return outgoing

    core = town.core("bergen", answer=gone)
    async with town.links(core):
        town.submit("gone", sites=("bergen",), rounds=1)
        history = await town.settled("gone")
        assert history["rounds"][0]["refusals"][0]["code"] == "internal"
        assert core.failures == {"release gone/0/evaluate/1": 5}, "tried a few times, then core answers for it"
        town.submit("not-gone", sites=("bergen",), rounds=1)
        assert (await town.settled("not-gone"))["state"] == "done"


async def test_an_instruction_survives_a_killed_link(town: Town) -> None:
    town.submit("killed-link", sites=("coimbra",), rounds=1)
    first = town.node_process("coimbra", "--die-at-hand-over")
    assert await asyncio.to_thread(first.wait, 30) == -signal.SIGKILL
    # the hub hands a message out once; what is left of it is the dead link's note
    assert len(list((town.link_folder("coimbra") / "notes/pulled").iterdir())) == 1
    second = town.node_process("coimbra")
    try:
        history = await town.settled("killed-link")
    finally:
        second.terminate()
        second.wait(10)
    assert history["state"] == "done" and history["attempt"] == 1
    assert not any(entry["refusals"] for entry in history["rounds"])


async def test_a_reply_pushed_twice_counts_once(town: Town) -> None:
    """The link is killed between its push and core's note of it: the same reply goes out again, as the same message."""
    core = town.core("aachen")
    kept: list[str] = []

    async def forgetful(instruction: str) -> None:
        kept.append(instruction)

    core.delivered = forgetful  # type: ignore[method-assign]
    async with town.links(core):
        town.submit("twice", sites=("aachen",), rounds=1)
        assert (await town.settled("twice"))["state"] == "done"
    async with town.links(core):
        await asyncio.sleep(1.0)
    history = town.hub.run_history("twice")
    assert history["state"] == "done" and not any(entry["refusals"] for entry in history["rounds"])
    assert len(kept) == 6


async def test_a_node_that_was_away_is_asked_again(town: Town) -> None:
    core = town.core("aachen", seconds=30.0)
    async with town.links(core):
        town.submit("away", sites=("aachen",), rounds=1)
        await town.until("away", lambda history: bool(core.instructions))
    # the link said goodbye: the hub hears at once that nobody is there, and waits for the site
    await town.until("away", lambda history: "waiting for aachen" in history["detail"])
    core.seconds = 0.0
    async with town.links(core):
        history = await town.settled("away")
    assert history["state"] == "done"
    assert [each["reason"] for each in history["attempts"]][:2] == ["opened", "resend"]
    assert history["rounds"][0]["refusals"][0]["code"] == "away"


async def test_a_superlink_that_dies_is_started_again_and_the_run_goes_on(own_town: Town) -> None:
    cores = [own_town.core(site, value=value, seconds=0.2) for site, value in VALUES.items()]
    async with own_town.links(*cores):
        own_town.submit("orphaned", rounds=2)
        await own_town.until("orphaned", lambda history: history["completed_round"] == 0)
        assert own_town.process is not None
        hub = own_town.process.pid
        (superlink,) = Path(f"/proc/{hub}/task/{hub}/children").read_text().split()
        os.kill(int(superlink), signal.SIGKILL)
        history = await own_town.settled("orphaned", 90)
    assert history["state"] == "done" and history["attempt"] >= 2
    assert all(len(core.computed) == len(set(core.computed)) for core in cores)
    # and a killed hub leaves no SuperLink behind
    (superlink,) = Path(f"/proc/{hub}/task/{hub}/children").read_text().split()
    own_town.stop(signal.SIGKILL)
    for _ in range(50):
        if not Path(f"/proc/{superlink}").exists() or "Z" in Path(f"/proc/{superlink}/stat").read_text().split()[2]:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the SuperLink outlived its hub")


# an answer to a pull is some 300 bytes without a message, and over 700 with one (its tree of object ids)
_WITH_A_MESSAGE_BYTES = 600
# the link's connection for pulling is the one it has asked on again and again
_ASKED_OFTEN = 5


class Wire:
    """A wire between link and hub that, once `armed`, keeps the first answer with a message to itself; can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.armed = False
        self.swallowed = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        asked: list[int] = []
        await asyncio.gather(self._ask(reader, back, asked), self._answer(there, writer, asked), return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[int]) -> None:
        while piece := await reader.read(1 << 16):
            asked.append(len(piece))
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[int]) -> None:
        mute = False
        while piece := await reader.read(1 << 16):
            if self.armed and len(asked) >= _ASKED_OFTEN and len(piece) > _WITH_A_MESSAGE_BYTES:
                mute = True
                self.swallowed.set()
            if not mute:
                writer.write(piece)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def test_an_instruction_whose_delivery_was_lost_on_the_wire_is_sent_again(town: Town) -> None:
    """Flower marks a message as delivered when it answers, whether or not anybody heard the answer."""
    wire, core = Wire(town.config.ingress.port), town.core("bergen")
    bundle = town.link_folder("bergen") / "bundle.json"
    kept = bundle.read_bytes()
    bundle.write_bytes(kept.replace(str(town.config.ingress.port).encode(), str(await wire.start()).encode()))
    try:
        async with town.links(core):
            while not core.connected:
                await asyncio.sleep(0.05)
            wire.armed = True
            town.submit("lost", sites=("bergen",), rounds=1)
            await asyncio.wait_for(wire.swallowed.wait(), 60)
            assert not core.instructions
            wire.armed = False
            wire.cut()
            history = await town.settled("lost")
    finally:
        bundle.write_bytes(kept)
    assert history["state"] == "done" and history["attempts"][1]["reason"] == "resend"
    assert len(core.computed) == len(set(core.computed)) == 3


class Mortal(FakeCore):
    """A core that dies under its link when it is told to, and knows nothing of it when it starts again."""

    async def outbox(self) -> AsyncIterator[OutgoingReply]:
        self.life = asyncio.Event()
        await self.life.wait()
        self.connected = False
        raise NotNow("nobody answers")
        yield

    async def hears_of_its_link(self) -> None:
        async with asyncio.timeout(20):
            while not self.connected:
                await asyncio.sleep(0.05)


async def test_a_core_that_starts_anew_is_told_that_the_hub_has_its_link(own_town: Town) -> None:
    plain = own_town.core("aachen")
    core = Mortal(plain.site, plain.release, plain.instruction_keys, plain.specs, plain.spool)
    async with own_town.links(core):
        await core.hears_of_its_link()
        for _ in range(2):
            core.life.set()
            await asyncio.sleep(0.1)
            await core.hears_of_its_link()
