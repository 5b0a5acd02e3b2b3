"""What an installation changes on a machine, each change with how it is told, made and taken back.

A change is asked in this order: `needed` (is it not so already?), `before` (what must be known to take it back; kept in
the journal before anything happens), `apply`. `undo` is given what `before` said, and takes back as much of the change
as there is: a run may have been cut off in its middle.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from .engine import Engine
from .machine import Machine
from .talk import Fault

Before = dict[str, Any]
_JOURNALCTL = "journalctl -u 'cloister-*' says why"


@dataclass(frozen=True)
class Change:
    """One change. `path` is what it is about: two changes of one kind and path are the same one."""

    kind: ClassVar[str] = ""
    # whether an uninstallation has to take it back as well, or only the run that made it
    lasts: ClassVar[bool] = True
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
    return kind(**given)


def _flush(folder: Path) -> None:
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
    _flush(path.parent)


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
    _flush(path.parent)


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


@dataclass(frozen=True)
class Users(Change):
    """System users and groups, as a sysusers.d file declares them. Only those that we made are taken back."""

    kind: ClassVar[str] = "users"
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def describe(self) -> str:
        named = ", ".join(self.users) + (f"; groups {', '.join(self.groups)}" if self.groups else "")
        return f"make the system users {named} ({self.path})"

    def missing(self, machine: Machine) -> bool:
        return any(self._missing(machine))

    def _missing(self, machine: Machine) -> tuple[list[str], list[str]]:
        users, groups = machine.accounts(), machine.groups()
        return [each for each in self.users if each not in users], [each for each in self.groups if each not in groups]

    def needed(self, machine: Machine) -> bool:
        # always: memberships are told by the file as well, and systemd-sysusers makes only what is not there
        return True

    def before(self, machine: Machine) -> Before:
        users, groups = self._missing(machine)
        return {"users": users, "groups": groups}

    def apply(self, machine: Machine) -> None:
        root = [] if machine.real else [f"--root={machine.root}"]
        machine.must(["systemd-sysusers", *root, self.path], "the system users could not be made")
        users, groups = self._missing(machine)
        if users or groups:
            raise Fault(f"systemd-sysusers did not make {', '.join(users + groups)}", "see journalctl")

    def undo(self, machine: Machine, before: Before) -> None:
        there, groups = machine.accounts(), machine.groups()
        for user in before["users"]:
            if user in there:
                machine.must(["userdel", user], f"the user {user} could not be removed", "is a process of it running?")
        for group in {*before["groups"], *before["users"]} & groups & machine.groups():
            machine.must(["groupdel", group], f"the group {group} could not be removed")


@dataclass(frozen=True)
class Command(Change):
    """A program that is run once, where running it again does no harm and nothing has to be taken back."""

    kind: ClassVar[str] = "command"
    lasts: ClassVar[bool] = False
    words: tuple[str, ...] = ()
    hint: str = ""

    def describe(self) -> str:
        return f"run {' '.join(self.words)}"

    def needed(self, machine: Machine) -> bool:
        return bool(self.words)

    def before(self, machine: Machine) -> Before:
        return {}

    def apply(self, machine: Machine) -> None:
        machine.must(self.words, f"{self.path} failed", self.hint, timeout_s=300.0)

    def undo(self, machine: Machine, before: Before) -> None:
        pass


@dataclass(frozen=True)
class Reload(Change):
    """Has systemd read its units anew, after they were written; and, standing before them, after they went."""

    kind: ClassVar[str] = "reload"
    backwards: bool = False

    def describe(self) -> str:
        return "have systemd read its units"

    def needed(self, machine: Machine) -> bool:
        return True

    def before(self, machine: Machine) -> Before:
        return {}

    def apply(self, machine: Machine) -> None:
        if not self.backwards:
            machine.must(["systemctl", "daemon-reload"], "systemd did not read its units", timeout_s=60.0)

    def undo(self, machine: Machine, before: Before) -> None:
        if self.backwards:
            machine.run(["systemctl", "daemon-reload"], timeout_s=60.0)
            machine.run(["systemctl", "reset-failed", f"{self.path}*"], timeout_s=60.0)


@dataclass(frozen=True)
class Stopped(Change):
    """A target of systemd's that rests while its files are changed. Taken back, after them, it runs again."""

    kind: ClassVar[str] = "stopped"
    lasts: ClassVar[bool] = False
    units: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"stop {self.path}"

    def needed(self, machine: Machine) -> bool:
        return machine.run(["systemctl", "is-active", self.path]).done

    def before(self, machine: Machine) -> Before:
        return {}

    def apply(self, machine: Machine) -> None:
        machine.must(["systemctl", "stop", self.path, *self.units], f"{self.path} did not stop", timeout_s=180.0)

    def undo(self, machine: Machine, before: Before) -> None:
        machine.must(
            ["systemctl", "start", self.path], f"{self.path} did not start again", _JOURNALCTL, timeout_s=180.0
        )


@dataclass(frozen=True)
class Started(Change):
    """A target of systemd's that is enabled and runs; taken back, it is stopped and disabled."""

    kind: ClassVar[str] = "started"
    start: bool = True
    units: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"{'enable and start' if self.start else 'enable'} {self.path}"

    def needed(self, machine: Machine) -> bool:
        before = self.before(machine)
        return not before["enabled"] or (self.start and not before["active"])

    def before(self, machine: Machine) -> Before:
        return {
            "enabled": machine.run(["systemctl", "is-enabled", self.path]).done,
            "active": machine.run(["systemctl", "is-active", self.path]).done,
        }

    def apply(self, machine: Machine) -> None:
        machine.must(["systemctl", "enable", self.path], f"{self.path} could not be enabled")
        if not self.start:
            return
        machine.must(["systemctl", "start", self.path], f"{self.path} did not start", _JOURNALCTL, timeout_s=180.0)
        # a target that only wants its services is up whatever became of them
        end = time.monotonic() + machine.patience_s
        while down := [unit for unit in self.units if not machine.run(["systemctl", "is-active", unit]).done]:
            states = [machine.run(["systemctl", "is-failed", unit]) for unit in down]
            if any(state.done for state in states) or time.monotonic() > end:
                raise Fault(f"{down[0]} does not run", f"journalctl -u {down[0]} says why")
            time.sleep(0.5)

    def undo(self, machine: Machine, before: Before) -> None:
        if not before["active"]:
            machine.run(["systemctl", "stop", self.path, *self.units], timeout_s=180.0)
        if not before["enabled"]:
            machine.run(["systemctl", "disable", self.path])


@dataclass(frozen=True)
class Packages(Change):
    """Debian packages out of an opened bundle. Those that were not there before go again."""

    kind: ClassVar[str] = "packages"
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), metadata={"kept": False})

    def describe(self) -> str:
        return f"install the Debian packages {', '.join(self.names)}"

    def needed(self, machine: Machine) -> bool:
        return bool(self.names)

    def before(self, machine: Machine) -> Before:
        return {"packages": list(self.names)}

    def apply(self, machine: Machine) -> None:
        machine.must(
            ["dpkg", "--install", *self.files], "the Debian packages could not be installed",
            "dpkg --audit says which", timeout_s=600.0, extra={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip

    def undo(self, machine: Machine, before: Before) -> None:
        machine.must(
            ["dpkg", "--purge", *before["packages"]], "the Debian packages could not be removed",
            timeout_s=600.0, extra={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip


@dataclass(frozen=True)
class Image(Change):
    """An image that the engine is given under a name. `get` has it there; one that was there before stays."""

    kind: ClassVar[str] = "image"
    engine: str = ""
    get: Callable[[], object] | None = field(default=None, compare=False, metadata={"kept": False})

    def describe(self) -> str:
        return f"have the engine at {self.engine} hold the image {self.path}"

    def needed(self, machine: Machine) -> bool:
        return True

    def before(self, machine: Machine) -> Before:
        return {"there": Engine(machine, self.engine).has(self.path)}

    def apply(self, machine: Machine) -> None:
        if self.get is not None:
            self.get()

    def undo(self, machine: Machine, before: Before) -> None:
        if not before["there"]:
            Engine(machine, self.engine).remove(self.path)


_ALL = (Folder, File, Gone, Link, Tree, Users, Command, Reload, Stopped, Started, Packages, Image)
KINDS: dict[str, type[Change]] = {each.kind: each for each in _ALL}
