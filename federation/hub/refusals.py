"""How many refusals a site may have written into the hub's own record in a day; the rest is counted.

An enrolled site, or who has its certificate, may send what is refused as fast as the hub reads it. Each day (UTC) the
first are lines of their own; for the others one line says how many there were, once the day is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from federation.hub.tables import EventRow
from mediator.canonical import print_time

KEPT_PER_DAY = 200
MORE = "refused_more"
_DAY = len("2026-11-22")


class SiteRefusals:
    """Counts refusals by site and day. Thread-safe."""

    def __init__(self, kept_per_day: int = KEPT_PER_DAY) -> None:
        self._kept_per_day = kept_per_day
        self._lock = threading.Lock()
        self._kept: Counter[tuple[str, str]] = Counter()
        self._more: Counter[tuple[str, str]] = Counter()

    def keep(self, session: Session, now: datetime, site: str) -> bool:
        """Whether one more refusal may be a line of its own; one that may not is counted."""
        key = (site, print_time(now)[:_DAY])
        with self._lock:
            if key not in self._kept:  # also a hub that was started again knows what it wrote down today
                self._kept[key] = _written(session, *key)
            kept = self._kept[key] < self._kept_per_day
            (self._kept if kept else self._more)[key] += 1
            return kept

    def sum_up(
        self, write: Callable[[], AbstractContextManager[Session]], now: datetime, *, closing: bool = False
    ) -> None:
        """Write down, in a transaction of `write`, how many there were beyond the limit on days that are over; today's
        too where the hub is `closing`."""
        today = print_time(now)[:_DAY]
        with self._lock:
            ended = {key: self._more[key] for key in self._kept if closing or key[1] < today}
        if not ended:
            return
        with write() as session:
            for (site, day), more in ended.items():
                if more:
                    session.add(
                        EventRow(
                            time=print_time(now), actor=site, action=MORE, object=f"{day}/{more}", verdict="refused",
                            code="",
                        )
                    )  # fmt: skip
        with self._lock:
            for key in ended:
                del self._kept[key]
                self._more.pop(key, None)


def _written(session: Session, site: str, day: str) -> int:
    query = select(func.count()).where(
        EventRow.actor == site, EventRow.verdict == "refused", EventRow.action != MORE, EventRow.time >= day
    )
    return session.scalar(query) or 0


class Allowance:
    """So many a day for each site. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._day = ""
        self._taken: Counter[str] = Counter()

    def take(self, now: datetime, site: str) -> bool:
        """Whether there was one left."""
        day = print_time(now)[:_DAY]
        with self._lock:
            if day != self._day:
                self._day, self._taken = day, Counter()
            self._taken[site] += 1
            return self._taken[site] <= self._most
