"""The databases of an installation: their copy before an upgrade, and whether the version before may read them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .machine import Machine
from .talk import NOT_NOW, REFUSED, USAGE, Fault

# what grows by a row whenever a node records anything; a hub has no such table, so all of its tables are compared, and
# what stands in them: it changes rows in their place too
_NODE_RECORDS = "audit_record"
_READERS = "schema_reader"
# what a migration itself writes
_SCHEMA = {"alembic_version", _READERS}
_ROOM_BYTES = 64 << 20


def state_is_known(machine: Machine, role: layout.Role) -> None:
    """Raises `Fault` where the configuration names another state folder than this installer copies and destroys."""
    config, state = layout.configuration(role), machine.at(layout.state(role))
    try:
        told = tomllib.loads(machine.at(config).read_text("utf-8"))["state_dir"]
        named = Path(os.path.normpath(machine.at(config).parent / told))  # a hub's may be relative to the file
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise Fault(f"{config} is refused: it names no state folder", "mend it, or move it away", USAGE) from None
    if named != state or state.is_symlink():
        elsewhere = state.resolve() if named == state else named
        raise Fault(
            f"the state folder is {elsewhere}, and install.sh knows {layout.state(role)} alone",
            f"stop the services, move it there, and name that in {config}", REFUSED,
        )  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How a database stands: its revision, whose readers may open it, and what is recorded: of each table that is not
    empty, its rows and the highest number of one; of a hub's, what stands in them by SHA-256, and in which columns."""

    revision: str | None
    readers: frozenset[str]
    tables: dict[str, tuple[int, int]]
    columns: dict[str, tuple[str, ...]]
    content: dict[str, str]

    @property
    def records(self) -> int:
        return sum(rows for rows, _highest in self.tables.values())

    def read_by(self, revision: str | None) -> bool:
        """Whether the version whose newest revision is this one may open the database."""
        return self.revision == revision or revision in self.readers


def standing(path: Path, role: layout.Role, columns: Mapping[str, tuple[str, ...]] | None = None) -> Standing:
    """Look at a database without changing it; `columns`: at no others than these of a hub's tables, which a migration
    may have given more. Raises `Fault` where it is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            revision = database.execute("SELECT version_num FROM alembic_version").fetchone()
            readers = (
                database.execute(f"SELECT revision FROM {_READERS} WHERE of = ?", revision)  # noqa: S608
                if _READERS in tables and revision
                else []
            )
            named = frozenset(str(row[0]) for row in readers)
            wanted = {_NODE_RECORDS} if role == "node" else tables - _SCHEMA
            recorded = {
                name: database.execute(f'SELECT count(*), coalesce(max(rowid), 0) FROM "{name}"').fetchone()  # noqa: S608
                for name in sorted(wanted)
                if not name.startswith("sqlite_")
            }
            shape = {} if role == "node" else {name: _columns(database, name) for name in recorded}
            wanted_columns = shape if columns is None else columns
            content = {
                name: _digest(database, name, each)
                for name, each in wanted_columns.items()
                if set(each) <= set(shape.get(name, ()))
            }
    except sqlite3.Error as error:
        raise Fault(f"{path} cannot be read: {error}", "is it damaged, or held by another process?", NOT_NOW) from None
    filled = {name: (int(rows), int(highest)) for name, (rows, highest) in recorded.items() if rows}
    return Standing(str(revision[0]) if revision else None, named, filled, shape, content)


def _columns(database: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(str(row[1]) for row in database.execute(f'PRAGMA table_info("{table}")'))


def _digest(database: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> str:
    """SHA-256 over the rows of a table as far as these columns go, in an order of their own: a migration that copies a
    table may number its rows anew."""
    named = ", ".join(f'"{each}"' for each in columns)
    rows = (repr(row).encode() for row in database.execute(f'SELECT {named} FROM "{table}"'))  # noqa: S608
    digests = sorted(hashlib.sha256(row).digest() for row in rows)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def settle(path: Path) -> None:
    """Finish what a process that ended in the middle left of a transaction, as whoever opens the database next would:
    only then does it say how it stands, and gives back the room that the transaction took. Nothing may have it open.
    Raises `Fault`."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10.0)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise Fault(f"{path} cannot be read: {error}", "is it damaged, or held by another process?", NOT_NOW) from None


def copy_before(machine: Machine, role: layout.Role, version: str) -> str | None:
    """Copy database and configuration aside, whole or not at all. The folder; None where there is no database yet."""
    database = machine.at(layout.database(role))
    folder = f"{layout.COPIES}/{version}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    if not database.exists():
        return None
    settle(database)
    size = sum(each.stat().st_size for each in database.parent.glob(f"{database.name}*"))
    at = machine.at(folder)
    try:
        at.parent.mkdir(mode=0o700, exist_ok=True)
        if shutil.disk_usage(at.parent).free < size * 2 + _ROOM_BYTES:
            raise Fault(
                f"there is no room for a copy of the database ({size >> 20} MB, and as much for its migration)",
                f"make room below {layout.STATE}",
            )
        at.mkdir(mode=0o700)
        _copy(database, at / database.name)
        shutil.copy2(machine.at(layout.configuration(role)), at / f"{role}.toml")
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(at, ignore_errors=True)
        raise Fault(f"the database could not be copied: {error}", "is the disk full?") from None
    return folder


def _copy(source: Path, target: Path) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=10.0)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def set_back(machine: Machine, role: layout.Role, copy: str) -> None:
    """Put the copy in the place of the database, with its owner and mode. Only where nothing was recorded since."""
    database = machine.at(layout.database(role))
    owner = database.stat()
    ahead = database.with_name(f".{database.name}.back")
    ahead.unlink(missing_ok=True)
    try:
        _copy(machine.at(copy) / database.name, ahead)
        ahead.chmod(owner.st_mode & 0o7777)
        machine.give(ahead, owner.st_uid, owner.st_gid)
        for part in ("-wal", "-shm"):
            database.with_name(database.name + part).unlink(missing_ok=True)
        ahead.rename(database)
    except (OSError, sqlite3.Error) as error:
        ahead.unlink(missing_ok=True)
        raise Fault(f"the copy of the database could not be put back: {error}", "is the disk full?") from None


def fit_for_before(machine: Machine, role: layout.Role, copy: str | None) -> None:
    """See to it that the version before may open the database.

    1. It reads a newer database whose migrations only added: then the database stays, with everything recorded since.
    2. Otherwise the copy made before the upgrade comes back, where nothing was recorded since.
    3. Otherwise `Fault`: an older database would have forgotten which instructions were served and which budgets spent.
    """
    database = machine.at(layout.database(role))
    if copy is None or not database.exists():
        return
    settle(database)
    kept = standing(machine.at(copy) / database.name, role)
    now = standing(database, role, kept.columns)
    if now.read_by(kept.revision):  # (1)
        return
    if now.tables != kept.tables or now.content != kept.content:  # (3)
        made = now.records - kept.records
        since = f"{made} records were made" if made > 0 else "records were changed"
        raise Fault(
            f"the version before cannot read this database, and {since} since",
            "stay with this version: going back would forget what was served and spent",
            3,
        )
    set_back(machine, role, copy)  # (2)
