"""Services while their files are changed: what runs is stopped, what starts is waited for as long as it may take."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deploy.install import layout, system_changes
from deploy.install.journal import read_installed
from deploy.install.machine import Answer, Machine
from deploy.install.system_changes import Started, Stopped
from deploy.install.talk import Fault
from deploy.install.upgrade import upgrade
from tests.installer.ground import put, running, version_of

TARGET, UNITS = "cloister-node.target", ("cloister-guard.service", "cloister-core.service")


class Said(Machine):
    """A machine whose systemd says what it is told to, and remembers how long it was waited for."""

    def __init__(self, root: Path, states: Mapping[str, str]) -> None:
        super().__init__(root)
        self.states = states
        self.ran: dict[str, float] = {}

    def run(
        self, words: Sequence[str | Path], *, timeout_s: float = 120.0, extra: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
    ) -> Answer:  # fmt: skip
        self.ran[" ".join(map(str, words))] = timeout_s
        state = self.states.get(str(words[2]), "inactive")
        return Answer(3 if words[1] == "is-active" and state != "active" else 0, f"{state}\n", "")


@pytest.mark.parametrize("state", ["active", "activating", "deactivating"])
def test_a_service_that_runs_without_its_target_is_stopped_and_started_again(tmp_path: Path, state: str) -> None:
    machine = Said(tmp_path, {"cloister-core.service": state})
    stopped = Stopped(TARGET, UNITS)
    assert stopped.needed(machine) and not stopped.needed(Said(tmp_path, {}))
    before = stopped.before(machine)
    stopped.apply(machine)
    stopped.undo(machine, before)
    assert f"systemctl stop {TARGET} {' '.join(UNITS)}" in machine.ran
    assert "systemctl start cloister-core.service" in machine.ran
    stopped.undo(machine, {})
    assert f"systemctl start {TARGET}" in machine.ran


@pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")
def test_no_version_is_switched_under_services_that_run(machine: Machine) -> None:
    put(machine, "0.2.0")
    machine.at(f"/fake/active/{TARGET}").unlink()
    machine.at("/fake/programs").unlink()
    found = read_installed(machine)
    assert found is not None
    upgrade(machine, found, version_of(machine.root, "0.3.0"), wait_s=0, dry=False)
    asked = machine.text("/fake/programs").splitlines()
    stops = [number for number, line in enumerate(asked) if line.startswith("systemctl stop cloister-node.target")]
    assert stops and stops[0] < asked.index(f"systemctl start {TARGET}") and TARGET in running(machine)


def test_a_start_is_waited_for_as_long_as_the_units_may_take(tmp_path: Path) -> None:
    machine = Said(tmp_path, dict.fromkeys(UNITS, "active"))
    machine.at(layout.UNITS).mkdir(parents=True)
    for unit, seconds in zip(UNITS, (600, 3600), strict=True):
        machine.at(f"{layout.UNITS}/{unit}").write_text(f"[Service]\nTimeoutStartSec={seconds}\nTimeoutStopSec=6\n")
    Started(TARGET, True, UNITS).apply(machine)
    assert machine.ran[f"systemctl start {TARGET}"] == 4380.0
    Stopped(TARGET, UNITS).undo(machine, {"running": [TARGET]})
    assert machine.ran[f"systemctl start {TARGET}"] == 4380.0


def test_a_long_start_says_that_it_goes_on(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_changes, "_TELL_S", 0.01)
    program = machine.at("/usr/bin/systemctl")
    program.write_text("#!/bin/sh\n[ $1 != start ] || /bin/sleep 0.3\n[ $1 != start ] || exit 1\n")
    with pytest.raises(Fault, match="did not start"):
        Started(TARGET, True, UNITS).apply(machine)
    told = capsys.readouterr().err
    assert f"{TARGET} still starts, after 0 s" in told


class Restarting(Machine):
    """A machine whose core ends whenever it is started, and is started again."""

    restarts = 0

    def run(
        self, words: Sequence[str | Path], *, timeout_s: float = 120.0, extra: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
    ) -> Answer:  # fmt: skip
        if "NRestarts" in str(words[2]):
            self.restarts += 1
            return Answer(0, f"{self.restarts}\n", "")
        return Answer(3 if words[1] in ("is-active", "is-failed") else 0, "activating\n", "")


def test_a_service_that_ends_each_time_it_is_started_is_not_waited_for(tmp_path: Path) -> None:
    machine = Restarting(tmp_path, patience_s=600.0)
    began = time.monotonic()
    with pytest.raises(Fault, match="does not run"):
        Started(TARGET, True, UNITS[:1]).apply(machine)
    assert time.monotonic() - began < 60 and machine.restarts == 3
