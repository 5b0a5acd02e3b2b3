"""The life of a job (one task of one run on one node) as one table.

A job is a row: what is not in the row did not happen. `TRANSITIONS` says where each event leads, `AFTER_RESTART`
where a row found after a crash continues. No row is ever lost: it ends as delivered, held, refused, failed or stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mediator import transitions


class JobState(StrEnum):
    RECEIVED = "received"  # the instruction is stored; nothing is decided
    ADMITTED = "admitted"  # gate 1 said yes and the ledger is charged; it waits for its turn
    PREPARING = "preparing"  # work area, container and canary are being made
    RUNNING = "running"  # the container has the task
    PRODUCED = "produced"  # its output is stored with core, judged by nobody yet
    RELEASING = "releasing"  # gate 2 said yes; the envelope is being signed and spooled
    RELEASED = "released"  # the envelope waits for the link
    DELIVERED = "delivered"  # the hub has it
    HELD = "held"  # an analysis: its files are in the airlock, where people decide on each
    REFUSED = "refused"  # a gate said no
    FAILED = "failed"  # the container broke, or broke the contract
    STOPPED = "stopped"  # pause, revocation, expiry or shutdown ended it


class JobStep(StrEnum):
    ADMIT = "admit"
    REDELIVER = "redeliver"  # the release of an earlier attempt, in a new envelope
    PREPARE = "prepare"
    START = "start"
    PREEMPT = "preempt"  # asked to make room: the task waits for its turn again, with its checkpoint
    PRODUCE = "produce"
    RELEASE = "release"
    SPOOL = "spool"
    DELIVER = "deliver"
    HOLD = "hold"
    REFUSE = "refuse"
    FAIL = "fail"
    STOP = "stop"


TERMINAL = frozenset({JobState.DELIVERED, JobState.HELD, JobState.REFUSED, JobState.FAILED, JobState.STOPPED})

TRANSITIONS: Mapping[tuple[JobState, JobStep], JobState] = {
    (JobState.RECEIVED, JobStep.ADMIT): JobState.ADMITTED,
    (JobState.RECEIVED, JobStep.REDELIVER): JobState.RELEASED,
    (JobState.RECEIVED, JobStep.REFUSE): JobState.REFUSED,
    (JobState.RECEIVED, JobStep.FAIL): JobState.FAILED,
    (JobState.RECEIVED, JobStep.STOP): JobState.STOPPED,
    (JobState.ADMITTED, JobStep.PREPARE): JobState.PREPARING,
    (JobState.ADMITTED, JobStep.REDELIVER): JobState.RELEASED,
    (JobState.ADMITTED, JobStep.REFUSE): JobState.REFUSED,
    (JobState.ADMITTED, JobStep.FAIL): JobState.FAILED,
    (JobState.ADMITTED, JobStep.STOP): JobState.STOPPED,
    (JobState.PREPARING, JobStep.START): JobState.RUNNING,
    (JobState.PREPARING, JobStep.REFUSE): JobState.REFUSED,
    (JobState.PREPARING, JobStep.FAIL): JobState.FAILED,
    (JobState.PREPARING, JobStep.STOP): JobState.STOPPED,
    (JobState.RUNNING, JobStep.PREEMPT): JobState.ADMITTED,
    (JobState.RUNNING, JobStep.PRODUCE): JobState.PRODUCED,
    (JobState.RUNNING, JobStep.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobStep.STOP): JobState.STOPPED,
    (JobState.PRODUCED, JobStep.RELEASE): JobState.RELEASING,
    (JobState.PRODUCED, JobStep.HOLD): JobState.HELD,
    (JobState.PRODUCED, JobStep.REFUSE): JobState.REFUSED,
    (JobState.PRODUCED, JobStep.FAIL): JobState.FAILED,
    (JobState.PRODUCED, JobStep.STOP): JobState.STOPPED,
    (JobState.RELEASING, JobStep.SPOOL): JobState.RELEASED,
    (JobState.RELEASING, JobStep.REFUSE): JobState.REFUSED,
    (JobState.RELEASING, JobStep.FAIL): JobState.FAILED,
    (JobState.RELEASING, JobStep.STOP): JobState.STOPPED,
    (JobState.RELEASED, JobStep.DELIVER): JobState.DELIVERED,
    (JobState.RELEASED, JobStep.FAIL): JobState.FAILED,
    (JobState.RELEASED, JobStep.STOP): JobState.STOPPED,
}

# Before the output is stored, a crash costs the computation: the task is given again to a new container, and
# the ledger, charged once per (run, round, task), is not charged again. From then on nothing is computed twice.
# A release interrupted halfway goes back to what is stored, so that gate 2 decides anew.
AFTER_RESTART: Mapping[JobState, JobState] = {
    JobState.RECEIVED: JobState.RECEIVED,
    JobState.ADMITTED: JobState.ADMITTED,
    JobState.PREPARING: JobState.ADMITTED,
    JobState.RUNNING: JobState.ADMITTED,
    JobState.PRODUCED: JobState.PRODUCED,
    JobState.RELEASING: JobState.PRODUCED,
    JobState.RELEASED: JobState.RELEASED,
    JobState.DELIVERED: JobState.DELIVERED,
    JobState.HELD: JobState.HELD,
    JobState.REFUSED: JobState.REFUSED,
    JobState.FAILED: JobState.FAILED,
    JobState.STOPPED: JobState.STOPPED,
}


def advance(state: JobState, event: JobStep) -> JobState:
    """The state after `event`. Raises `IntegrityBroken` for an event the table does not have in this state."""
    return transitions.advance(TRANSITIONS, state, event, "a job")


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    return transitions.mermaid(TRANSITIONS, JobState.RECEIVED, TERMINAL)
