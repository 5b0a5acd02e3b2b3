"""Both halves of each process's socket, on a real one: what a process asks arrives as the other side's own values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.client.ports import Delivery, Greeting, OutgoingReply, ShownCheckpoint
from mediator.errors import Code, Denied, HubCode, Malformed, NotNow, Reason
from mediator.import_orders import Column, IngestOrder
from mediator.manifests import Deidentification
from mediator.ports import JobEvent, Prepared
from mediator.types import OutputFile
from node.broker.handlers import HANDLERS as BROKER
from node.core.imports.intake_handlers import HANDLERS as INTAKE
from node.core.process import link_server
from node.ipc import broker
from node.ipc import intake as words
from node.ipc.caller import Caller
from node.ipc.channel import Client
from node.ipc.messages import Empty
from node.ipc.runner import RemoteRunner
from node.ipc.server import Server
from node.ipc.verb import verbs_in
from node.link.process import RemoteCore

CORE = Caller("core", person="")
EVENTS = (
    JobEvent("started"), JobEvent("progress", 1, 0.25), JobEvent("done", 1), JobEvent("exited", status=-9),
    JobEvent("failed", 2, code=Code.RAISED_VALUE_ERROR),
)  # fmt: skip
FILES = (OutputFile("a", b""), OutputFile("b", b"x" * ((1 << 20) + 1)), OutputFile("c", b"\x00"))


class Runner:
    """`mediator.ports.Runner`, with everything written down."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def prepare(self, signed_spec: str) -> Prepared:
        if signed_spec == "refused":
            raise Denied([Reason(Code.SPEC_EXPIRED), Reason(Code.NOT_SEALED, "caps")], hint="again")
        return Prepared(f"job of {signed_spec}", "f" * 64)

    def execute(self, job: str) -> Iterator[JobEvent]:
        yield from EVENTS
        if job == "away":
            raise NotNow("the engine is away")

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        return FILES[:task]

    def terminate(self, job: str, grace_s: float) -> None:
        self.asked.append((job, grace_s))

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        self.asked.append(tuple(keep))
        return ["one", "two"]


def test_the_broker_is_a_runner_to_core(tmp_path: Path) -> None:
    socket, runner = tmp_path / "broker.sock", Runner()
    with Server(socket, verbs_in(broker), BROKER.of(runner), caller=CORE), Client(socket) as client:
        remote = RemoteRunner(client)
        assert remote.prepare("x") == Prepared("job of x", "f" * 64)
        with pytest.raises(Denied) as denied:
            remote.prepare("refused")
        assert tuple(denied.value.reasons) == (Reason(Code.SPEC_EXPIRED), Reason(Code.NOT_SEALED, "caps"))
        assert tuple(remote.execute("job")) == EVENTS
        seen: list[JobEvent] = []
        with pytest.raises(NotNow, match="engine is away"):
            seen.extend(remote.execute("away"))
        assert [list(remote.finalise("job", count)) for count in range(4)] == [list(FILES[:n]) for n in range(4)]
        remote.terminate("job", 2.5)
        assert list(remote.clean(["kept"])) == ["one", "two"] and list(remote.clean(())) == ["one", "two"]
    assert runner.asked == [("job", 2.5), ("kept",), ()]


@pytest.mark.parametrize("sent", [[b"xx"], [b"x" * 4], [b""], []])
def test_a_file_of_another_size_than_announced_is_a_broken_contract(tmp_path: Path, sent: list[bytes]) -> None:
    def finalise(*_: object) -> Iterator[broker.FileStart | bytes]:
        yield broker.FileStart("model", 3)
        yield from sent

    socket = tmp_path / "broker.sock"
    handlers = {**BROKER.of(Runner()), broker.FINALISE: finalise}
    server = Server(socket, verbs_in(broker), handlers, caller=CORE)
    with server, Client(socket) as client, pytest.raises(Denied) as denied:
        RemoteRunner(client).finalise("job", 1)
    assert denied.value.reasons[0].code is Code.CONTRACT_VIOLATION


AT = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
SHOWN = (ShownCheckpoint("one"), ShownCheckpoint("two", ("ab" * 32, "cd" * 32)))


class LinkSide:
    """What core offers its link, with everything written down."""

    site = "aachen"

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.replies = [
            OutgoingReply("run/1/train/1", b"\x00\xff", "signed", None, "run+1+train+1"),
            OutgoingReply("run/2/train/1", b"", None, HubCode.PAUSED),
        ]

    def greet(self, connected: bool) -> bool:
        self.asked.append(connected)
        return connected

    def receive_document(self, text: str) -> bool:
        if text == "refused":
            raise Denied([Reason(Code.PERMIT_EXPIRED, "long ago"), Reason(Code.PERMIT_REVOKED)])
        if text == "broken":
            raise Malformed("no document")
        return text == "new"

    def receive_instruction(self, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None:
        self.asked.append((text, reply_context, b"".join(model)))
        return HubCode.REFUSED_INSTRUCTION if text == "no" else None

    def outgoing(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        yield from self.replies

    def delivered(self, instruction: str) -> None:
        self.asked.append(instruction)

    def witness_holds(self, text: str, refused: bool) -> None:
        self.asked.append((text, refused))

    def checkpoints(self, active: Callable[[], bool]) -> Iterator[ShownCheckpoint]:
        yield from SHOWN

    def witnessed(self, text: str) -> None:
        self.asked.append(text)

    def hub_time(self, time: datetime) -> None:
        self.asked.append(time)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_core_is_what_the_link_knows_as_core(tmp_path: Path) -> None:
    socket, side = tmp_path / "link.sock", LinkSide()

    async def ask() -> None:
        with closing(RemoteCore(socket)) as core:
            assert await core.hello("1.0", True) == Greeting("aachen", True)
            assert [await core.deliver_document(text) for text in ("new", "old", "refused", "broken")] == [
                "accepted", "known", "refused (permit_expired)", "refused (malformed)",
            ]  # fmt: skip
            assert await core.deliver_instruction("yes", b"\x01", pieces(b"mo", b"del")) == Delivery(True)
            assert await core.deliver_instruction("no", b"", pieces()) == Delivery(False, HubCode.REFUSED_INSTRUCTION)
            async with aclosing(core.outbox()) as outbox:  # type: ignore[type-var]
                assert [reply async for reply in outbox] == side.replies
            await core.witness_holds("", True)
            assert [shown async for shown in core.checkpoints()] == list(SHOWN)
            await core.delivered("run/1/train/1")
            await core.witnessed("one, signed")
            await core.hub_time(AT)

    with link_server(socket, side, group=None):
        asyncio.run(ask())
    assert side.asked == [
        True, ("yes", b"\x01", b"model"), ("no", b"", b""), ("", True), "run/1/train/1", "one, signed", AT,
    ]  # fmt: skip


ORDER = IngestOrder(
    order="ingest-1", site="aachen", project="p", dataset="d", source="/data/in", profile="eucaim", clinical="a.csv",
    columns=(Column("age", "number", 0.0, 120.0), Column("sex", "category", categories=("f", "m"))), test_fraction=0.25,
)  # fmt: skip


STUDY = words.StudyReady(
    "ingest-1", 9, "1" * 32, "2" * 32, "train", 3, Deidentification("eucaim", "f" * 64, "4")
)  # fmt: skip


class IntakeSide:
    """`node.core.imports.imports.Imports` as intake's handlers ask it, with everything written down."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def work(self, active: Callable[[], bool]) -> Iterator[words.Work]:
        yield words.Work("carry_out", ORDER)
        yield words.Work("destroy", ORDER)

    def progress(self, told: words.IngestProgress) -> bool:
        self.asked.append(told)
        return told.done < 2

    def take(self, ready: words.StudyReady) -> str:
        self.asked.append(ready)
        return "taken"

    def ended(self, end: words.IngestEnd) -> None:
        self.asked.append(end)

    def live(self) -> tuple[str, ...]:
        return ("ingest-1", "ingest-2")

    def swept(self, order: str, destroyed: int) -> None:
        self.asked.append((order, destroyed))


def test_what_intake_and_core_say_to_each_other_arrives_as_it_was_said(tmp_path: Path) -> None:
    socket, side = tmp_path / "intake.sock", IntakeSide()
    server = Server(socket, verbs_in(words), INTAKE.of(side), caller=Caller("intake", person=""))  # type: ignore[arg-type]
    told = [words.IngestProgress("ingest-1", "forget", done, 2) for done in (1, 2)]
    end = words.IngestEnd("ingest-1", 7, "the disk is full", again=True)
    with server, Client(socket) as client:
        assert [(work.kind, work.order) for work in client.stream(words.ORDERS, Empty())] == [
            ("carry_out", ORDER), ("destroy", ORDER),
        ]  # fmt: skip
        assert [client.call(words.PROGRESS, each).go_on for each in told] == [True, False]
        assert client.call(words.STUDY, STUDY).outcome == "taken"
        client.call(words.REPORT, end)
        assert client.call(words.LIVE, Empty()).orders == ("ingest-1", "ingest-2")
        client.call(words.SWEPT, words.Swept("ingest-3", 4))
    assert side.asked == [*told, STUDY, end, ("ingest-3", 4)]
