"""The connection: SQLite so that a committed transaction survives a power cut, or whatever database a URL names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from mediator.errors import IntegrityBroken, NotNow, UsageFault

# how long a reader waits for a checkpoint of the write-ahead log; writers queue in this process
_BUSY_TIMEOUT_MS = 10_000
_WRITES = "cloister_writes"


def make_engine(url: str) -> Engine:
    """An engine for `url`. A SQLite file is made with mode 0600 if it is not there."""
    try:
        parsed = make_url(url)
        path = sqlite_path(url)
        if path is not None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        engine = create_engine(parsed)
    except (ArgumentError, ImportError):
        raise UsageFault("the database URL is not one that can be used here") from None
    except OSError as error:
        raise UsageFault(f"cannot open the database {path}: {error.strerror}") from None
    if path is not None:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def sqlite_path(url: str) -> Path | None:
    """The file behind a SQLite URL; nothing for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise UsageFault("the node's database is a file", hint="sqlite:////var/lib/cloister/core/node.db")
    return Path(parsed.database)


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the write lock at once (`BEGIN IMMEDIATE`)."""
    return engine.execution_options(**{_WRITES: True})


@contextmanager
def telling_faults() -> Iterator[None]:
    """Turn what the driver raises into our own errors; its texts may quote values and go nowhere."""
    try:
        yield
    except OperationalError:
        raise NotNow("the database does not answer", hint="is the disk full, or another process writing?") from None
    except DatabaseError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and type(error.orig) is sqlite3.DatabaseError:
            raise IntegrityBroken("the database file is damaged", hint="restore the newest backup") from None
        raise


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's own transaction handling would commit behind our back: BEGIN is sent by `_begin_sqlite` alone
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
        # deleted pages are overwritten: what was removed is not found in the file's slack
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
