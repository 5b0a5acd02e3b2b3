"""`link.sock` on core's side: what the link may ask, answered by the use cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Protocol

from federation.client.ports import Delivery, Greeting, OutgoingReply, Retry, ShownCheckpoint, Trouble
from mediator.errors import Code, HubCode
from node.core.documents.documents import outcome
from node.ipc import link as words
from node.ipc.caller import Caller
from node.ipc.documents import DocumentOutcome
from node.ipc.messages import Empty, SignedText
from node.ipc.server import Call
from node.ipc.verb import Handlers


class CoreSide(Protocol):
    """What core offers its link (implemented by `node.core.core`)."""

    site: str

    def greet(self, connected: bool) -> bool: ...
    def receive_document(self, text: str) -> bool: ...
    def receive_instruction(self, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None: ...
    def outgoing(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]: ...
    def delivered(self, instruction: str) -> None: ...
    def failed(self, kind: str, subject: str, reason: str, final: bool) -> Retry: ...
    def may_leave(self, instruction: str) -> bool: ...
    def witness_holds(self, text: str, refused: bool) -> None: ...
    def checkpoints(self, active: Callable[[], bool]) -> Iterator[ShownCheckpoint]: ...
    def witnessed(self, text: str) -> None: ...
    def certificate_alarm(self, code: Code) -> None: ...
    def hub_has_trouble(self, trouble: Trouble) -> None: ...
    def hub_time(self, time: datetime) -> None: ...


HANDLERS = Handlers[CoreSide]()


@HANDLERS.answers(words.HELLO)
def hello(core: CoreSide, _caller: Caller, request: words.Hello) -> Greeting:
    return Greeting(core.site, core.greet(request.connected))


@HANDLERS.answers(words.DELIVER_DOCUMENT)
def document(core: CoreSide, _caller: Caller, request: SignedText) -> DocumentOutcome:
    return outcome(core.receive_document, request.text)


@HANDLERS.answers(words.DELIVER_INSTRUCTION)
def instruction(core: CoreSide, _caller: Caller, request: words.InstructionStart, chunks: Iterator[bytes]) -> Delivery:
    code = core.receive_instruction(request.text, request.reply_context, chunks)
    return Delivery(code is None, code)


@HANDLERS.answers(words.OUTBOX)
def outbox(core: CoreSide, _caller: Caller, _request: Empty, call: Call) -> Iterator[OutgoingReply]:
    yield from core.outgoing(lambda: call.active)


@HANDLERS.answers(words.DELIVERED)
def delivered(core: CoreSide, _caller: Caller, request: words.InstructionId) -> Empty:
    core.delivered(request.instruction)
    return Empty()


@HANDLERS.answers(words.FAILED)
def failed(core: CoreSide, _caller: Caller, request: words.Failed) -> Retry:
    return core.failed(request.kind, request.subject, request.reason, request.final)


@HANDLERS.answers(words.MAY_LEAVE)
def may_leave(core: CoreSide, _caller: Caller, request: words.InstructionId) -> words.Leave:
    return words.Leave(core.may_leave(request.instruction))


@HANDLERS.answers(words.WITNESS_HOLDS)
def witness_holds(core: CoreSide, _caller: Caller, request: words.WitnessHolds) -> Empty:
    core.witness_holds(request.text, request.refused)
    return Empty()


@HANDLERS.answers(words.CHECKPOINTS)
def checkpoints(core: CoreSide, _caller: Caller, _request: Empty, call: Call) -> Iterator[ShownCheckpoint]:
    yield from core.checkpoints(lambda: call.active)


@HANDLERS.answers(words.WITNESSED)
def witnessed(core: CoreSide, _caller: Caller, request: SignedText) -> Empty:
    core.witnessed(request.text)
    return Empty()


@HANDLERS.answers(words.CERTIFICATE_ALARM)
def certificate_alarm(core: CoreSide, _caller: Caller, request: words.Alarm) -> Empty:
    core.certificate_alarm(request.code)
    return Empty()


@HANDLERS.answers(words.TROUBLE)
def trouble(core: CoreSide, _caller: Caller, request: words.HubTrouble) -> Empty:
    core.hub_has_trouble(request.trouble)
    return Empty()


@HANDLERS.answers(words.HUB_TIME)
def hub_time(core: CoreSide, _caller: Caller, request: words.HubTime) -> Empty:
    core.hub_time(request.time)
    return Empty()
