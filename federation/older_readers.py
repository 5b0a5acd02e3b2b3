"""Which versions may open a database that a newer one has migrated: going back must not take the database back.

An older database would have forgotten which instructions were served and which budgets were spent. So:

1. A migration that only adds (tables, columns that may be empty or have a default, indexes that forbid nothing) says
   so: `ONLY_ADDS = True`. Whoever knew the schema before it reads and writes the schema after it.
2. Whoever migrates writes down, in the same transaction, every revision whose versions may open what it made, each
   beside the revision that it made.
3. A version that finds a revision it does not know looks whether its own newest one is written beside that. If not, it
   leaves the file alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, column, delete, insert, inspect, select, table

from federation.revisions import newest

# who opens a database of this very version migrates nothing, and does not wait for Alembic
if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

READERS_TABLE = "schema_reader"
_TABLE = Table(
    READERS_TABLE,
    MetaData(),
    Column("revision", String(32), primary_key=True),
    Column("of", String(32), nullable=False),
)


_VERSION = table("alembic_version", column("version_num"))


def is_newest(connection: Connection, migrations: Path) -> bool:
    """Whether a database is at the newest revision of the folder already."""
    if not inspect(connection).has_table(_VERSION.name):
        return False
    return list(connection.scalars(select(_VERSION.c.version_num))) == [newest(migrations)]


def readers(scripts: ScriptDirectory) -> tuple[str, ...]:
    """The newest revision, and those before it from which there is nothing but additions (1), the newest first."""
    found: list[str] = []
    revision = scripts.get_current_head()
    while revision is not None:
        found.append(revision)
        script = scripts.get_revision(revision)
        if script is None or getattr(script.module, "ONLY_ADDS", False) is not True:
            break
        before = script.down_revision
        revision = before if isinstance(before, str) else None
    return tuple(found)


def write_readers(connection: Connection, scripts: ScriptDirectory) -> None:
    """Write down whose database this is now (2)."""
    _TABLE.create(connection, checkfirst=True)
    connection.execute(delete(_TABLE))
    head = scripts.get_current_head()
    connection.execute(insert(_TABLE), [{"revision": revision, "of": head} for revision in readers(scripts)])


def may_read(connection: Connection, revision: str | None, head: str | None) -> bool:
    """Whether a version whose newest revision is `head` may open what a newer one brought to `revision` (3)."""
    if revision is None or head is None or not inspect(connection).has_table(READERS_TABLE):
        return False
    return (
        connection.execute(select(_TABLE).where(_TABLE.c.revision == head, _TABLE.c.of == revision)).first() is not None
    )
