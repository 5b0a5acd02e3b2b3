"""Opening the store, reading from it, and writing to it one transaction at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from node.core.store.engine import make_engine, telling_faults, writing
from node.core.store.migrate import migrate
from node.core.store.reads import Reads
from node.core.store.writes import Tx


class Store:
    """The node's database. Thread-safe: many read at once, one writes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = writing(engine)
        self._lock = threading.Lock()
        self._writer: int | None = None
        self._after_commit: list[Callable[[], None]] = []
        self._committed = threading.Condition()
        self._commits = 0
        # asked before every transaction, with its time: whoever may not write now is told why
        self.before_writing: Callable[[datetime], None] = lambda _: None

    @contextmanager
    def transaction(self, now: datetime) -> Iterator[Tx]:
        """A transaction at `now`: committed when the block ends, rolled back when it raises.

        Raises `NotNow` when the database does not answer or the clock is not believed, `IntegrityBroken` when the
        database's file is damaged.
        """
        if self._writer == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction")
        self.before_writing(now)
        with self._lock:
            self._writer = threading.get_ident()
            try:
                with telling_faults(), Session(self._writing, expire_on_commit=False) as session, session.begin():
                    yield Tx(session, now)
            finally:
                self._writer = None
        with self._committed:
            self._commits += 1
            self._committed.notify_all()
        for told in self._after_commit:
            told()

    @contextmanager
    def read(self) -> Iterator[Reads]:
        """One consistent snapshot."""
        with telling_faults(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield Reads(session)

    def after_commit(self, told: Callable[[], None]) -> None:
        """Have `told` called, in the writer's thread, after every transaction that committed."""
        self._after_commit.append(told)

    def wait_for_commit(self, seen: int, within_s: float) -> int:
        """How many transactions have committed; waits up to `within_s` while these are the `seen` ones.

        For whoever waits for news: nothing asks the database by the clock.
        """
        with self._committed:
            self._committed.wait_for(lambda: self._commits != seen, within_s)
            return self._commits

    def close(self) -> None:
        self._engine.dispose()


def open_store(url: str, now: datetime) -> Store:
    """The store behind a database URL, migrated to this version of Cloister.

    One written by a newer version is opened as it is where that only added to it, and else refused
    (`UnsupportedVersion`). A copy of a SQLite database is made beside it before it is migrated. For another database
    the backup is its operator's, as its migrations are.
    """
    engine = make_engine(url)
    try:
        with telling_faults():
            migrate(engine, url, now)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine)
