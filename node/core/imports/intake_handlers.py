"""`intake.sock` on core's side."""

from __future__ import annotations

from collections.abc import Iterator

from node.core.imports.imports import Imports
from node.ipc import intake as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.server import Call
from node.ipc.verb import Handlers

HANDLERS = Handlers[Imports]()


@HANDLERS.answers(words.ORDERS)
def orders(imports: Imports, _caller: Caller, _request: Empty, call: Call) -> Iterator[words.Work]:
    yield from imports.work(lambda: call.active)


@HANDLERS.answers(words.PROGRESS)
def progress(imports: Imports, _caller: Caller, request: words.IngestProgress) -> words.GoOn:
    return words.GoOn(imports.progress(request))


@HANDLERS.answers(words.STUDY)
def study(imports: Imports, _caller: Caller, request: words.StudyReady) -> words.StudyTaken:
    return words.StudyTaken(imports.take(request))


@HANDLERS.answers(words.REPORT)
def report(imports: Imports, _caller: Caller, request: words.IngestEnd) -> Empty:
    imports.ended(request)
    return Empty()


@HANDLERS.answers(words.LIVE)
def live(imports: Imports, _caller: Caller, _request: Empty) -> words.LiveImports:
    return words.LiveImports(imports.live())


@HANDLERS.answers(words.SWEPT)
def swept(imports: Imports, _caller: Caller, request: words.Swept) -> Empty:
    imports.swept(request.order, request.destroyed)
    return Empty()
