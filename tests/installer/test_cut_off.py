"""Runs that were cut off, by a kill or by the power, and what the next one makes of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from deploy.install import layout
from deploy.install.changes import Folder
from deploy.install.journal import Journal, read_installed, recover
from deploy.install.machine import Machine
from deploy.install.main import main
from tests.installer.ground import put, running, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")


def killed(machine: Machine, at: str, role: str) -> None:
    """An installation that is killed when it calls this."""
    machine.at("/fake/kill").write_text(at)
    pid = os.fork()
    if pid == 0:
        sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        try:
            put(machine, "0.2.0", role=role)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9


@pytest.mark.parametrize(("role", "service"), [("node", "link"), ("hub", "hub")])
def test_a_run_cut_off_after_the_services_started_is_finished_and_its_data_stay(
    machine: Machine, role: str, service: str
) -> None:
    killed(machine, f"systemctl is-active cloister-{service}.service", role)
    kept = machine.at(f"/var/lib/cloister/{role}/datasets/published")
    kept.parent.mkdir()
    kept.touch()
    up = running(machine)
    assert up and recover(machine) and not recover(machine)
    assert kept.exists() and running(machine) == up
    found = read_installed(machine)
    assert found is not None and (found.role, found.version) == (role, "0.2.0")
    assert main(["uninstall", "--keep-data", "--root", str(machine.root)]) == 0
    assert kept.exists() and not running(machine) and not machine.at(layout.HOME).exists()


def test_a_run_that_was_done_is_not_taken_back_by_a_journal_that_came_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, kept, leave = machine.at(layout.JOURNAL), machine.at("/fake/journal"), Journal.__exit__

    def keep(self: Journal, *what: object) -> None:
        shutil.copy2(journal, kept)
        leave(self, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "__exit__", keep)
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    shutil.copy2(kept, journal)
    assert recover(machine) and not journal.exists()
    assert snapshot(machine.root) == before and running(machine)


def test_what_follows_a_recovery_can_be_interrupted(bare: Machine) -> None:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    were = [signal.getsignal(each) for each in signals]
    journal = Journal(bare)
    journal.__enter__()
    journal.do(Folder("/etc/cloister"))
    journal._file.close()
    assert recover(bare) and [signal.getsignal(each) for each in signals] == were
