"""What hospital staff ask core about jobs, one by one, and about the runs they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mediator.errors import Code
from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class JobLine:
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


@dataclass(frozen=True)
class JobId:
    job: str


@dataclass(frozen=True)
class LogPlace:
    """The container whose output a job's is. It is read at the engine, by who may open that."""

    sandbox: str


@dataclass(frozen=True)
class RunAccount:
    """A run as the ledger has it. `releases` counts what left, `bytes_charged` is what it may at most have weighed."""

    run: str
    permit: str
    permit_version: int
    rounds: int
    rounds_charged: int
    bytes_charged: int
    bytes_released: int
    releases: int
    epsilon: float
    state: str


@dataclass(frozen=True)
class SetAside:
    """What is tried no more: a `message` or `document` of the hub's (by its SHA-256), a `release` or `refusal` on its
    way there (by its instruction). How often it failed, and `reason` the last time."""

    kind: str
    subject: str
    reason: str
    times: int
    first: datetime
    set_aside: datetime


JOBS = Verb("jobs", Empty, tuple[JobLine, ...])
JOB_SHOW = Verb("job_show", JobId, JobLine)
JOB_STOP = Verb("job_stop", JobId, Empty)
JOB_LOGS = Verb("job_logs", JobId, LogPlace)
RUNS = Verb("runs", Empty, tuple[RunAccount, ...])
SET_ASIDE = Verb("set_aside", Empty, tuple[SetAside, ...])
