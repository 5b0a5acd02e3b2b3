"""Finished files searched once more: for what only later files of the same patient lost (the residual check, whole).

A file is searched when it is written, for all that was lost until then. What the files after it lose is searched for
at the end, in every byte outside the pixel stream as it then stands on disk, and in its name.

    searcher = Searcher(table, vr_of)
    for path, lost in reversed(written):      # (finished file, what it was the first to lose)
        suspect = searcher.finds(path)        # holds something of the files after it
        searcher.lost(lost)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mediator.deid.rules import Action, Table
from node.deid.reader import Parsed, Reader
from node.deid.residue import Residue, plain
from node.deid.stream import FileStream
from node.deid.structure import Node, Unreadable, VrOf

# VRs whose values have no shape: kept as they are, they may be anybody's words
_WORDS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])


class Searcher:
    """Lost values, and the files they are looked for in."""

    def __init__(self, table: Table, vr_of: VrOf) -> None:
        self._kept = {tag for tag, rule in table.rules.items() if rule.action is Action.KEEP and _WORDS & set(rule.vrs)}
        self._reader = Reader(vr_of)
        self._residue = Residue()

    def lost(self, values: Iterable[bytes]) -> None:
        """Look for these from now on, too."""
        self._residue.lost(values)

    def finds(self, path: Path, name: str = "") -> bool:
        """Whether a finished file holds one of the values, by chance or not; `name`, where it is still to be moved to.

        A file that cannot be taken apart any more counts as one that does. Short values convict as whole values only,
        where a profile keeps words as they are.
        """
        if not self._residue.count:
            return False
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            stream = FileStream(handle)
            try:
                parsed = self._reader.parse(stream)
            except Unreadable:
                return True
            start, end = (parsed.pixels.start, parsed.pixels.end) if parsed.pixels else (stream.size, stream.size)
            around = b"\0".join((stream.read(0, start), stream.read(end, stream.size - end), os.fsencode(name)))
            return next(self._residue.search(around), None) is not None or self._keeps_short(parsed)
        finally:
            os.close(handle)

    def _keeps_short(self, parsed: Parsed) -> bool:
        short = self._residue.whole
        if not self._kept or not short:
            return False
        values = (value for node in _all(parsed.nodes) if node.tag in self._kept for value in node.value.split(b"\\"))
        return any(plain(value) in short for value in values)


def _all(nodes: Iterable[Node]) -> Iterator[Node]:
    """The elements at any depth."""
    for node in nodes:
        yield node
        for item in node.items or ():
            yield from _all(item)
