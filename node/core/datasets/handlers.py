"""Dataset versions on the staff's sockets."""

from __future__ import annotations

from node.core.core import CoreProcess
from node.core.datasets import budget, removal
from node.ipc import datasets as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


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


@HANDLERS.answers(words.DATASET_BUDGET)
def spent(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.BudgetLine, ...]:
    with process.core.store.read() as snapshot:
        return budget.lines(process.core, snapshot)


@HANDLERS.answers(words.DATASET_WITHDRAW)
def withdraw(process: CoreProcess, caller: Caller, request: words.DatasetVersionId) -> Empty:
    removal.withdraw(process.core, process.sandboxes, request.dataset_version, caller.actor)
    return Empty()
