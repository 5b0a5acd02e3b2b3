"""`intake.sock` on core's side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from mediator import canonical
from mediator.deid.orders import IngestOrder
from node.ipc import verbs
from node.ipc.channel import Call, Handler, Verb
from node.ipc.messages import Empty


class IntakeSide(Protocol):
    """What core offers intake (`node.core.datasets.ingest.Ingests`)."""

    def follow(self, active: Callable[[], bool]) -> Iterator[IngestOrder]: ...
    def progress(self, order: str, stage: str, done: int, total: int) -> None: ...
    def ended(self, order: str, destroyed: int, error: str, hint: str, again: bool) -> None: ...


def handlers(core: IntakeSide) -> Mapping[Verb[Any, Any], Handler]:
    """Core's side of the INTAKE verbs."""

    def orders(_request: Empty, call: Call) -> Iterator[verbs.IngestOrderText]:
        for order in core.follow(lambda: call.active):
            yield verbs.IngestOrderText(text=canonical.encode(order).decode("utf-8"))

    def progress(request: verbs.IngestProgress) -> Empty:
        core.progress(request.order, request.stage, request.done, request.total)
        return Empty()

    def report(request: verbs.IngestEnd) -> Empty:
        core.ended(request.order, request.destroyed, request.error, request.hint, request.again)
        return Empty()

    return {verbs.ORDERS: orders, verbs.PROGRESS: progress, verbs.REPORT: report}
