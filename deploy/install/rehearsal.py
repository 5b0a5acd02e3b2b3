"""A dry run: every change is told, and none is made.

The version's folder is made all the same, in a temporary place that goes at the end: only the version itself can say
which units, users and folders it wants.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from . import layout
from .changes import Change, File, Tree, write_whole
from .machine import Machine
from .talk import say

_TOPS = ("/var/tmp", "/run")  # noqa: S108 - folders of our own in them, with names that nobody knows


class Rehearsal:
    """A recorder that makes nothing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folders: tuple[Path, Path] | None = None

    def __enter__(self) -> Rehearsal:
        # a configuration has to lie where a service would see it, which is nowhere below a folder of temporary files
        trees, files = (tempfile.mkdtemp(prefix="cloister-dry-run-", dir=self._machine.at(top)) for top in _TOPS)
        self._folders = Path(trees), Path(files)
        return self

    def __exit__(self, *_what: object) -> None:
        for folder in self._folders or ():
            shutil.rmtree(folder, ignore_errors=True)

    def where(self, path: str) -> Path:
        """Where a file of the machine is to be read: as it would be, or as it is."""
        ahead = self._ahead(path)
        return ahead if ahead.exists() else self._machine.at(path)

    def _ahead(self, path: str) -> Path:
        assert self._folders is not None
        trees, files = self._folders
        return (files if path.startswith(layout.CONFIGURATION) else trees) / path.lstrip("/")

    def do(self, change: Change) -> bool:
        if not change.needed(self._machine):
            return False
        say(f"would {change.describe()}")
        ahead = self._ahead(change.path)
        if isinstance(change, Tree) and change.path.startswith(layout.HOME) and change.make is not None:
            ahead.parent.mkdir(parents=True, exist_ok=True)
            change.make(self._machine, ahead)
        elif isinstance(change, File) and change.path.startswith(layout.CONFIGURATION):
            write_whole(make_parent(ahead), change.content.encode(), 0o644)
        return True


def make_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
