"""What hospital staff ask of the node as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from federation.client.ports import Trouble
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb


@dataclass(frozen=True)
class Status:
    """The node in one look. `sandbox` is what the newest canary found, `witnessed` how many records a hub co-signed,
    `audit_trouble` what the verb `log_state` tells more of, `unrecorded` how much of what was stopped the store has not
    taken yet, `set_aside` how many messages, documents and replies failed too often and are tried no more,
    `hub_trouble` why the hub has no business with this node, `hub_clock_ahead_s` how far its clock is ahead of ours."""

    site: str
    cloister: str
    config: str
    started: datetime
    paused: bool
    containers: int
    jobs_unfinished: int
    datasets: int
    permits: int
    undelivered: int
    revocation_number: int | None
    revocation_age_s: float | None
    hub_connected: bool
    hub_trouble: Trouble
    hub_clock_ahead_s: float | None
    audit_records: int
    audit_checkpointed: int
    audit_witnessed: int
    audit_trouble: Literal["", "set_back", "not_witnessed", "clock"]
    airlock_waiting: int
    airlock_overdue: int
    unrecorded: int
    set_aside: int
    sandbox: Literal["held", "failed", "unknown"]
    sandbox_age_s: float | None


@dataclass(frozen=True)
class PauseResult:
    """What a pause came to: how many containers were ended, whether all were when the answer was given, whether the log
    has the pause yet, and whether a restart keeps it."""

    stopped: int
    all_ended: bool
    recorded: bool
    kept: bool


@dataclass(frozen=True)
class CanaryAnswer:
    """What a canary found: empty `failures` when the sandbox held."""

    fingerprint: str
    failures: tuple[str, ...]


@dataclass(frozen=True)
class SelfTestAnswer:
    """How a job of nobody's went in the sandbox of this fingerprint: empty `failure` when it ended as it must."""

    fingerprint: str
    seconds: float
    failure: str


STATUS = Verb("status", Empty, Status)
PAUSE = Verb("pause", Empty, PauseResult)
RESUME = Verb("resume", Empty, Empty)
CANARY = Verb("canary", Empty, CanaryAnswer)
SELF_TEST = Verb("self_test", Empty, SelfTestAnswer)
AUDIT_CHECKPOINT = Verb("audit_checkpoint", Empty, SignedText)
