"""Another version beside the one that runs: put there while that still works, switched to, tried, and given up again
where it does not do its work.

1. The new version is staged beside the old one, and its units are made, while the old one runs.
2. Jobs are waited for; those that still compute are paused, which loses nothing: a paused round is asked again.
3. The services stop; database and configuration are copied; units and `current` are switched; the services start, and
   the first of them migrates the database, in one transaction.
4. It is tried: every service runs, the node answers, its sandbox holds, a small job of nobody's ends as it must, the
   hub is reached where it was before.
5. Whatever fails, the journal takes back what was changed, and the old version runs again, over the database as it is
   where it may read that (`databases.fit_for_before`). Where it may not, the new version stays, and a node is paused.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from . import layout
from .changes import KINDS, Before, Change, Gone, Tree
from .databases import copy_before, fit_for_before, state_is_known
from .install import put_in_place
from .journal import Installed, Journal, merged, record
from .machine import Machine
from .rehearsal import Rehearsal
from .sources import Source
from .system_changes import Reload, Started, Stopped
from .talk import REFUSED, USAGE, Fault, say
from .units import Units, units_of

_COMPUTING = ("preparing", "running", "produced", "releasing")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@dataclass(frozen=True)
class FitsBack(Change):
    """Nothing forwards. Taken back, it sees to it that the version before may open the database; where it may not, the
    version that was tried runs again, and stays."""

    kind: ClassVar[str] = "fits_back"
    lasts: ClassVar[bool] = False
    holds: ClassVar[bool] = True
    role: layout.Role = "node"
    target: str = ""

    def describe(self) -> str:
        return f"keep the copy {self.path}"

    def needed(self, machine: Machine) -> bool:
        return True

    def before(self, machine: Machine) -> Before:
        return {}

    def apply(self, machine: Machine) -> None:
        pass

    def undo(self, machine: Machine, before: Before) -> None:
        try:
            fit_for_before(machine, self.role, self.path)
        except Fault:
            answer = machine.run(["systemctl", "start", self.target], timeout_s=180.0)
            if not answer.done:
                say(f"warning: {self.target} does not start: {answer.said}")
            raise


@dataclass(frozen=True)
class Resumed(Change):
    """Nothing forwards. Taken back, last of all, it lets a node that was paused for the upgrade go on."""

    kind: ClassVar[str] = "resumed"
    lasts: ClassVar[bool] = False

    def describe(self) -> str:
        return "pause the node"

    def needed(self, machine: Machine) -> bool:
        return True

    def before(self, machine: Machine) -> Before:
        return {}

    def apply(self, machine: Machine) -> None:
        _ask(machine, Path(self.path), "pause", code_ok=(0,))

    def undo(self, machine: Machine, before: Before) -> None:
        _until(machine.patience_s, lambda: _status(machine, Path(self.path)) is not None)
        _ask(machine, Path(self.path), "resume", code_ok=(0,))


def upgrade(machine: Machine, before: Installed, source: Source, *, wait_s: float, dry: bool) -> None:
    """Bring the installation to the source's version. Raises `Fault`; the old version then runs as before."""
    if source.version == before.version:
        say(f"{source.version} is installed already: nothing to do")
        return
    if numbers(source.version) < numbers(before.version):
        raise Fault(
            f"{source.version} is older than {before.version}, which is installed",
            "install.sh rollback goes back to the version before an upgrade", REFUSED,
        )  # fmt: skip
    state_is_known(machine, before.role)
    if dry:
        with Rehearsal(machine) as rehearsal:
            rehearsal.do(_staged(source))
            _switch_told(machine, before, source, rehearsal)
        say("a dry run: nothing was changed")
        return
    with Journal(machine) as journal:
        journal.do(_staged(source))
        gap = _change_over(machine, before, source.version, journal, wait_s)
        made = merged(before.made, tuple(journal.made))
        installed = Installed(before.role, source.version, before.version, gap.copy, made)
        journal.do(record(installed))
    _clear_older(machine, installed)
    say(f"upgraded from {before.version} to {source.version}; the services were away for {gap.seconds:.1f} s")
    say(f"back again: {layout.CURRENT}/install.sh rollback")


def rollback(machine: Machine, before: Installed, *, wait_s: float) -> None:
    """Go back to the version before. Raises `Fault`; the newer version then runs as before."""
    target = before.previous
    if target is None or not machine.at(layout.program(target)).exists():
        raise Fault("there is no version before this one here", "install it from its bundle", REFUSED)
    state_is_known(machine, before.role)
    with Journal(machine) as journal:
        gap = _change_over(machine, before, target, journal, wait_s, back=True)
        made = merged(before.made, tuple(journal.made))
        journal.do(record(Installed(before.role, target, None, None, made)))
    say(f"back from {before.version} to {target}; the services were away for {gap.seconds:.1f} s")


def _staged(source: Source) -> Tree:
    return Tree(layout.version_folder(source.version), f"version {source.told}", source.stage)


def _switch_told(machine: Machine, before: Installed, source: Source, rehearsal: Rehearsal) -> None:
    program = rehearsal.where(layout.program(source.version))
    units = units_of(machine, before.role, program, machine.at(layout.configuration(before.role)))
    put_in_place(machine, before.role, source.version, units, rehearsal)
    say(f"would copy {layout.database(before.role)} and {layout.configuration(before.role)} aside")


@dataclass(frozen=True)
class Gap:
    """How long nothing ran, and where the copy lies."""

    seconds: float
    copy: str | None


def _change_over(
    machine: Machine, before: Installed, version: str, journal: Journal, wait_s: float, *, back: bool = False
) -> Gap:
    """Switch from the installed version to another that is staged, either way (2 to 4)."""
    role, config = before.role, machine.at(layout.configuration(before.role))
    units = units_of(machine, role, machine.at(layout.program(version)), config)
    old = machine.at(layout.program(before.version))
    was = _status(machine, old) if role == "node" else None
    paused = _rest(machine, old, was, journal, wait_s)
    since = time.monotonic()
    journal.do(Stopped(units.target, _services(before)))
    copy = before.copy
    if back:
        fit_for_before(machine, role, before.copy)
    else:
        copy = copy_before(machine, role, before.version)
    journal.do(Reload("cloister-", backwards=True))
    for path in _no_longer(before, units):
        journal.do(Gone(path))
    put_in_place(machine, role, version, units, journal)
    journal.do(Reload("cloister-"))
    previous = (None, None) if back else (before.version, copy)
    journal.ends(Installed(role, version, *previous))
    if copy is not None:
        # taken back after the new services stopped, and before anything else of the new version went
        journal.do(FitsBack(copy, role, units.target))
    journal.do(Started(units.target, True, units.services))
    seconds = time.monotonic() - since
    program = machine.at(layout.program(version))
    _try(machine, role, program, was, back=back)
    if paused:
        _ask(machine, program, "resume", code_ok=(0,))
    return Gap(seconds, copy)


def _services(before: Installed) -> tuple[str, ...]:
    """The services that run now: what another version adds, systemd does not know yet."""
    paths = [Path(each.change.path) for each in before.made if each.change.kind == "file"]
    return tuple(path.name for path in paths if path.suffix == ".service")


def _no_longer(before: Installed, units: Units) -> list[str]:
    """Files that we wrote for systemd, and that this version does not have."""
    wanted = {each.path for each in units.files}
    ours = [each.change.path for each in before.made if each.change.kind == "file"]
    config = layout.configuration(before.role)
    return [path for path in ours if path not in wanted and path != config and "/cloister-" in path]


def _rest(machine: Machine, program: Path, was: dict[str, Any] | None, journal: Journal, wait_s: float) -> bool:
    """Wait for what computes, then pause. Whether we paused it: one that was paused before stays paused."""
    if was is None or was.get("paused"):
        return False
    if _computing(machine, program):
        say(f"waiting up to {wait_s:.0f} s for jobs that compute")
        _until(wait_s, lambda: not _computing(machine, program))
    return journal.do(Resumed(str(program)))


def _computing(machine: Machine, program: Path) -> int:
    answer = machine.run([program, "node", "job", "list", "--config", _config(machine), "--json"])
    jobs = json.loads(answer.out) if answer.done and answer.out.strip() else []
    return sum(job.get("state") in _COMPUTING for job in jobs)


def _status(machine: Machine, program: Path) -> dict[str, Any] | None:
    answer = machine.run([program, "node", "status", "--config", _config(machine), "--json"], timeout_s=20.0)
    try:
        plain = json.loads(answer.out) if answer.done else None
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None


def _config(machine: Machine) -> Path:
    return machine.at(layout.configuration("node"))


def _ask(machine: Machine, program: Path, word: str, *, code_ok: tuple[int, ...]) -> None:
    answer = machine.run([program, "node", word, "--config", _config(machine)], timeout_s=60.0)
    if answer.code not in code_ok:
        raise Fault(f"cloister node {word}: {answer.said}", "cloister check says how the node stands", answer.code)


def _until(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _try(machine: Machine, role: layout.Role, program: Path, was: dict[str, Any] | None, *, back: bool) -> None:
    """See the new version at work (4). What did not work before is not asked of it."""
    if role == "hub":
        answer = machine.run([program, "hub", "status", "--config", machine.at(layout.configuration("hub"))])
        if answer.code not in (0, 3):  # 3: it has alarms, and says them
            raise Fault(f"the hub does not answer: {answer.said}", "journalctl -u 'cloister-*' says why")
        return
    if was is None:
        say("the node did not answer before the change, so it is not asked after it: cloister check")
        return
    if not _until(machine.patience_s, lambda: _status(machine, program) is not None):
        raise Fault("the node does not answer", "journalctl -u cloister-core says why")
    connected = bool(was.get("hub", {}).get("connected"))

    def comes_back() -> bool:
        return not connected or _until(machine.patience_s, lambda: _reaches_hub(machine, program))

    with ThreadPoolExecutor(1) as pool:  # a canary takes its time, and so does a link to come back
        reached = pool.submit(comes_back)
        if was.get("sandbox") == "held":
            answer = machine.run([program, "node", "canary", "--config", _config(machine)], timeout_s=300.0)
            if not answer.done:
                raise Fault(f"the sandbox did not hold: {answer.said}", "cloister node canary", answer.code)
            _run_a_job(machine, program, back=back)
        if not reached.result():
            raise Fault("the hub was connected before, and is not any more", "journalctl -u cloister-link says why")


def _run_a_job(machine: Machine, program: Path, *, back: bool) -> None:
    """A small job of nobody's, from its spec to its output."""
    answer = machine.run([program, "node", "self-test", "--config", _config(machine)], timeout_s=300.0)
    if back and answer.code == USAGE:  # older than this command
        say("this version has no self-test: no job was tried")
    elif not answer.done:
        raise Fault(f"a job of nobody's did not end as it must: {answer.said}", "cloister node self-test", answer.code)


def _reaches_hub(machine: Machine, program: Path) -> bool:
    return bool((_status(machine, program) or {}).get("hub", {}).get("connected"))


def _clear_older(machine: Machine, installed: Installed) -> None:
    """Two versions stay: the one that runs and the one before."""
    for each in machine.at(layout.HOME).iterdir():
        if each.is_dir() and not each.is_symlink() and each.name not in (installed.version, installed.previous):
            say(f"  remove {layout.version_folder(each.name)}")
            shutil.rmtree(each, ignore_errors=True)


KINDS.update({each.kind: each for each in (FitsBack, Resumed)})
