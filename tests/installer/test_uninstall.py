"""Taking an installation away: nothing stays but what it is told to keep, and what stays is named."""

from __future__ import annotations

import json
import os

import pytest

from deploy.install import layout
from deploy.install.journal import read_installed
from deploy.install.machine import Machine
from deploy.install.talk import Fault
from deploy.install.uninstall import uninstall
from deploy.install.upgrade import upgrade
from tests.installer.ground import engine, put, running, snapshot, version_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")


def away(machine: Machine, *, destroy: bool, dry: bool = False) -> None:
    found = read_installed(machine)
    assert found is not None
    uninstall(machine, found, destroy=destroy, dry=dry)


@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize("role", ["node", "hub"])
def test_nothing_is_left_but_the_record_of_the_destruction(
    bare: Machine, capsys: pytest.CaptureFixture[str], role: str, upgraded: bool
) -> None:
    machine = bare
    with engine(machine.root) as images:
        before = snapshot(machine.root)
        put(machine, "0.2.0", role=role)
        found = read_installed(machine)
        assert found is not None
        if upgraded:
            upgrade(machine, found, version_of(machine.root, "0.3.0"), wait_s=0, dry=False)
        away(machine, destroy=True)
    assert images == set()
    after = snapshot(machine.root)
    left = set(after) - set(before)
    assert {name for name in before if after.get(name) != before[name]} == set()
    assert len(left) == 1 and left.pop().startswith("var/log/cloister-destruction-")
    assert not running(machine) and "left: /var/log/cloister-destruction-" in capsys.readouterr().err


def test_keys_are_overwritten_before_they_go(machine: Machine) -> None:
    put(machine, "0.2.0")
    key = machine.at("/var/lib/cloister/node/keys/site.key")
    handle = os.open(key, os.O_RDONLY)  # whoever holds the file open sees what became of its bytes
    away(machine, destroy=True)
    content = os.pread(handle, 64, 0)
    os.close(handle)
    assert len(content) == 32 and content != b"k" * 32
    record = json.loads(next(machine.at("/var/log").glob("cloister-destruction-*.json")).read_text())
    assert record["keys"] == [{"path": "/var/lib/cloister/node/keys/site.key", "bytes": 32}]
    assert (record["role"], record["version"]) == ("node", "0.2.0") and record["files"] >= 4
    assert len(record["audit_sha256"]) == 64


def test_data_that_is_kept_stays_with_its_users_and_is_named(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    put(machine, "0.2.0")
    state = {name: what for name, what in snapshot(machine.root).items() if name.startswith("var/lib/cloister")}
    away(machine, destroy=False)
    after = snapshot(machine.root)
    assert {name: what for name, what in after.items() if name.startswith("var/lib/cloister")} == state
    assert machine.at(layout.configuration("node")).exists() and "cloister-core" in machine.accounts()
    assert not machine.at(layout.HOME).exists() and not os.path.lexists(machine.at(layout.COMMAND))
    assert not list(machine.at(layout.UNITS).iterdir()) and not running(machine)
    told = capsys.readouterr().err
    for named in ("left: /var/lib/cloister/node", "left: /etc/cloister", "left: the user cloister-core"):
        assert named in told
    put(machine, "0.2.0")  # and it can be installed again over what was kept
    assert "cloister-core.service" in running(machine)


def test_a_dry_run_takes_nothing_away(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    away(machine, destroy=True, dry=True)
    assert snapshot(machine.root) == before
    assert "would take back: write /etc/systemd/system/cloister-core.service" in capsys.readouterr().err


def test_services_that_do_not_stop_keep_everything(machine: Machine) -> None:
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    program = machine.at("/usr/bin/systemctl")
    was = program.read_text()
    program.write_text(was.replace('elif verb == "stop":', 'elif verb == "stop":\n        sys.exit("busy")'))
    with pytest.raises(Fault, match="does not stop"):
        away(machine, destroy=True)
    program.write_text(was)
    assert {k: v for k, v in snapshot(machine.root).items() if "enabled" not in k} == {
        k: v for k, v in before.items() if "enabled" not in k
    }
