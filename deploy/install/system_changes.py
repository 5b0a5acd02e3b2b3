"""What an installation changes through programs of the system: users, services, packages, the engine's images."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from . import layout
from .changes import KINDS, Before, Change
from .engine import CLASSIC_STORE, DAEMON, Engine, find_engine, kept_by_engines
from .machine import Machine
from .talk import Fault, say

_ENGINE_S = 60.0
_START_S = 180.0
_TELL_S = 30.0
# our units are started again for ever: one that ended so often since it was started is not waited for
_RESTARTS = 3
_TIMEOUT = re.compile(r"^TimeoutStartSec=(\d+)$", re.MULTILINE)
_JOURNALCTL = "journalctl -u 'cloister-*' says why"


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
    """A target of systemd's that rests while its files are changed. Taken back, after them, what ran runs again.

    Its units may run without it: somebody started one alone.
    """

    kind: ClassVar[str] = "stopped"
    lasts: ClassVar[bool] = False
    units: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"stop {self.path}"

    def needed(self, machine: Machine) -> bool:
        return bool(self._running(machine))

    def _running(self, machine: Machine) -> list[str]:
        return [unit for unit in (self.path, *self.units) if _runs(machine, unit)]

    def before(self, machine: Machine) -> Before:
        return {"running": self._running(machine)}

    def apply(self, machine: Machine) -> None:
        machine.must(["systemctl", "stop", self.path, *self.units], f"{self.path} did not stop", timeout_s=180.0)

    def undo(self, machine: Machine, before: Before) -> None:
        # a journal of before this was asked says nothing of it: then it was the target
        running = before.get("running", [self.path])
        what = [self.path] if self.path in running else running
        _start(machine, what, self.units, f"{self.path} did not start again")


def _runs(machine: Machine, unit: str) -> bool:
    """Whether a unit has processes: one that still starts, or still stops, is not active and has."""
    answer = machine.run(["systemctl", "is-active", unit])
    return answer.done or answer.out.strip() in ("activating", "deactivating", "reloading")


def _gave_up(machine: Machine, unit: str) -> bool:
    """Whether a unit that is down will hardly come up: it failed, or ended each time it was started again."""
    if machine.run(["systemctl", "is-failed", unit]).done:
        return True
    told = machine.run(["systemctl", "show", "--property=NRestarts", "--value", unit]).out.strip()
    return told.isdecimal() and int(told) >= _RESTARTS


def _start(machine: Machine, what: Sequence[str], units: Sequence[str], failed: str) -> None:
    """Start units, as long as systemd itself waits for them: the first start of a version migrates its database."""
    ended = threading.Event()

    def tell() -> None:
        since = time.monotonic()
        while not ended.wait(_TELL_S):
            say(f"  {what[0]} still starts, after {time.monotonic() - since:.0f} s: journalctl -f -u 'cloister-*'")

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        machine.must(["systemctl", "start", *what], failed, _JOURNALCTL, timeout_s=start_timeout_s(machine, units))
    finally:
        ended.set()
        telling.join()


def start_timeout_s(machine: Machine, units: Sequence[str]) -> float:
    """How long these units may take: one after the other, each as long as it says, and something over."""
    texts = [machine.text(f"{layout.UNITS}/{unit}") for unit in units]
    return _START_S + sum(float(each) for text in texts for each in _TIMEOUT.findall(text))


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
        _start(machine, [self.path], self.units, f"{self.path} did not start")
        # a target that only wants its services is up whatever became of them
        end = time.monotonic() + machine.patience_s
        while down := [unit for unit in self.units if not machine.run(["systemctl", "is-active", unit]).done]:
            if any(_gave_up(machine, unit) for unit in down) or time.monotonic() > end:
                raise Fault(f"{down[0]} does not run", f"journalctl -u {down[0]} says why")
            time.sleep(0.5)

    def undo(self, machine: Machine, before: Before) -> None:
        if not before["active"]:
            machine.run(["systemctl", "stop", self.path, *self.units], timeout_s=180.0)
        if not before["enabled"]:
            machine.run(["systemctl", "disable", self.path])


@dataclass(frozen=True)
class Packages(Change):
    """Debian packages out of an opened bundle.

    A run that fails removes those that were not there before, and never purges one: that would delete what an engine
    keeps for others. Where an engine's folder was there before, and at an uninstallation, they stay. An engine that is
    told nothing yet is told how to name images, and that goes and stays with it.
    """

    kind: ClassVar[str] = "packages"
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), metadata={"kept": False})
    # whether an engine is among them, which is waited for
    engine: bool = field(default=False, metadata={"kept": False})

    def describe(self) -> str:
        return f"install the Debian packages {', '.join(self.names)}"

    def needed(self, machine: Machine) -> bool:
        return bool(self.names)

    def before(self, machine: Machine) -> Before:
        told = machine.at(DAEMON).exists() or "docker.io" not in self.names
        kept = kept_by_engines(machine) if self.engine else []
        return {"packages": list(self.names), "kept": kept, "told": told}

    def apply(self, machine: Machine) -> None:
        daemon = machine.at(DAEMON)
        if "docker.io" in self.names and not daemon.exists():  # before its package starts it
            daemon.parent.mkdir(mode=0o755, exist_ok=True)
            daemon.write_text(CLASSIC_STORE)
        machine.must(
            ["dpkg", "--install", *self.files], "the Debian packages could not be installed",
            "dpkg --audit says which", timeout_s=600.0, extra={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        if self.engine:
            machine.run(["systemctl", "start", "docker.socket", "podman.socket"])
            until = time.monotonic() + _ENGINE_S
            while find_engine(machine) is None and time.monotonic() < until:
                time.sleep(0.5)

    def undo(self, machine: Machine, before: Before) -> None:
        # a journal of before this was asked says nothing of it: then nobody knows whose the folder is
        if before.get("kept", True):
            say(f"left: the Debian packages {', '.join(before['packages'])}")
            return
        machine.must(
            ["dpkg", "--remove", *before["packages"]], "the Debian packages could not be removed",
            timeout_s=600.0, extra={"DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        if not before.get("told", True):
            machine.at(DAEMON).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # with something of others in it
                machine.at(DAEMON).parent.rmdir()


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


KINDS.update({each.kind: each for each in (Users, Command, Reload, Stopped, Started, Packages, Image)})
