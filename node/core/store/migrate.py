"""Bringing a database to this version: never one back, never without a copy of what was there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from federation.older_readers import is_newest, may_read, write_readers
from mediator.errors import UnsupportedVersion
from node.core.store.engine import sqlite_path, writing

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine, url: str, now: datetime, migrations: Path = MIGRATIONS) -> None:
    """Migrate to the newest revision in the folder `migrations`.

    1. A revision we do not know was made by a newer Cloister. Where that only added, we open its database as it is;
       otherwise it is refused, and the file stays untouched.
    2. A SQLite database with anything in it is copied before the first change.
    3. All migrations run in one transaction: they happen, or they do not. Where they do not, the copy goes again: a
       node that is started anew and anew on a full disk would fill it with copies.
    """
    with engine.connect() as connection:
        done = is_newest(connection, migrations)
    if not done:
        _migrate(engine, url, now, migrations)


def _migrate(engine: Engine, url: str, now: datetime, migrations: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        newer = revision is not None and revision not in known
        open_as_it_is = newer and may_read(connection, revision, scripts.get_current_head())
    if revision == scripts.get_current_head() or open_as_it_is:
        return
    if newer:  # (1)
        raise UnsupportedVersion(
            "the database was written by a newer version of cloister",
            hint="install that version again, or restore the backup made before its migration",
        )
    path = sqlite_path(url)
    with ExitStack() as undo:
        if revision is not None and path is not None:  # (2)
            backup = path.with_name(f"{path.name}.{revision}-{now:%Y%m%dT%H%M%SZ}.backup")
            os.close(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            undo.callback(_forget, backup)
            _copy(path, backup)
        with writing(engine).begin() as connection:  # (3)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            write_readers(connection, scripts)
        undo.pop_all()


def _copy(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def _forget(backup: Path) -> None:
    for part in ("", "-journal", "-wal", "-shm"):
        backup.with_name(backup.name + part).unlink(missing_ok=True)
