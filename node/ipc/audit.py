"""What hospital staff ask about the audit log as a whole: its epoch, and the clock it is written by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class LogState:
    """The log as it stands. `set_back`: how many records a witness, or the log's own files, know of that it does not
    hold. `refused`: the hub did not sign the last checkpoint that it was shown."""

    epoch: int
    records: int
    witnessed: int
    set_back: int | None
    refused: bool
    clock: Literal["right", "jumped", "far_ahead"]


@dataclass(frozen=True)
class OpenEpoch:
    """`restored`: open one though nothing but the person who asks says that the log was set back."""

    restored: bool


@dataclass(frozen=True)
class EpochOpened:
    """The epoch, how many records it keeps, and how many the witness had signed before."""

    epoch: int
    kept: int
    before: int


@dataclass(frozen=True)
class AcceptClock:
    """`despite_hub`: believe this machine's clock though the hub's says another time."""

    despite_hub: bool


LOG_STATE = Verb("log_state", Empty, LogState)
EPOCH_OPEN = Verb("epoch_open", OpenEpoch, EpochOpened)
CLOCK_ACCEPT = Verb("clock_accept", AcceptClock, Empty)
