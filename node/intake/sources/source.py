"""What intake asks of a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from node.deid.source_folder import SourceEntry


class OriginalSource(Protocol):
    """Originals one by one, and a clinical table beside them."""

    def check(self) -> None:
        """Before anything is taken in. Raises `UsageFault` where nothing can be read."""

    def entries(self) -> Iterator[SourceEntry]:
        """Each original with a name that stays the same, and a descriptor to read or the reason for none."""

    def table(self) -> bytes | None:
        """The clinical table of the order, if it names one. Raises `UsageFault`."""
