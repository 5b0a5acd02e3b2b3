"""Installing a node or a hub: the list of changes, in the order in which they are made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import layout
from .changes import Change, File, Folder, Link, Tree
from .engine import DEFAULT, Engine, find_engine
from .machine import Machine
from .rehearsal import Rehearsal
from .sources import SENTINEL, Source
from .system_changes import Command, Image, Packages, Reload, Started, Stopped, Users
from .talk import Fault, say
from .units import Units, units_of

_ENGINES = {"docker.io", "podman"}
_NEEDED = {"logrotate"}


class Recorder(Protocol):
    """Makes a change, or only tells it. Whether it was needed."""

    def do(self, change: Change) -> bool: ...

    def where(self, path: str) -> Path: ...


@dataclass(frozen=True)
class Wish:
    """What is to stand at the end. `config` writes the configuration, given the engine's socket and the sentinel's id;
    None: the one that is there is kept."""

    role: layout.Role
    source: Source
    config: Callable[[str, str], str] | None
    engine: str | None = None
    sentinel: str | None = None
    start: bool = True


def install(machine: Machine, wish: Wish, recorder: Recorder) -> Units:
    """Every change of an installation. Raises `Fault`; whoever keeps the journal takes back what was done."""
    version = wish.source.version
    for folder in (layout.HOME, layout.CONFIGURATION, layout.STATE):
        recorder.do(Folder(folder))
    recorder.do(
        Tree(
            layout.version_folder(version), f"version {wish.source.told}",
            wish.source.stage,
        )
    )  # fmt: skip
    _bring_packages(machine, wish, recorder)
    program = recorder.where(layout.program(version))
    sentinel = engine = ""
    if wish.role == "node":
        engine, sentinel = _engine_and_sentinel(machine, wish, recorder, program)
    config = machine.at(layout.configuration(wish.role))
    if wish.config is not None:
        recorder.do(File(layout.configuration(wish.role), wish.config(engine, sentinel)))
    units = units_of(machine, wish.role, program, recorder.where(layout.configuration(wish.role)))
    changed = put_in_place(machine, wish.role, version, units, recorder)
    recorder.do(Link(layout.COMMAND, f"{layout.CURRENT}/venv/bin/cloister"))
    recorder.do(_state(machine, wish.role, program, config))
    tmpfiles = units.file("tmpfiles.d")
    if tmpfiles and changed:
        recorder.do(Command("systemd-tmpfiles", ("systemd-tmpfiles", "--create", tmpfiles)))
    if changed:
        recorder.do(Reload("cloister-"))
    recorder.do(Started(units.target, wish.start, units.services))
    return units


def put_in_place(machine: Machine, role: layout.Role, version: str, units: Units, recorder: Recorder) -> bool:
    """Write the units of a version, make its users, and switch to it. Whether anything was not so already."""
    # a minimal system has no /etc/sysusers.d: whoever makes it takes it away again
    wanted: list[Change] = [Folder(each) for each in dict.fromkeys(str(Path(each.path).parent) for each in units.files)]
    wanted += [File(each.path, each.text, each.mode) for each in units.files]
    wanted.append(Link(layout.CURRENT, version))
    changed = any(each.needed(machine) for each in wanted)
    if changed:
        recorder.do(Stopped(units.target, tuple(each for each in units.services if _known(machine, each))))
        recorder.do(Reload("cloister-", backwards=True))
    for each in wanted:
        recorder.do(each)
    if sysusers := units.file("sysusers.d"):
        users = Users(sysusers, units.users, units.groups)
        if changed or users.missing(machine):
            recorder.do(users)
    return changed


def _known(machine: Machine, service: str) -> bool:
    return machine.at(f"{layout.UNITS}/{service}").exists()


def _engine_and_sentinel(machine: Machine, wish: Wish, recorder: Recorder, program: Path) -> tuple[str, str]:
    if wish.config is None:
        return "", ""  # the configuration that is kept names both
    url = wish.engine or find_engine(machine)
    if url is None and _ENGINES & {name for name, _path in wish.source.packages} and isinstance(recorder, Rehearsal):
        url = DEFAULT  # a rehearsal brings none: where one will answer does for a file that nobody keeps
    if url is None:
        raise Fault(
            "no container engine answers", "apt-get install docker.io (or podman), or name its socket: --engine"
        )
    if wish.sentinel:
        if not Engine(machine, url).has(wish.sentinel):
            raise Fault(f"the engine at {url} has no image {wish.sentinel}", "--sentinel names one that it has")
        return url, wish.sentinel
    found: list[str] = []
    socket = url

    def get() -> None:
        found.append(wish.source.sentinel(machine, Engine(machine, socket), program))

    # by its id where we know it: an engine that was given an archive may know no name
    recorder.do(Image(wish.source.sentinel_id or SENTINEL, socket, get))
    # a rehearsal makes no image: any id will do for a file that nobody keeps
    return url, found[0] if found else f"sha256:{'e' * 64}"


def _bring_packages(machine: Machine, wish: Wish, recorder: Recorder) -> None:
    """The bundle's Debian packages: an engine where a node has none yet, and what else a machine of ours needs."""
    missing = dict(missing_packages(machine, wish.source))
    if wish.role == "hub" or wish.config is None or wish.engine or find_engine(machine):
        missing = _with_needed(machine, _NEEDED & set(missing), missing)
    if missing:
        words = tuple(map(str, missing.values()))
        recorder.do(Packages("bundle", tuple(missing), words, bool(_ENGINES & set(missing))))


def _with_needed(machine: Machine, wanted: set[str], missing: dict[str, Path]) -> dict[str, Path]:
    """These packages, and those of the bundle that they depend on."""
    found: dict[str, Path] = {}
    ahead = sorted(wanted)
    while ahead:
        name = ahead.pop()
        if name in missing and name not in found:
            found[name] = missing[name]
            said = machine.run(["dpkg-deb", "--field", missing[name], "Pre-Depends", "Depends"]).out
            ahead += re.findall(r"(?:^|[:,|])\s*([a-z0-9][a-z0-9+.-]+)", said)
    return found


def missing_packages(machine: Machine, source: Source) -> tuple[tuple[str, Path], ...]:
    """The bundle's Debian packages that this machine does not have."""
    wanted = not_installed(machine, tuple(name for name, _path in source.packages))
    return tuple((name, path) for name, path in source.packages if name in wanted)


def not_installed(machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these Debian packages that this machine does not have."""
    if not names:
        return ()
    installed = machine.run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"]).out
    there = {line.split()[0] for line in installed.splitlines() if line.endswith(" installed")}
    return tuple(name for name in names if name not in there)


def _state(machine: Machine, role: layout.Role, program: Path, config: Path) -> Tree:
    """The state folder with its keys. A node's is root's, who gives each process its part; a hub's is its user's."""
    path = layout.state(role)

    def make(machine: Machine, at: Path) -> None:
        words = [program, role, "init", "--config", config]
        if role == "node":
            said = machine.run(words)
        else:
            uid, gid = machine.account(f"cloister-{role}")
            at.mkdir(mode=0o700)
            machine.give(at, uid, gid)
            said = machine.run(words, user=(uid, gid))
        if not said.done:
            raise Fault(f"the state folder was not made: {said.said}", f"see {config}", said.code)
        for line in said.err.splitlines():
            say(f"    {line}")

    return Tree(path, "the state folder and its keys", make)
