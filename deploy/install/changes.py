"""What an installation changes on a machine, each change with how it is told, made and taken back.

A change is asked in this order: `needed` (is it not so already?), `before` (what must be known to take it back; kept in
the journal before anything happens), `apply`. `undo` is given what `before` said, and takes back as much of the change
as there is: a run may have been cut off in its middle.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from .machine import Machine
from .talk import Fault

Before = dict[str, Any]
# every kind of change that a journal may hold; each module that has some adds its own
KINDS: dict[str, type[Change]] = {}


@dataclass(frozen=True)
class Change:
    """One change. `path` is what it is about: two changes of one kind and path are the same one."""

    kind: ClassVar[str] = ""
    # whether an uninstallation has to take it back as well, or only the run that made it
    lasts: ClassVar[bool] = True
    # whether nothing before it may be taken back where this cannot be
    holds: ClassVar[bool] = False
    path: str

    @property
    def key(self) -> str:
        return f"{self.kind} {self.path}"

    def describe(self) -> str:
        raise NotImplementedError

    def needed(self, machine: Machine) -> bool:
        raise NotImplementedError

    def before(self, machine: Machine) -> Before:
        raise NotImplementedError

    def apply(self, machine: Machine) -> None:
        raise NotImplementedError

    def undo(self, machine: Machine, before: Before) -> None:
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """The change as the journal keeps it: enough to take it back, and no more."""
        kept = {item.name: getattr(self, item.name) for item in fields(self) if item.metadata.get("kept", True)}
        return {"kind": self.kind, **kept}


def from_plain(plain: dict[str, Any]) -> Change:
    """A change out of the journal: good for `undo` alone."""
    words: dict[str, Any] = dict(plain)
    kind = KINDS.get(str(words.pop("kind")))
    if kind is None:
        raise Fault("the journal holds a change that this installer does not know", "use the installer that began it")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in words.items()}
    try:
        return kind(**given)
    except TypeError:
        raise Fault(
            f"the account of a change ({kind.kind}) holds a word that this installer does not know",
            "use the installer that began it",
        ) from None


def flush(folder: Path) -> None:
    """See to it that what was made, renamed or removed in a folder stays so, whatever ends the machine."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all: under another name, flushed, then renamed."""
    ahead = path.with_name(f".{path.name}.new")
    ahead.unlink(missing_ok=True)
    handle = os.open(ahead, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        ahead.rename(path)
    except BaseException:
        ahead.unlink(missing_ok=True)
        raise
    flush(path.parent)


@dataclass(frozen=True)
class Folder(Change):
    """A folder of root's, with its mode."""

    kind: ClassVar[str] = "folder"
    mode: int = 0o755

    def describe(self) -> str:
        return f"make the folder {self.path} ({self.mode:04o})"

    def needed(self, machine: Machine) -> bool:
        return not machine.at(self.path).is_dir()

    def before(self, machine: Machine) -> Before:
        if os.path.lexists(machine.at(self.path)) and not machine.at(self.path).is_dir():
            raise Fault(f"{self.path} is there and is no folder", "move it away")
        return {"there": machine.at(self.path).is_dir()}

    def apply(self, machine: Machine) -> None:
        missing = [each for each in (self.path, *map(str, Path(self.path).parents)) if not machine.at(each).exists()]
        for each in reversed(missing):
            machine.at(each).mkdir(mode=0o755)
        machine.at(self.path).chmod(self.mode)

    def undo(self, machine: Machine, before: Before) -> None:
        if not before["there"]:
            try:
                machine.at(self.path).rmdir()
            except OSError:
                pass  # somebody's own files lie in it: whoever tells what is left names it


@dataclass(frozen=True)
class File(Change):
    """A file with exactly this content. What stood there before is kept in the journal, and comes back."""

    kind: ClassVar[str] = "file"
    content: str = field(default="", metadata={"kept": False})
    mode: int = 0o644

    def describe(self) -> str:
        return f"write {self.path} ({self.mode:04o}, {len(self.content.encode())} bytes)"

    def needed(self, machine: Machine) -> bool:
        path = machine.at(self.path)
        try:
            return (
                path.is_symlink()
                or path.read_bytes() != self.content.encode()
                or path.stat().st_mode & 0o7777 != self.mode
            )
        except OSError:
            return True

    def before(self, machine: Machine) -> Before:
        return _file_before(machine.at(self.path))

    def apply(self, machine: Machine) -> None:
        machine.at(self.path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(machine.at(self.path), self.content.encode(), self.mode)

    def undo(self, machine: Machine, before: Before) -> None:
        _file_undo(machine.at(self.path), before)


@dataclass(frozen=True)
class Gone(Change):
    """A file or link of ours that a version no longer has."""

    kind: ClassVar[str] = "gone"

    def describe(self) -> str:
        return f"remove {self.path}"

    def needed(self, machine: Machine) -> bool:
        return os.path.lexists(machine.at(self.path))

    def before(self, machine: Machine) -> Before:
        return _file_before(machine.at(self.path))

    def apply(self, machine: Machine) -> None:
        machine.at(self.path).unlink()

    def undo(self, machine: Machine, before: Before) -> None:
        _file_undo(machine.at(self.path), before)


def _file_before(path: Path) -> Before:
    if path.is_symlink():
        return {"link": os.readlink(path)}
    if not path.exists():
        return {}
    return {"content": base64.b64encode(path.read_bytes()).decode(), "mode": path.stat().st_mode & 0o7777}


def _file_undo(path: Path, before: Before) -> None:
    path.with_name(f".{path.name}.new").unlink(missing_ok=True)
    if "content" in before:
        write_whole(path, base64.b64decode(before["content"]), before["mode"])
    else:
        path.unlink(missing_ok=True)
        if "link" in before:
            path.symlink_to(before["link"])


@dataclass(frozen=True)
class Link(Change):
    """A symbolic link, switched in one step."""

    kind: ClassVar[str] = "link"
    target: str = ""

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"

    def needed(self, machine: Machine) -> bool:
        path = machine.at(self.path)
        return not path.is_symlink() or os.readlink(path) != self.target

    def before(self, machine: Machine) -> Before:
        path = machine.at(self.path)
        if os.path.lexists(path) and not path.is_symlink():
            raise Fault(f"{self.path} is there and is no link of ours", "move it away")
        return {"link": os.readlink(path)} if path.is_symlink() else {}

    def apply(self, machine: Machine) -> None:
        path = machine.at(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _switch(path, self.target)

    def undo(self, machine: Machine, before: Before) -> None:
        path = machine.at(self.path)
        path.with_name(f".{path.name}.new").unlink(missing_ok=True)
        if "link" in before:
            _switch(path, before["link"])
        else:
            path.unlink(missing_ok=True)


def _switch(path: Path, target: str) -> None:
    ahead = path.with_name(f".{path.name}.new")
    ahead.unlink(missing_ok=True)
    ahead.symlink_to(target)
    ahead.rename(path)
    flush(path.parent)


@dataclass(frozen=True)
class Tree(Change):
    """A folder that something makes, and that goes whole when it is taken back."""

    kind: ClassVar[str] = "tree"
    what: str = ""
    make: Callable[[Machine, Path], None] | None = field(default=None, compare=False, metadata={"kept": False})

    def describe(self) -> str:
        return f"make {self.path}: {self.what}"

    def needed(self, machine: Machine) -> bool:
        return not machine.at(self.path).exists()

    def before(self, machine: Machine) -> Before:
        return {"there": machine.at(self.path).exists()}

    def apply(self, machine: Machine) -> None:
        if self.make is not None:
            self.make(machine, machine.at(self.path))

    def undo(self, machine: Machine, before: Before) -> None:
        if not before["there"]:
            shutil.rmtree(machine.at(self.path), ignore_errors=True)


KINDS.update({each.kind: each for each in (Folder, File, Gone, Link, Tree)})
