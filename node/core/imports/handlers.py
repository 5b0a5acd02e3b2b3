"""Bringing data in, on the staff's sockets."""

from __future__ import annotations

from collections.abc import Iterator

from mediator.errors import UsageFault
from mediator.import_orders import Column, IngestOrder
from node.core.core import CoreProcess
from node.ipc import imports as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.server import Call
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.INGEST)
def ingest(process: CoreProcess, caller: Caller, request: words.Ingest, call: Call) -> Iterator[words.IngestHappened]:
    def order(name: str) -> IngestOrder:
        try:
            return IngestOrder(
                order=name,
                site=process.core.site,
                project=request.project,
                dataset=request.dataset,
                source=request.source,
                profile=request.profile,
                clinical=request.clinical,
                columns=tuple(_column(column) for column in request.columns),
                test_fraction=request.test_fraction,
                defaced_by=request.defaced_by,
            )
        except ValueError as error:
            raise UsageFault(str(error)) from error

    name = process.imports.give(order, caller.actor)
    yield words.IngestHappened("progress", name)  # whoever loses us now can follow it by its name
    yield from process.imports.follow(name, lambda: call.active)


@HANDLERS.answers(words.IMPORTS)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.ImportLine, ...]:
    return tuple(
        words.ImportLine(
            order=row.name,
            state=row.state.value,
            project=row.project,
            dataset=row.dataset,
            studies=row.studies,
            studies_done=row.studies_done,
            studies_waiting=row.studies_waiting,
            destroyed=row.destroyed,
            dataset_version=row.dataset_version,
            error=row.error,
            created=row.created,
            updated=row.updated,
        )
        for row in process.imports.listed()
    )


@HANDLERS.answers(words.IMPORT_FOLLOW)
def follow(
    process: CoreProcess, _caller: Caller, request: words.ImportId, call: Call
) -> Iterator[words.IngestHappened]:
    yield from process.imports.follow(request.order, lambda: call.active)


@HANDLERS.answers(words.IMPORT_STOP)
def stop(process: CoreProcess, caller: Caller, request: words.ImportId) -> Empty:
    process.imports.stop(request.order, caller.actor)
    return Empty()


@HANDLERS.answers(words.IMPORT_RETRY)
def retry(process: CoreProcess, caller: Caller, request: words.ImportId) -> Empty:
    process.imports.retry(request.order, caller.actor)
    return Empty()


@HANDLERS.answers(words.IMPORT_GIVE_UP)
def give_up(process: CoreProcess, caller: Caller, request: words.ImportId) -> Empty:
    process.imports.give_up(request.order, caller.actor)
    return Empty()


def _column(column: words.IngestColumn) -> Column:
    if column.categories:
        return Column(column.name, "category", categories=column.categories)
    if column.minimum is None or column.maximum is None:
        raise ValueError("a column of numbers needs a minimum and a maximum")
    return Column(column.name, "number", column.minimum, column.maximum)
