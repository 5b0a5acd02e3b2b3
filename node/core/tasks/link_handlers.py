"""`link.sock` on core's side: what the link may ask, answered by the use cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from mediator.errors import Code, Denied, HubCode, Malformed
from node.core.records import OutgoingRow
from node.ipc import verbs
from node.ipc.channel import Call, Handler, Verb
from node.ipc.messages import Empty


class CoreSide(Protocol):
    """What core offers its link (implemented by `node.core.process`)."""

    site: str

    def greet(self, connected: bool) -> bool: ...
    def receive_document(self, text: str) -> bool: ...
    def receive_instruction(self, text: str, reply_context: bytes, model: Iterable[bytes]) -> HubCode | None: ...
    def outgoing(self, active: Callable[[], bool]) -> Iterator[tuple[OutgoingRow, str | None]]: ...
    def delivered(self, instruction: str) -> None: ...
    def checkpoints(self, active: Callable[[], bool]) -> Iterator[str]: ...
    def witnessed(self, text: str) -> None: ...


def handlers(core: CoreSide) -> Mapping[Verb[Any, Any], Handler]:
    """Core's side of the LINK verbs."""

    def outbox(_request: Empty, call: Call) -> Iterator[verbs.Outgoing]:
        for row, folder in core.outgoing(lambda: call.active):
            yield verbs.Outgoing(
                instruction=row.instruction,
                reply_context=row.reply_context,
                envelope=row.envelope,
                folder=folder,
                hub_code=row.hub_code if row.envelope is None else None,
            )

    def instruction(request: verbs.InstructionStart, chunks: Iterator[bytes]) -> verbs.InstructionAnswer:
        code = core.receive_instruction(request.text, request.reply_context, chunks)
        return verbs.InstructionAnswer(accepted=code is None, hub_code=code)

    def delivered(request: verbs.InstructionId) -> Empty:
        core.delivered(request.instruction)
        return Empty()

    def checkpoints(_request: Empty, call: Call) -> Iterator[verbs.CheckpointText]:
        for text in core.checkpoints(lambda: call.active):
            yield verbs.CheckpointText(text=text)

    def witnessed(request: verbs.CheckpointText) -> Empty:
        core.witnessed(request.text)
        return Empty()

    return {
        verbs.HELLO: lambda request: verbs.Welcome(site=core.site, paused=core.greet(request.connected)),
        verbs.DELIVER_DOCUMENT: lambda request: outcome(core.receive_document, request.text),
        verbs.DELIVER_INSTRUCTION: instruction,
        verbs.OUTBOX: outbox,
        verbs.DELIVERED: delivered,
        verbs.CHECKPOINTS: checkpoints,
        verbs.WITNESSED: witnessed,
    }


def outcome(take: Callable[[str], bool], text: str) -> verbs.Outcome:
    """What became of a document, as an answer rather than an error: a refused document is nobody's fault here."""
    try:
        return verbs.Outcome(outcome="accepted" if take(text) else "known")
    except Denied as denied:
        return verbs.Outcome(outcome="refused", code=denied.reasons[0].code)
    except Malformed as error:
        code = Code.UNSUPPORTED_VERSION if error.code == "unsupported_version" else Code.MALFORMED
        return verbs.Outcome(outcome="refused", code=code)
