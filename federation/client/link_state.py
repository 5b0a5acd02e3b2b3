"""What the link must not forget when it is killed: messages it has pulled, envelopes it has used, its Flower id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from durable.files import replace_file
from federation.files import make_folder

# an envelope expires long before this many newer ones were used
_REMEMBERED = 10_000
# a hub has one a day and kind, since the site was last enrolled
_ALARMS = 1_000


class LinkState:
    """Small files in one folder: `pulled/<n>`, `used/<sha256 of an envelope>`, `node-id`, `alarms`."""

    def __init__(self, folder: Path) -> None:
        self._node_id = make_folder(folder) / "node-id"
        self._alarms = folder / "alarms"
        self._pulled = make_folder(folder / "pulled")
        self._used = make_folder(folder / "used")

    @property
    def node_id(self) -> int:
        """The id that Flower gave this node, 0 before the first activation."""
        try:
            return int(self._node_id.read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    @node_id.setter
    def node_id(self, value: int) -> None:
        if value != self.node_id:
            replace_file(self._node_id, str(value).encode("ascii"))

    def alarm(self, text: str) -> None:
        """Remember that core knows of an alarm of the hub's."""
        known = self._alarms.read_text("ascii").splitlines() if self._alarms.exists() else []
        replace_file(self._alarms, "\n".join([*known[-_ALARMS:], text]).encode("ascii"))

    def alarmed(self, text: str) -> bool:
        return self._alarms.exists() and text in self._alarms.read_text("ascii").splitlines()

    def add(self, note: bytes) -> str:
        """Keep a pulled message's metadata; returns the name to be `done` with it."""
        name = hashlib.sha256(note).hexdigest()
        replace_file(self._pulled / name, note)
        return name

    def pending(self) -> Iterator[tuple[str, bytes]]:
        """Messages pulled and not done with, oldest first."""
        names = [path for path in self._pulled.iterdir() if not path.name.startswith(".")]
        for path in sorted(names, key=lambda path: path.stat().st_mtime_ns):
            yield path.name, path.read_bytes()

    def done(self, name: str) -> None:
        (self._pulled / name).unlink(missing_ok=True)

    def used(self, envelope: str) -> bool:
        """Whether this very envelope's objects were pushed before."""
        return (self._used / _digest(envelope)).exists()

    def use(self, envelope: str) -> None:
        replace_file(self._used / _digest(envelope), b"")
        names = sorted(self._used.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in names[:-_REMEMBERED]:
            os.unlink(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
