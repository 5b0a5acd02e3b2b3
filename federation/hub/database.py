"""`hub.db`: SQLAlchemy over SQLite (WAL), migrated by Alembic; shared by the running hub and its command line."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from federation.hub.refusals import SiteRefusals
from federation.hub.tables import EventRow
from federation.older_readers import is_newest, may_read, write_readers
from mediator.canonical import print_time
from mediator.errors import IntegrityBroken, NotNow, UsageFault

# who opens a database of this very version does not wait for it
if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 10.0


class Database:
    """Two ways in: `read` sees one moment, `write` is the only writer while it lasts (`BEGIN IMMEDIATE`).

    Both raise `NotNow` when the database does not answer, `IntegrityBroken` when its file is damaged.
    """

    def __init__(self, path: Path, migrations: Path = _MIGRATIONS) -> None:
        self.path, self._migrations = path, migrations
        self.refusals = SiteRefusals()
        self._reader = _engine(path, "BEGIN")
        self._writer = _engine(path, "BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        with _telling_faults(), Session(self._reader) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        with _telling_faults(), Session(self._writer) as session, session.begin():
            yield session

    def upgrade(self) -> None:
        """Bring the database to this version; an older one is copied aside first.

        A newer one is opened as it is where the newer version only added to it, and else refused.
        """
        with _telling_faults():
            with self._writer.connect() as connection:
                done = is_newest(connection, self._migrations)
            if not done:
                self._upgrade()

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = _alembic(self._migrations)
        scripts = ScriptDirectory.from_config(config)
        with self._writer.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current == scripts.get_current_head():
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            with self._writer.connect() as connection:
                if may_read(connection, current, scripts.get_current_head()):
                    return
            raise UsageFault("hub.db was written by a newer version", hint="upgrade Cloister")
        with contextlib.ExitStack() as undo:
            if current is not None:
                undo.callback(self._forget, self._back_up(current))
            with self._writer.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                write_readers(connection, scripts)
            undo.pop_all()
        self.path.chmod(0o600)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def _back_up(self, revision: str) -> Path:
        target = self.path.with_name(f"{self.path.name}.before-{revision}")
        try:
            source, copy = sqlite3.connect(self.path), sqlite3.connect(target)
            with contextlib.closing(source), contextlib.closing(copy):
                source.backup(copy)
        except sqlite3.Error:
            self._forget(target)  # half a copy is none
            raise
        target.chmod(0o600)
        return target

    @staticmethod
    def _forget(copy: Path) -> None:
        """A migration that did not happen leaves no copy: on a full disk, each try would leave another."""
        for part in ("", "-journal", "-wal", "-shm"):
            copy.with_name(copy.name + part).unlink(missing_ok=True)


def note(session: Session, now: datetime, actor: str, action: str, thing: str, verdict: str, code: str = "") -> None:
    """Add a line to the hub's own audit, in the transaction of what it tells of."""
    session.add(
        EventRow(time=print_time(now), actor=actor, action=action, object=thing[:160], verdict=verdict, code=code)
    )


def note_refused(
    database: Database, session: Session, now: datetime, site: str, action: str, thing: str, code: str
) -> None:
    """Add a line about what a site sent and was refused, while the day has room for it."""
    if database.refusals.keep(session, now, site):
        note(session, now, site, action, thing, "refused", code)


def driver(session: Session) -> sqlite3.Connection:
    """The connection below a session, within its transaction."""
    found = session.connection().connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


@contextlib.contextmanager
def _telling_faults() -> Iterator[None]:
    """Turn what the driver raises into our own errors."""
    try:
        yield
    except OperationalError:
        raise NotNow(
            "the hub's database does not answer", hint="is the disk full, or another process writing?"
        ) from None
    except DatabaseError as error:
        if type(error.orig) is sqlite3.DatabaseError:
            raise IntegrityBroken("the hub's database file is damaged", hint="restore the newest backup") from None
        raise


def _alembic(migrations: Path) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations))
    return config


def _engine(path: Path, begin: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; pysqlite would say it too late
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
