"""What has been done already and is still to be written down.

A decision is written down before it is done. Stopping is the other way round: a full disk, or a database that does not
answer, keeps no container running. What a stop has to say is kept here, in order, and tried again until the store
takes it. A crash takes it along; the next start finds every job that has not ended, and a pause has its mark.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mediator.audit import Action, Verdict
from mediator.errors import Code, NotNow
from mediator.ports import Clock
from node.core.records import AuditEvent
from node.core.store.store import Store
from node.core.store.writes import Tx

log = logging.getLogger(__name__)

# how often a record that the store's absence does not explain is tried
_TRIES = 5
Write = Callable[[Tx], object]


class DeferredRecord:
    """One thing to be written down, in a transaction of its own."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self.failures = 0
        self.paid = threading.Event()


class DeferredRecords:
    """Writes what is owed as soon as it can. Thread-safe; nobody who owes has to wait.

    `make_room` is asked when the store does not take a record: true where the disk was full and now has some room.
    """

    def __init__(
        self, store: Store, clock: Clock, *, retry_s: float = 1.0, make_room: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._clock = clock
        self._retry_s = retry_s
        self._make_room = make_room
        self._lock = threading.Lock()
        self._debts: list[DeferredRecord] = []
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = False

    def add(self, write: Write) -> DeferredRecord:
        """Have `write` called with a transaction, after everything that was owed before."""
        debt = DeferredRecord(write)
        with self._lock:
            self._debts.append(debt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="deferred-records", daemon=True)
                self._thread.start()
        self._news.set()
        return debt

    def count(self) -> int:
        """How much is not written down yet."""
        with self._lock:
            return len(self._debts)

    def settle(self, within_s: float) -> bool:
        """Wait until everything owed so far is written down; false where that takes longer."""
        until_s = time.monotonic() + within_s
        with self._lock:
            debts = list(self._debts)
        return all(debt.paid.wait(max(0.0, until_s - time.monotonic())) for debt in debts)

    def close(self, within_s: float) -> None:
        """Try a last time, then give up what is left."""
        if not self.settle(within_s):
            log.error("%d records of what was stopped could not be written down", self.count())
        self._ended.set()
        self._news.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            self._news.wait()
            self._news.clear()
            while not self._pay() and (self._make_room() or not self._ended.wait(self._retry_s)):
                pass

    def _pay(self) -> bool:
        """Write what can be written, in order; false where something is left."""
        with self._lock:
            debts = list(self._debts)
        for debt in debts:
            try:
                with self._store.transaction(self._clock()) as tx:
                    debt.write(tx)
            except NotNow as error:
                if not self._told:
                    log.warning("%d records of what was stopped wait: %s", self.count(), error.message)
                self._told = True
                return False
            except Exception as error:  # noqa: BLE001 - the thread must live: what others owe is written all the same
                debt.failures += 1
                log.error("a record of what was stopped could not be written: %s", type(error).__name__)
                if debt.failures < _TRIES:
                    continue
                debt.write = _given_up  # what will never fit is not tried for ever: that it was lost is written instead
                continue
            with self._lock:
                self._debts.remove(debt)
            debt.paid.set()
            self._told = False
        return all(debt.paid.is_set() for debt in debts)


def _given_up(tx: Tx) -> None:
    lost = AuditEvent(
        actor="core", action=Action.RECOVER, object="deferred-record", verdict=Verdict.FAILED, code=Code.INTERNAL
    )
    tx.record(event=lost)
