"""Bringing data in, and dataset versions, on the staff's sockets."""

from __future__ import annotations

from collections.abc import Iterator

from mediator.audit import Action, Verdict
from mediator.deid.orders import Column, IngestOrder
from mediator.errors import Code, UsageFault
from node.core.context import event
from node.core.core import CoreProcess
from node.ipc import datasets as words
from node.ipc import imports
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.server import Call
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(imports.INGEST)
def ingest(
    process: CoreProcess, caller: Caller, request: imports.Ingest, _call: Call
) -> Iterator[imports.IngestHappened]:
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
            )
        except ValueError as error:
            raise UsageFault(str(error)) from error

    for news in process.ingests.give(order, caller.actor):
        manifest = news.manifest
        yield imports.IngestHappened(
            kind=news.kind,
            order=news.order,
            stage=news.stage,
            done=news.done,
            total=news.total,
            dataset_version=None if manifest is None else manifest.dataset_version,
            counts={} if manifest is None else manifest.counts,
            excluded={} if manifest is None else manifest.excluded,
            error=news.error,
            hint=news.hint,
            again=news.again,
        )


@HANDLERS.answers(words.DATASETS)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.DatasetLine, ...]:
    with process.core.store.read() as snapshot:
        rows = snapshot.dataset_versions()
    return tuple(
        words.DatasetLine(
            dataset=row.dataset,
            project=row.project,
            dataset_version=row.dataset_version,
            created=row.created,
            counts=row.counts,
            excluded=row.excluded,
            withdrawn=row.withdrawn is not None,
        )
        for row in rows
    )


@HANDLERS.answers(words.DATASET_WITHDRAW)
def withdraw(process: CoreProcess, caller: Caller, request: words.DatasetVersionId) -> Empty:
    removal.withdraw(process.core, process.sandboxes, request.dataset_version, caller.actor)
    return Empty()


def _column(column: imports.IngestColumn) -> Column:
    if column.categories:
        return Column(column.name, "category", categories=column.categories)
    if column.minimum is None or column.maximum is None:
        raise ValueError("a column of numbers needs a minimum and a maximum")
    return Column(column.name, "number", column.minimum, column.maximum)
