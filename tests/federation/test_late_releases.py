"""A release that waited: it does not leave after its permit, its order, its node's consent or its envelope has ended.

The hub is a real one, in a process of its own, with its SuperLink; the link is the real one; behind its real socket is
a real core, whose clock is the test's and whose engine is played.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from federation.client.hub_errors import RunOver
from federation.client.link import Link
from federation.client.objects import FlowerCodec
from federation.client.ports import OutgoingReply
from federation.hub.tables import EnvelopeRow, EventRow
from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, HubCode
from mediator.permit import open_permit
from mediator.signatures import KeyRing, open_signed, peek_kind
from mediator.types import Acceptance, DataPermit, Instruction, ReleaseEnvelope, RevocationList
from node.core.context import CoreKeys, Trust, event
from node.core.process import link_server
from node.core.tasks import admit_task, pause
from node.link.process import RemoteCore
from tests.federation.ground import COMMITTEE, IMAGE, SPECS, Town, found, permit
from tests.mediator import samples
from tests.node.core.desk import AUDIT, VERDICT, Desk, Written, manifest
from tests.sim.core import FakeCore
from tests.sim.rogue_link import RogueLink
from tests.sim.runner import FakeRunner

SITE = "aachen"
DATA = "sha256:" + "cd" * 32
METRICS = {
    "train": b'{"loss": 0.5, "num-examples": 40}',
    "evaluate": b'{"auc": 0.5, "loss": 0.5, "num-examples": 20}',
}


class Held:
    """A job that computes when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0

    def __call__(self, task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        self.asked += 1
        assert self.go.wait(20)
        files = {"metrics.json": METRICS[task["kind"]]}
        return files | {"model.safetensors": model} if task["kind"] == "train" else files


class Node(Desk):
    """The core of one of the town's sites, on its link's socket."""

    def __init__(self, root: Path, town: Town, job: Held) -> None:
        keys = CoreKeys(audit=AUDIT, release=town.keys[SITE], verdict=VERDICT)
        hub = KeyRing([town.hub.instruction_key.verify_key])
        trust = Trust(KeyRing([COMMITTEE.verify_key]), samples.STEWARD_RING, hub, hub)
        self.late = timedelta()
        self.site = SITE
        played = FakeRunner(VERDICT.verify_key, {IMAGE: job})
        changes = {"site": SITE, "keys": keys, "trust": trust, "ceiling": permit().resources}
        super().__init__(root, job, documents=False, runner=played, **changes)
        self._accept(town)
        self.jobs.start()
        self.server = link_server(root / "link.sock", self, group=None)
        self.server.start()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.late

    @now.setter
    def now(self, _value: datetime) -> None:
        self.late = timedelta()

    def _accept(self, town: Town) -> None:
        published = next(text for _, text in town.hub.documents.after(0) if peek_kind(text) == DataPermit.KIND)
        granted = open_permit(published, self.core.trust.committee)
        accepted = Acceptance(
            permit=granted.document.permit, permit_version=1, permit_sha256=granted.sha256, site=SITE, versions=None,
            maximum_rounds=None, byte_budget=None, expires=granted.document.expires,
        )  # fmt: skip
        self.documents.receive(granted.text)
        self.documents.receive(samples.STEWARD.sign(accepted), by="data_steward")
        version = replace(manifest(), site=SITE, project="demo", dataset="demo", dataset_version=DATA)
        with self.core.store.transaction(self.now) as tx:
            tx.approve_image(IMAGE, "", event=event(Action.IMAGE_APPROVE, IMAGE, Verdict.DONE))
            done = event(Action.DATASET_PUBLISH, DATA, Verdict.DONE)
            tx.add_dataset_version(version, "d" * 64, "demo/a", event=done)

    # ---- what the link asks

    def greet(self, connected: bool) -> bool:
        return self.core.switch.on

    def receive_document(self, text: str) -> bool:
        return self.documents.receive(text)

    def receive_instruction(self, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None:
        code = admit_task.receive(self.core, text, reply_context, model)
        self.jobs.submit_unfinished()
        return code

    def outgoing(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        return self.outbox.follow(active)

    def may_leave(self, instruction: str) -> bool:
        return self.outbox.may_leave(instruction)

    def delivered(self, instruction: str) -> None:
        self.outbox.delivered(instruction)

    def checkpoints(self, active: Callable[[], bool]) -> Iterator[str]:
        while active():
            threading.Event().wait(0.1)
        yield from ()

    def witnessed(self, text: str) -> None: ...

    def close(self) -> None:
        self.server.stop()
        self.jobs.stop()
        self.core.deferred.close(1)
        self.core.store.close()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"), patience_s=60.0, round_timeout_s=3600.0)
    town.start()
    yield town
    town.stop()


@pytest.fixture
def job() -> Held:
    return Held()


@pytest.fixture
def node(town: Town, tmp_path: Path, job: Held) -> Iterator[Node]:
    made = Node(tmp_path, town, job)
    yield made
    job.go.set()
    made.close()


@contextlib.asynccontextmanager
async def linked(town: Town, node: Node) -> AsyncIterator[None]:
    core = RemoteCore(node.root / "link.sock")
    config = replace(town.link_config(SITE), spool=node.root / "spool")
    task = asyncio.create_task(Link(config, core, lambda: node.now).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        core.close()


async def until(holds: Callable[[], Any], within_s: float = 30.0) -> None:
    for _ in range(int(within_s / 0.05)):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never came")


def envelopes(town: Town, run: str) -> int:
    with town.hub.database.read() as session:
        return len([row for row in session.scalars(select(EnvelopeRow)) if row.instruction.startswith(f"{run}/")])


def waiting(node: Node) -> list[str]:
    with node.core.store.read() as snapshot:
        return [row.instruction for row in snapshot.waiting_releases()]


async def released_while_the_link_is_away(town: Town, node: Node, job: Held, run: str) -> str:
    """The hub has asked, the link has gone, the job is done; returns the instruction whose release waits."""
    town.submit(run, sites=(SITE,), rounds=1)
    async with linked(town, node):
        await until(lambda: job.asked)
    job.go.set()
    await until(lambda: waiting(node))
    return waiting(node)[0]


async def test_a_release_that_waited_for_forty_days_does_not_leave(town: Town, node: Node, job: Held) -> None:
    instruction = await released_while_the_link_is_away(town, node, job, "forty-days")
    before, node.late = node.size(), timedelta(days=40)
    async with linked(town, node):
        await until(lambda: not waiting(node))
        history = await town.settled("forty-days")
    assert envelopes(town, "forty-days") == 0 and history["state"] == "stopped"
    assert Written("release", instruction, "refused", "run_order_expired") in node.log(before)
    assert list((node.root / "spool").iterdir()) == []
    node.outbox.forget_ended_runs()
    assert list((node.root / "releases").iterdir()) == []


async def test_a_release_does_not_leave_after_the_revocation(town: Town, node: Node, job: Held) -> None:
    instruction = await released_while_the_link_is_away(town, node, job, "revoked")
    before, stream = node.size(), node.outbox.follow(lambda: True)
    assert (node.root / "spool" / str(next(stream).folder)).is_dir(), "a link was told of it, and is about to push it"
    node.documents.receive(COMMITTEE.sign(RevocationList(9, node.now.replace(microsecond=0), ("p1",))))
    assert not node.outbox.may_leave(instruction), "not even before anything is written down"
    async with linked(town, node):
        await until(lambda: not waiting(node))
        history = await town.settled("revoked")
    assert envelopes(town, "revoked") == 0 and history["state"] == "stopped"
    assert Written("release", instruction, "refused", "permit_revoked") in node.log(before)
    node.outbox.take_back()
    node.outbox.forget_ended_runs()
    assert list((node.root / "spool").iterdir()) == [] == list((node.root / "releases").iterdir())


async def test_a_release_does_not_leave_during_a_pause_and_does_after_it(town: Town, node: Node, job: Held) -> None:
    instruction = await released_while_the_link_is_away(town, node, job, "paused")
    before, computed = node.size(), job.asked
    next(node.outbox.follow(lambda: True))
    pause.pause(node.core, node.boxes, "it_admin")
    await until(lambda: list((node.root / "spool").iterdir()) == [])
    async with linked(town, node):
        await until(lambda: "paused" in town.hub.run_history("paused")["detail"])
        assert envelopes(town, "paused") == 0 and waiting(node) == []
        assert Written("release", instruction, "refused", "hospital_paused") in node.log(before)
        assert job.asked == computed
        pause.resume(node.core, "it_admin")
        history = await town.settled("paused")
    assert history["state"] == "done" and envelopes(town, "paused") == 3
    assert job.asked == computed + 2, "what was computed before the pause was not computed again"


async def test_a_link_does_not_push_what_has_expired_nor_what_core_takes_back(town: Town) -> None:
    """Core's answer comes too late, or core itself has come back with an old row."""
    town.submit("late-link", sites=(SITE,), rounds=1)
    core = Guarded(SITE, town.keys[SITE], KeyRing([town.hub.instruction_key.verify_key]), SPECS, town.folder / "spool")
    core.spool.mkdir(exist_ok=True)
    late = timedelta(hours=2)
    config = replace(town.link_config(SITE), spool=core.spool)
    for clock, allowed, asked in ((late, True, 0), (timedelta(), False, 1)):
        core.allowed, core.told = allowed, 0
        task = asyncio.create_task(Link(config, core, lambda clock=clock: datetime.now(UTC) + clock).run())  # type: ignore[misc]
        await until(lambda: core.released)
        await asyncio.sleep(1)
        assert (core.told >= 1) is (asked >= 1) and envelopes(town, "late-link") == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    town.hub.stop_run("late-link")


class Guarded(FakeCore):
    """A core that says no at its door."""

    allowed, told = True, 0

    async def may_leave(self, instruction: str) -> bool:
        self.told += 1
        return self.allowed


async def test_a_hub_takes_no_envelope_that_has_expired_nor_one_of_a_run_that_is_over(town: Town) -> None:
    """Of a permit that was revoked meanwhile, or stopped by hand."""
    ring = KeyRing([town.hub.instruction_key.verify_key])
    core = FakeCore(SITE, town.keys[SITE], ring, SPECS, town.folder / "rogue-spool")
    rogue = RogueLink(town.link_config(SITE))
    try:
        town.submit("late-hub", sites=(SITE,), rounds=1)
        asked = await asked_for(rogue, "late-hub", ring)
        expired = replace(_envelope(core, asked), expires=datetime.now(UTC) - timedelta(seconds=1))
        with pytest.raises(Denied) as denied:
            await rogue.post(core.release.sign(expired))
        assert denied.value.reasons[0].code is Code.INSTRUCTION_EXPIRED
        now = datetime.now(UTC).replace(microsecond=0)
        town.hub.submit_revocations(COMMITTEE.sign(RevocationList(100, now, ("p1",))))
        with pytest.raises(Denied) as denied:
            await rogue.post(core.release.sign(_envelope(core, asked)))
        assert denied.value.reasons[0].code is Code.PERMIT_REVOKED
        town.hub.stop_run("late-hub")
        with pytest.raises(Denied) as denied:
            await rogue.post(core.release.sign(_envelope(core, asked)))
        assert denied.value.reasons[0].code is Code.STOPPED
    finally:
        await rogue.close()
    assert envelopes(town, "late-hub") == 0
    with town.hub.database.read() as session:
        noted = [row.code for row in session.scalars(select(EventRow)) if row.object == asked.id]
    assert noted == ["instruction_expired", "permit_revoked", "stopped"]


async def asked_for(rogue: RogueLink, run: str, ring: KeyRing) -> Instruction:
    """The hub's instruction of this run; what it had sent for others is over."""
    for _ in range(20):
        with contextlib.suppress(RunOver):
            task = await asyncio.wait_for(rogue.pull(), 30)
            asked = open_signed(Instruction, task.signed, ring).document
            if asked.run == run:
                return asked
    raise AssertionError("never came")


def _envelope(core: FakeCore, asked: Instruction) -> ReleaseEnvelope:
    root, objects = FlowerCodec().encode(asked.task, {}, {"loss": 0.5, "auc": 0.5, "num-examples": 10})
    core.wrap(asked, b"", root, objects)
    return core.released[-1]
