"""What the hub's overview reads by hand is what its tables hold."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from federation.hub import overview
from federation.hub.overview import Overview
from federation.hub.tables import HubBase
from mediator.errors import IntegrityBroken, NotNow, UsageFault


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The tables as SQLAlchemy makes them, and what a migrated one has besides."""
    path = tmp_path / "hub.db"
    HubBase.metadata.create_all(engine := create_engine(f"sqlite:///{path}"))
    engine.dispose()
    return path


def test_every_question_finds_its_tables_and_columns(database: Path) -> None:
    asked = Overview(database)
    assert (asked.nodes(), asked.alarms(), asked.runs(), asked.events(0), asked.events(5)) == ([], [], [], [], [])
    with pytest.raises(UsageFault):
        asked.history("no-such-run")
    run = ("r", "p", 2, "done", "", 1, 1, 1, 0, "0" * 64, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    with sqlite3.connect(database) as writer:
        writer.execute(f"INSERT INTO runs VALUES ({','.join('?' * len(run))})", run)
    (line,) = asked.runs()
    assert line["permit"] == "p@2" and asked.history("r") == line | {"attempts": [], "rounds": [], "exports": []}


def test_a_name_in_a_question_is_a_column(database: Path) -> None:
    """A double-quoted or misspelt name would be a text to SQLite, and every answer the same."""
    for listed in (overview._EVENT, re.sub(r"'@'", "", overview._RUN)):
        for name in re.findall(r"[a-z_][a-z_0-9]*", listed):
            known = {column.name for table in HubBase.metadata.tables.values() for column in table.columns}
            assert name in known | {"as"} | {"rounds_ordered"}, name


def test_a_database_of_no_version_of_ours_is_not_current(database: Path) -> None:
    assert not Overview(database).is_current()


def test_a_damaged_file_and_a_missing_one_are_told_apart(database: Path) -> None:
    with pytest.raises(NotNow):
        Overview(database.with_name("none.db")).runs()
    assert not database.with_name("none.db").exists()
    database.write_bytes(b"no database at all" * 1000)
    with pytest.raises(IntegrityBroken):
        Overview(database).runs()
