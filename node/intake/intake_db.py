"""`intake.db`: which source number stands for which path, while an order is being taken in; then it is deleted.

It is the one place that knows a path, is readable by intake alone (0600), and never leaves its folder. A run that was
broken off finds here what is already in quarantine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mediator.errors import UnsupportedVersion

_VERSION = 1
_SCHEMA = """
CREATE TABLE source (
    number INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    quarantined TEXT,
    refused TEXT,
    CHECK ((quarantined IS NULL) <> (refused IS NULL))
) STRICT;
"""


@dataclass(frozen=True)
class SourceFile:
    """One source: its number (`src#0042` in every message), and its quarantine name or why it was not taken."""

    number: int
    quarantined: str | None
    refused: str | None


class IntakeDb:
    """The sources of one order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        self._db.execute("PRAGMA secure_delete = ON")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise UnsupportedVersion("intake.db is of another version", hint="finish the order with that version")

    def knows(self, path: str) -> bool:
        """Whether this source was dealt with before the run was broken off."""
        return self._db.execute("SELECT 1 FROM source WHERE path = ?", (_raw(path),)).fetchone() is not None

    def add(self, path: str, *, quarantined: str | None = None, refused: str | None = None) -> None:
        """Record a source under the next number."""
        self._db.execute(
            "INSERT INTO source (path, quarantined, refused) VALUES (?, ?, ?)", (_raw(path), quarantined, refused)
        )

    def sources(self) -> Iterator[SourceFile]:
        """Every source in the order of its number."""
        for row in self._db.execute("SELECT number, quarantined, refused FROM source ORDER BY number").fetchall():
            yield SourceFile(*row)

    def close(self) -> None:
        self._db.close()

    def delete(self) -> None:
        """Close it and remove the file."""
        self.close()
        self._path.unlink(missing_ok=True)
        Path(f"{self._path}-journal").unlink(missing_ok=True)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
