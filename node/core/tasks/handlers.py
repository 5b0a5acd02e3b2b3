"""The staff's verbs about jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mediator.audit import Action, Verdict
from mediator.errors import UsageFault
from node.core.context import event, permit_name
from node.core.core import CoreProcess
from node.core.records import JobRow
from node.core.tasks.queue import Place
from node.ipc import jobs as ipc
from node.ipc.channel import Handler, Verb
from node.ipc.messages import Empty


def handlers(process: CoreProcess, actor: str) -> Mapping[Verb[Any, Any], Handler]:
    """The verbs of `node.ipc.jobs`, for one role: audit records name it."""
    core = process.core

    def line(row: JobRow, places: Mapping[str, Place]) -> ipc.JobLine:
        place = places.get(row.job, Place())
        return ipc.JobLine(
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

    def found(job: str) -> JobRow:
        with core.store.read() as snapshot:
            row = snapshot.job(job)
        if row is None:
            raise UsageFault("there is no such job", hint="cloister node job list shows the newest")
        return row

    def jobs(_request: Empty) -> ipc.Jobs:
        with core.store.read() as snapshot:
            rows = snapshot.jobs()
        places = process.jobs.queue.places()
        return ipc.Jobs(items=tuple(line(row, places) for row in rows))

    def show(request: ipc.AskJob) -> ipc.JobLine:
        return line(found(request.job), process.jobs.queue.places())

    def stop(request: ipc.AskJob) -> Empty:
        process.jobs.end(request.job, actor)
        return Empty()

    def logs(request: ipc.AskJob) -> ipc.LogPlace:
        """Where a job's output is. What a job prints is data about patients: who asked is written down first."""
        row = found(request.job)
        if row.sandbox is None:
            raise UsageFault("this job has not been given to a container")
        permit = permit_name(row.permit, row.permit_version)
        asked = event(Action.ACCESS, f"log/{row.job}", Verdict.ALLOWED, permit=permit, actor=actor)
        with core.store.transaction(core.clock()) as tx:
            tx.record(event=asked)
        return ipc.LogPlace(sandbox=row.sandbox)

    return {ipc.JOBS: jobs, ipc.JOB_SHOW: show, ipc.JOB_STOP: stop, ipc.JOB_LOGS: logs}
