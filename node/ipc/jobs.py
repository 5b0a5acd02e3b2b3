"""What hospital staff ask core about jobs, one by one."""

from __future__ import annotations

from datetime import datetime

from mediator.errors import Code
from node.ipc.channel import Verb
from node.ipc.messages import Empty, Message


class JobLine(Message):
    """One job. While it waits for its turn: why (`wait`) and its `place` in the line, from 1; in a container: its GPUs.

    `used_s` are slot-seconds so far (a job on two GPUs uses two a second), `preempted` how often it made room.
    """

    job: str
    run: str
    kind: str
    state: str
    round: int
    fraction: float
    code: Code | None
    updated: datetime
    wait: str = ""
    place: int = 0
    gpus: tuple[str, ...] = ()
    used_s: float = 0.0
    preempted: int = 0


class Jobs(Message):
    items: tuple[JobLine, ...]


class AskJob(Message):
    job: str


class LogPlace(Message):
    """The container whose output a job's is. It is read at the engine, by who may open that."""

    sandbox: str


JOBS = Verb("jobs", Empty, Jobs)
JOB_SHOW = Verb("job_show", AskJob, JobLine)
JOB_STOP = Verb("job_stop", AskJob, Empty)
JOB_LOGS = Verb("job_logs", AskJob, LogPlace)

LISTED = (JOBS, JOB_SHOW, JOB_STOP, JOB_LOGS)
