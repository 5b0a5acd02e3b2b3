"""A hospital's folder as a source of originals (`node.deid.source_folder` walks it without trust)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from node.deid import source_folder
from node.deid.source_folder import SourceEntry
from node.intake.clinical import MAX_CSV_BYTES


@dataclass(frozen=True)
class HospitalFolder:
    """`path` is absolute; `clinical` names a CSV file inside it, which is no original."""

    path: str = field(repr=False)
    clinical: str | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raise `UsageFault` where not one original can be opened."""
        source_folder.look(self.path, skip=self.clinical)

    def entries(self) -> Iterator[SourceEntry]:
        """Every original; whoever takes it closes its handle. In the same order every time, for an import that was
        broken off takes in what it does not know yet."""
        return source_folder.walk(self.path, skip=self.clinical)

    def table(self) -> bytes | None:
        """The clinical table, one byte more than its limit at most. Raises `UsageFault`."""
        if self.clinical is None:
            return None
        with os.fdopen(source_folder.open_inside(self.path, self.clinical), "rb") as file:
            return file.read(MAX_CSV_BYTES + 1)
