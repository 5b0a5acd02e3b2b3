"""The journal of a run: what was changed and how it was before, written down before each change is made.

1. A line is on the disk before its change is made. Whatever ends a run leaves enough to take it back.
2. A run that fails takes its own changes back, the newest first; one that was cut off is taken back by the next.
3. A run whose account was written is done, and one that set a node or hub to work cannot be taken back without its
   data: the next run takes neither back. It writes the account that is missing, and goes on.
4. A run that is done adds its changes to `installed.json`: that is what an uninstallation takes back. Of a thing that
   was changed twice, the state before the first change counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import layout
from .changes import Before, Change, File, flush, from_plain
from .machine import Machine
from .talk import BROKEN, Fault, say


@dataclass(frozen=True)
class Made:
    """A change that was made, and what was there before."""

    change: Change
    before: Before

    def plain(self) -> dict[str, Any]:
        return {"change": self.change.plain(), "before": self.before}


@dataclass(frozen=True)
class Installed:
    """What is installed on this machine, and everything that was changed for it."""

    role: layout.Role
    version: str
    previous: str | None = None
    copy: str | None = None
    made: tuple[Made, ...] = field(default=(), repr=False)

    def named(self) -> dict[str, Any]:
        return {"role": self.role, "version": self.version, "previous": self.previous, "copy": self.copy}

    def plain(self) -> dict[str, Any]:
        return {"format": 1, **self.named(), "made": [each.plain() for each in self.made]}


def read_installed(machine: Machine) -> Installed | None:
    """What is installed here, or None. Raises `Fault` where the account of it cannot be read."""
    path = machine.at(layout.INSTALLED)
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_text("utf-8"))
        made = tuple(Made(from_plain(each["change"]), each["before"]) for each in plain["made"])
        return Installed(plain["role"], plain["version"], plain["previous"], plain["copy"], made)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Fault(f"{layout.INSTALLED} cannot be read ({type(error).__name__})", "restore it", BROKEN) from None


def record(installed: Installed) -> File:
    """The last change of a run: its account. Until it is made, and the journal gone, the run did not happen."""
    return File(layout.INSTALLED, json.dumps(installed.plain(), indent=1) + "\n", 0o600)


def merged(old: tuple[Made, ...], new: tuple[Made, ...]) -> tuple[Made, ...]:
    """Both accounts as one: each change once, in the order of its first time, with the state before that (4)."""
    found: dict[str, Made] = {}
    for each in (*old, *(entry for entry in new if entry.change.lasts)):
        first = found.get(each.change.key)
        found[each.change.key] = Made(each.change, _first(first.before, each.before) if first else each.before)
    return tuple(found.values())


def _first(old: Before, new: Before) -> Before:
    """The state before the first of two changes. What each of them brought (users, packages) is listed once."""
    lists = {name: value for name, value in new.items() if isinstance(value, list)}
    return {**old, **{name: [*dict.fromkeys([*old.get(name, []), *value])] for name, value in lists.items()}}


class Journal:
    """The changes of one run. As a context: what raises inside has its changes taken back."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._path = machine.at(layout.JOURNAL)
        self._folder_there = self._path.parent.is_dir()
        self._ends: Installed | None = None
        self.made: list[Made] = []

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND, 0o600)
        self._file = os.fdopen(handle, "w")
        self._write({"format": 1, "folder_there": self._folder_there})
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self._file.close()
        if kind is None:
            _forget(self._machine, True)
            return
        if self.made:
            say("taking back what was done")
        _back_or_on(self._machine, self.made, self._folder_there, self._ends)

    def ends(self, installed: Installed) -> None:
        """What will be installed when the run is done: for whoever cannot take it back any more (3)."""
        self._write({"ends": installed.named()})
        self._ends = installed

    def where(self, path: str) -> Path:
        """Where a file of the machine is to be read."""
        return self._machine.at(path)

    def do(self, change: Change) -> bool:
        """Make a change, if it is needed. Whether it was."""
        if not change.needed(self._machine):
            return False
        entry = Made(change, change.before(self._machine))
        self._write(entry.plain())  # (1)
        self.made.append(entry)
        say(f"  {change.describe()}")
        try:
            change.apply(self._machine)
        except OSError as error:
            raise Fault(f"could not {change.describe()}: {error.strerror or error}", _disk_hint(error)) from error
        return True

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise Fault(f"the journal could not be written: {error.strerror}", _disk_hint(error)) from error


def _disk_hint(error: OSError) -> str:
    return "make room on the disk" if error.errno in (28, 122) else ""


def take_back(machine: Machine, made: list[Made]) -> list[Made]:
    """Undo changes, the newest first. What cannot be undone is told and returned, and the others are undone all the
    same; but for what came before a change that holds, which is then the last of those returned.

    Nobody's impatience leaves it half done: what interrupts is not heard meanwhile.
    """
    failed = []
    with _undisturbed():
        for entry in reversed(made):
            try:
                entry.change.undo(machine, entry.before)
            except (Fault, OSError) as error:
                say(f"warning: not taken back: {entry.change.describe()}: {error}")
                failed.append(entry)
                if entry.change.holds:
                    break
    return failed


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    were = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, was in were.items():
            signal.signal(each, signal.SIG_DFL if was is None else was)


def _back_or_on(machine: Machine, made: list[Made], folder_there: bool, ends: Installed | None) -> None:
    """Take a run back; where that went only as far as a change that holds, account for it instead."""
    with _undisturbed():
        failed = take_back(machine, made)
        if ends is not None and any(each.change.holds for each in failed):
            say(f"warning: {ends.version} stays, for the version before cannot go on from here")
            _account_for(machine, made, ends)
            folder_there = True
        _forget(machine, folder_there)


def _forget(machine: Machine, folder_there: bool) -> None:
    path = machine.at(layout.JOURNAL)
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        flush(path.parent)  # a journal that came back with the power would take back a run that is done
    if not folder_there:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def recover(machine: Machine) -> bool:
    """Take back a run that was cut off, or finish it where that is too late (3). Whether there was one."""
    if not machine.at(layout.JOURNAL).exists():
        return False
    made, folder_there, ends = _read(machine.at(layout.JOURNAL))
    if _recorded(machine, made):
        say("a run before this one was cut off after its last change: it is done")
        _forget(machine, True)
        return True
    if _at_work(machine, made):
        if ends is None:
            raise Fault(f"{layout.JOURNAL} would take back what is at work", "move it away", BROKEN)
        say(f"a run before this one was cut off, and what it installed has been at work: {ends.version} stays")
        _account_for(machine, made, ends)
        _forget(machine, True)
        return True
    say(f"a run before this one was cut off after {len(made)} changes: taking them back")
    _back_or_on(machine, made, folder_there, ends)
    return True


def _recorded(machine: Machine, made: list[Made]) -> bool:
    """Whether the last change of a run, its account, was made."""
    last = made[-1] if made else None
    if last is None or last.change.key != f"{File.kind} {layout.INSTALLED}":
        return False
    return last.change.before(machine) != last.before


def _at_work(machine: Machine, made: list[Made]) -> bool:
    """Whether a run made a state folder, and services were started over it."""
    keys = {each.change.key for each in made}
    started = any(each.change.kind == "started" for each in made)
    roles = [role for role in layout.ROLES if f"tree {layout.state(role)}" in keys]
    return started and any(_used(machine, role) for role in roles)


def _used(machine: Machine, role: layout.Role) -> bool:
    audit = machine.at(layout.state(role)) / "audit"
    return machine.at(layout.database(role)).exists() or (audit.is_dir() and any(audit.iterdir()))


def _account_for(machine: Machine, made: list[Made], ends: Installed) -> None:
    """Write the account that a run did not come to write."""
    before = read_installed(machine)
    new = tuple(each for each in made if each.change.path != layout.INSTALLED)
    record(replace(ends, made=merged(before.made if before else (), new))).apply(machine)


def _read(path: Path) -> tuple[list[Made], bool, Installed | None]:
    """The changes of a journal, and what ends it. Its last line may be half written: that change was not made yet."""
    made, folder_there, ends = [], True, None
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            plain = json.loads(line)
        except ValueError:
            if number == len(lines) - 1:
                break
            raise Fault(f"{layout.JOURNAL} is damaged", "undo by hand what it lists, and remove it", BROKEN) from None
        if "change" in plain:
            made.append(Made(from_plain(plain["change"]), plain["before"]))
        elif "ends" in plain:
            ends = Installed(**plain["ends"])
        else:
            folder_there = bool(plain.get("folder_there", True))
    return made, folder_there, ends


@contextlib.contextmanager
def alone(machine: Machine) -> Iterator[None]:
    """One run at a time."""
    path = machine.at(layout.LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Fault("another installation is running on this machine", "wait for it to end") from None
    try:
        yield
    finally:
        os.close(handle)  # the file stays: whoever waits for it has it open already
