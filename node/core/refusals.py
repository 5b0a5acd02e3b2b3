"""How many refusals of a day are written down, and the one record that stands for all the others.

Nothing durable grows on a stranger's word: a hub, a broken link or a member of the staff may send what is refused as
fast as this node can read it. The first of a day are recorded one by one; of the rest only their number is kept, and
when the day (UTC) is over it is one record, `refusals/<who>/<day>/<how many more>`. Each source is counted by itself,
so that one which makes noise hides nobody else's.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime

from mediator.audit import Action, Verdict
from node.core.records import AuditEvent
from node.core.store.store import Store
from node.core.store.writes import Tx

# An honest hub is refused a few times a day; one that asks a paused node every half minute fills this in two hours.
# 200 refusals take about half a megabyte.
KEPT_PER_DAY = 200
# what the hub has signed; and what not even that can be said of, which a broken link can make too
INSTRUCTIONS, UNREAD = "link/instruction", "link/unread"
# what the link says the witness refused
WITNESS = "link/witness"


class Refusals:
    """Counts refusals by source and day. Thread-safe."""

    def __init__(self, kept_per_day: int = KEPT_PER_DAY) -> None:
        self._kept_per_day = kept_per_day
        self._lock = threading.Lock()
        # not written down yet: what is refused beyond the limit costs the disk nothing
        self._more: Counter[tuple[str, str]] = Counter()

    def keep(self, tx: Tx, source: str) -> bool:
        """Whether one more refusal may be written down, in this transaction; one that may not is counted."""
        day = _day(tx.now)
        if tx.refusals_kept(source, day) >= self._kept_per_day:
            self._count(source, day)
            return False
        tx.count_refusals(source, day, kept=1)
        return True

    def record(self, store: Store, now: datetime, source: str, refused: AuditEvent) -> None:
        """Write a refusal down, or count it; beyond the limit nothing waits for the database's one writer."""
        with store.read() as snapshot:
            full = snapshot.refusals_kept(source, _day(now)) >= self._kept_per_day
        if full:
            self._count(source, _day(now))
            return
        with store.transaction(now) as tx:
            if self.keep(tx, source):
                tx.record(event=refused)

    def sum_up(self, store: Store, now: datetime) -> None:
        """Write down how many there were beyond the limit: today's as a number, an ended day's as its record."""
        with self._lock:
            counted = dict(self._more)
        with store.read() as snapshot:
            ended = snapshot.refusal_days(before=_day(now))
        if not counted and not ended:
            return
        with store.transaction(now) as tx:
            for (source, day), more in counted.items():
                tx.count_refusals(source, day, more=more)
            for row in tx.refusal_days(before=_day(now)):
                if row.more:
                    tx.sum_up_refusals(row, event=_summary(row.source, row.day, row.more))
                else:
                    tx.forget_refusals(row.source, row.day)
        with self._lock:
            self._more -= Counter(counted)

    def _count(self, source: str, day: str) -> None:
        with self._lock:
            self._more[source, day] += 1


def role_of(actor: str) -> str:
    """The role in an actor's name (`role.person`): a source is a role, however many people have it."""
    return actor.partition(".")[0]


def _day(now: datetime) -> str:
    return now.date().isoformat()


def _summary(source: str, day: str, more: int) -> AuditEvent:
    about = f"refusals/{source}/{day}/{more}"
    return AuditEvent(actor="core", action=Action.REFUSALS_COUNT, object=about, verdict=Verdict.REFUSED)
