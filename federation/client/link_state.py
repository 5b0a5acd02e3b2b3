"""What the link must not forget when it is killed: messages it has pulled, envelopes it has used, its Flower id.

A disk that takes no note is no reason to stop: what could not be noted is known until the link ends. Only a kill in
that time costs something: the message is served by nobody, and its round goes on without this site.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from durable.files import replace_file
from federation.files import make_folder

log = logging.getLogger("cloister.link")

# an envelope expires long before this many newer ones were used
_REMEMBERED = 10_000
# a hub has one a day and kind, since the site was last enrolled
_ALARMS = 1_000


class LinkState:
    """Small files in one folder: `pulled/<n>`, `used/<sha256 of an envelope>`, `node-id`, `alarms`."""

    def __init__(self, folder: Path) -> None:
        self._node_id, self._pulled, self._used = folder / "node-id", folder / "pulled", folder / "used"
        self._alarms = folder / "alarms"
        self._unnoted: dict[str, bytes] = {}
        self._unnoted_id: int | None = None
        self._unnoted_uses: set[str] = set()
        self._unnoted_alarms: set[str] = set()
        self._told = False
        for each in (folder, self._pulled, self._used):
            self._try(partial(make_folder, each))

    @property
    def node_id(self) -> int:
        """The id that Flower gave this node, 0 before the first activation."""
        if self._unnoted_id is not None:
            return self._unnoted_id
        try:
            return int(self._node_id.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    @node_id.setter
    def node_id(self, value: int) -> None:
        if value != self.node_id or self._unnoted_id is not None:
            noted = self._try(lambda: replace_file(self._node_id, str(value).encode("ascii")))
            self._unnoted_id = None if noted else value

    def alarm(self, text: str) -> None:
        """Remember that core knows of an alarm of the hub's."""
        known = [*self._known_alarms()[-_ALARMS:], text]
        if not self._try(lambda: replace_file(self._alarms, "\n".join(known).encode("ascii"))):
            self._unnoted_alarms.add(text)

    def alarmed(self, text: str) -> bool:
        return text in self._unnoted_alarms or text in self._known_alarms()

    def _known_alarms(self) -> list[str]:
        try:
            return self._alarms.read_text("ascii").splitlines()
        except (OSError, ValueError):
            return []

    def add(self, note: bytes) -> str:
        """Keep a pulled message's metadata; returns the name to be `done` with it."""
        name = hashlib.sha256(note).hexdigest()
        if not self._try(lambda: replace_file(self._pulled / name, note)):
            self._unnoted[name] = note
        return name

    def pending(self) -> Iterator[tuple[str, bytes]]:
        """Messages pulled and not done with, oldest first."""
        for path in _oldest_first(self._pulled):
            try:
                yield path.name, path.read_bytes()
            except OSError as error:
                log.error("a message's note cannot be read (%s)", type(error).__name__)
        yield from list(self._unnoted.items())

    def done(self, name: str) -> None:
        self._unnoted.pop(name, None)
        self._try(lambda: (self._pulled / name).unlink(missing_ok=True))

    def used(self, envelope: str) -> bool:
        """Whether this very envelope's objects were pushed before."""
        name = _digest(envelope)
        return name in self._unnoted_uses or (self._used / name).exists()

    def use(self, envelope: str) -> None:
        name = _digest(envelope)
        if not self._try(lambda: replace_file(self._used / name, b"")):
            self._unnoted_uses.add(name)
        for path in _oldest_first(self._used)[:-_REMEMBERED]:
            self._try(partial(os.unlink, path))

    def _try(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except OSError as error:
            if not self._told:
                log.error("the link's disk takes no notes (%s): they are kept in memory", error.strerror)
            self._told = True
            return False
        self._told = False
        return True


def _oldest_first(folder: Path) -> list[Path]:
    def made(path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except OSError:
            return 0

    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=made)
    except OSError:
        return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
