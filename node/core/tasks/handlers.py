"""Jobs and runs on the staff's sockets."""

from __future__ import annotations

from collections.abc import Mapping

from mediator.audit import Action, Verdict
from mediator.errors import UsageFault
from node.core.context import event, permit_name
from node.core.core import CoreProcess
from node.core.records import JobRow
from node.core.tasks.overview import run_account
from node.core.tasks.queue import Place
from node.ipc import jobs as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.verb import Handlers

# the newest of what was set aside: a message between processes has room for these
_SHOWN = 200

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.JOBS)
def listed(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.JobLine, ...]:
    with process.core.store.read() as snapshot:
        rows = snapshot.jobs()
    places = process.jobs.queue.places()
    return tuple(_line(process, row, places) for row in rows)


@HANDLERS.answers(words.JOB_SHOW)
def show(process: CoreProcess, _caller: Caller, request: words.JobId) -> words.JobLine:
    return _line(process, _found(process, request.job), process.jobs.queue.places())


@HANDLERS.answers(words.JOB_STOP)
def stop(process: CoreProcess, caller: Caller, request: words.JobId) -> Empty:
    process.jobs.end(request.job, caller.actor)
    return Empty()


@HANDLERS.answers(words.JOB_LOGS)
def logs(process: CoreProcess, caller: Caller, request: words.JobId) -> words.LogPlace:
    """Where a job's output is. What a job prints is data about patients: who asked is written down first."""
    core, row = process.core, _found(process, request.job)
    if row.sandbox is None:
        raise UsageFault("this job has not been given to a container")
    permit = permit_name(row.permit, row.permit_version)
    asked = event(Action.ACCESS, f"log/{row.job}", Verdict.ALLOWED, permit=permit, actor=caller.actor)
    with core.store.transaction(core.clock()) as tx:
        tx.record(event=asked)
    return words.LogPlace(row.sandbox)


@HANDLERS.answers(words.RUNS)
def runs(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.RunAccount, ...]:
    with process.core.store.read() as snapshot:
        return tuple(run_account(snapshot, order) for order in snapshot.run_orders())


@HANDLERS.answers(words.SET_ASIDE)
def aside(process: CoreProcess, _caller: Caller, _request: Empty) -> tuple[words.SetAside, ...]:
    with process.core.store.read() as snapshot:
        rows = snapshot.set_aside(_SHOWN)
    return tuple(
        words.SetAside(row.kind, row.subject, row.reason, row.times, row.first, row.set_aside)
        for row in rows
        if row.set_aside is not None
    )


def _found(process: CoreProcess, job: str) -> JobRow:
    with process.core.store.read() as snapshot:
        row = snapshot.job(job)
    if row is None:
        raise UsageFault("there is no such job", hint="cloister node job list shows the newest")
    return row


def _line(process: CoreProcess, row: JobRow, places: Mapping[str, Place]) -> words.JobLine:
    place = places.get(row.job, Place())
    return words.JobLine(
        job=row.job,
        run=row.run,
        kind=row.task.value,
        state=row.state.value,
        round=row.round,
        fraction=process.progress_of(row),
        code=row.code,
        updated=row.updated,
        wait="asked_to_make_room" if place.leaving else (place.wait or ""),
        place=place.position,
        gpus=place.gpus,
        used_s=row.used_s + process.jobs.queue.spent_s(row.job),
        preempted=row.preempted,
    )
