"""The clock that records are written by, and when it is not believed.

A record at a wrong time is worse than none: no permit is live while the log's newest record lies in the future. So
nothing is written down by a clock that jumped while this process ran, nor by one that stands far past the newest record
when it begins and that the hub does not confirm. A person who has looked at a clock can say that it is right.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from mediator.errors import NotNow
from mediator.ports import Clock
from mediator.types import CLOCK_TOLERANCE

log = logging.getLogger(__name__)

# A node that was off for a month is not unusual; a clock that is a month wrong is what a dead battery leaves behind.
FAR = timedelta(days=30)
# Clocks are corrected by milliseconds a day. What adds up over months of running is no jump.
_FOLLOW = timedelta(days=1)
_HINT = "set the machine's clock right; if it is right, `cloister node clock accept`"

State = Literal["right", "jumped", "far_ahead"]


def boot_time_s() -> float:
    """Seconds since this machine began, sleep included; nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Whether the wall clock may be written down. Thread-safe."""

    def __init__(self, wall: Clock, boot_s: Callable[[], float] = boot_time_s) -> None:
        self._wall = wall
        self._boot_s = boot_s
        self._lock = threading.Lock()
        self._anchor = (wall(), boot_s())
        self._far = False
        self._hub: tuple[datetime, float] | None = None

    def begin(self, newest: datetime | None) -> None:
        """Compare with the newest record of the log, once."""
        with self._lock:
            self._far = newest is not None and self._wall() - newest > FAR

    def hear(self, hub: datetime) -> None:
        """Hear what time it is at the hub: a clock that agrees with it is no longer called far ahead."""
        with self._lock:
            self._hub = (hub, self._boot_s())
            if self._far and not self._hub_differs():
                log.info("the clock stands far past the newest record, and the hub's says the same")
                self._far = False

    def state(self) -> State:
        with self._lock:
            if abs(self._drift()) > CLOCK_TOLERANCE:
                return "jumped"
            return "far_ahead" if self._far else "right"

    def hub_differs(self) -> bool:
        """Whether the hub's time, as far as it was heard, is another."""
        with self._lock:
            return self._hub_differs()

    def hub_ahead_s(self) -> float | None:
        """How far the hub's clock is ahead of this one, as far as it was heard (it says its time to a second)."""
        with self._lock:
            return None if self._hub is None else self._ahead(self._hub).total_seconds()

    def require(self, now: datetime) -> None:
        """Raise `NotNow` while this clock is not to be written down, or where `now`, which was read of it a while ago,
        is a time that has not come yet."""
        with self._lock:
            drift, (at, boot_s) = self._drift(), self._anchor
            if abs(drift) > CLOCK_TOLERANCE:
                raise NotNow(f"the clock jumped by {int(drift.total_seconds())} s: nothing is recorded", hint=_HINT)
            if self._far:
                raise NotNow("the clock stands far past the newest record, and no hub confirms it", hint=_HINT)
            if now - self._wall() > CLOCK_TOLERANCE:
                raise NotNow("the clock was ahead when this was begun: it is not recorded", hint="try again")
            now_s = self._boot_s()
            if now_s - boot_s > _FOLLOW.total_seconds():
                self._anchor = (at + timedelta(seconds=now_s - boot_s) + drift, now_s)

    def accept(self) -> Callable[[], None]:
        """Believe the clock as it stands; returns how to take that back."""
        with self._lock:
            before = (self._anchor, self._far)
            self._anchor, self._far = (self._wall(), self._boot_s()), False

        def take_back() -> None:
            with self._lock:
                self._anchor, self._far = before

        return take_back

    # --- inside, under the lock

    def _drift(self) -> timedelta:
        at, boot_s = self._anchor
        return self._wall() - at - timedelta(seconds=self._boot_s() - boot_s)

    def _hub_differs(self) -> bool:
        return self._hub is not None and abs(self._ahead(self._hub)) > CLOCK_TOLERANCE

    def _ahead(self, hub: tuple[datetime, float]) -> timedelta:
        said, boot_s = hub
        return said + timedelta(seconds=self._boot_s() - boot_s) - self._wall()
