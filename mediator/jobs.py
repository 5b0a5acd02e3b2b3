"""The life of a job (one task of one run on one node) as one table.

A job is a row: what is not in the row did not happen. `TRANSITIONS` says where each event leads, `AFTER_RESTART`
where a row found after a crash continues. No row is ever lost: it ends as delivered, held, refused, failed or stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mediator import transitions


class State(StrEnum):
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


class Event(StrEnum):
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


TERMINAL = frozenset({State.DELIVERED, State.HELD, State.REFUSED, State.FAILED, State.STOPPED})

TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.RECEIVED, Event.ADMIT): State.ADMITTED,
    (State.RECEIVED, Event.REDELIVER): State.RELEASED,
    (State.RECEIVED, Event.REFUSE): State.REFUSED,
    (State.RECEIVED, Event.FAIL): State.FAILED,
    (State.RECEIVED, Event.STOP): State.STOPPED,
    (State.ADMITTED, Event.PREPARE): State.PREPARING,
    (State.ADMITTED, Event.REDELIVER): State.RELEASED,
    (State.ADMITTED, Event.REFUSE): State.REFUSED,
    (State.ADMITTED, Event.FAIL): State.FAILED,
    (State.ADMITTED, Event.STOP): State.STOPPED,
    (State.PREPARING, Event.START): State.RUNNING,
    (State.PREPARING, Event.REFUSE): State.REFUSED,
    (State.PREPARING, Event.FAIL): State.FAILED,
    (State.PREPARING, Event.STOP): State.STOPPED,
    (State.RUNNING, Event.PREEMPT): State.ADMITTED,
    (State.RUNNING, Event.PRODUCE): State.PRODUCED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.STOP): State.STOPPED,
    (State.PRODUCED, Event.RELEASE): State.RELEASING,
    (State.PRODUCED, Event.HOLD): State.HELD,
    (State.PRODUCED, Event.REFUSE): State.REFUSED,
    (State.PRODUCED, Event.FAIL): State.FAILED,
    (State.PRODUCED, Event.STOP): State.STOPPED,
    (State.RELEASING, Event.SPOOL): State.RELEASED,
    (State.RELEASING, Event.REFUSE): State.REFUSED,
    (State.RELEASING, Event.FAIL): State.FAILED,
    (State.RELEASING, Event.STOP): State.STOPPED,
    (State.RELEASED, Event.DELIVER): State.DELIVERED,
    (State.RELEASED, Event.FAIL): State.FAILED,
    (State.RELEASED, Event.STOP): State.STOPPED,
}

# Before the output is stored, a crash costs the computation: the task is given again to a new container, and
# the ledger, charged once per (run, round, task), is not charged again. From then on nothing is computed twice.
# A release interrupted halfway goes back to what is stored, so that gate 2 decides anew.
AFTER_RESTART: Mapping[State, State] = {
    State.RECEIVED: State.RECEIVED,
    State.ADMITTED: State.ADMITTED,
    State.PREPARING: State.ADMITTED,
    State.RUNNING: State.ADMITTED,
    State.PRODUCED: State.PRODUCED,
    State.RELEASING: State.PRODUCED,
    State.RELEASED: State.RELEASED,
    State.DELIVERED: State.DELIVERED,
    State.HELD: State.HELD,
    State.REFUSED: State.REFUSED,
    State.FAILED: State.FAILED,
    State.STOPPED: State.STOPPED,
}


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises `IntegrityBroken` for an event the table does not have in this state."""
    return transitions.advance(TRANSITIONS, state, event, "a job")


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    return transitions.mermaid(TRANSITIONS, State.RECEIVED, TERMINAL)
