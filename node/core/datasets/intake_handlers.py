"""`intake.sock` on core's side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mediator.deid.orders import IngestOrder
from node.ipc import imports as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.server import Call
from node.ipc.verb import Handlers


class IntakeSide(Protocol):
    """What core offers intake (`node.core.datasets.ingest.Ingests`)."""

    def follow(self, active: Callable[[], bool]) -> Iterator[IngestOrder]: ...
    def progress(self, order: str, stage: str, done: int, total: int) -> None: ...
    def ended(self, order: str, destroyed: int, error: str, hint: str, again: bool) -> None: ...


HANDLERS = Handlers[IntakeSide]()


@HANDLERS.answers(words.ORDERS)
def orders(core: IntakeSide, _caller: Caller, _request: Empty, call: Call) -> Iterator[IngestOrder]:
    yield from core.follow(lambda: call.active)


@HANDLERS.answers(words.PROGRESS)
def progress(core: IntakeSide, _caller: Caller, request: words.IngestProgress) -> Empty:
    core.progress(request.order, request.stage, request.done, request.total)
    return Empty()


@HANDLERS.answers(words.REPORT)
def report(core: IntakeSide, _caller: Caller, request: words.IngestEnd) -> Empty:
    core.ended(request.order, request.destroyed, request.error, request.hint, request.again)
    return Empty()
