"""Taking an installation away: nothing stays but what it is told to keep, and what stays is named."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.changes import File
from deploy.install.journal import Made, merged, read_installed
from deploy.install.machine import Machine
from deploy.install.system_changes import Users
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


def record_of(machine: Machine) -> dict[str, object]:
    found: dict[str, object] = json.loads(next(machine.at("/var/log").glob("cloister-destruction-*.json")).read_text())
    return found


def elsewhere(machine: Machine) -> None:
    path = machine.at(layout.configuration("node"))
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'state_dir = "{machine.root}/srv/cloister"\n')


def test_a_state_folder_elsewhere_is_refused_before_anything_is_done(machine: Machine) -> None:
    put(machine, "0.2.0")
    found = read_installed(machine)
    assert found is not None
    elsewhere(machine)
    before = snapshot(machine.root)
    for refused in (
        lambda: away(machine, destroy=True),
        lambda: upgrade(machine, found, version_of(machine.root, "0.3.0"), wait_s=0, dry=False),
        lambda: put(machine, "0.2.0"),
    ):
        with pytest.raises(Fault, match="srv/cloister") as raised:
            refused()
        assert raised.value.code == 3
    assert snapshot(machine.root) == before and running(machine)


def test_a_destruction_that_finds_no_key_does_not_say_that_it_was_one(machine: Machine) -> None:
    put(machine, "0.2.0")
    machine.at("/var/lib/cloister/node/keys").rename(machine.at("/srv-keys"))
    with pytest.raises(Fault, match="no key was found"):
        away(machine, destroy=True)
    assert machine.at("/var/lib/cloister/node").exists() and not list(machine.at("/var/log").iterdir())


def test_a_destruction_that_was_cut_off_is_finished_under_the_same_record(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(machine, "0.2.0")
    machine.at("/etc/cloister/database.url").write_text("postgresql://u:hunter2@h/d")

    def cut(_folder: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("deploy.install.uninstall._digest", cut)
        away(machine, destroy=True)
    assert "destroyed" not in record_of(machine)
    away(machine, destroy=True)
    record = record_of(machine)
    assert "destroyed" in record and record["keys"] == [
        {"path": "/etc/cloister/database.url", "bytes": 26},
        {"path": "/var/lib/cloister/node/keys/site.key", "bytes": 32},
    ]
    assert len(list(machine.at("/var/log").iterdir())) == 1 and not machine.at(layout.STATE).exists()


def test_what_lies_in_the_audit_folder_does_not_keep_the_keys(machine: Machine) -> None:
    put(machine, "0.2.0")
    audit = machine.at("/var/lib/cloister/node/audit")
    (audit / "0-folder").mkdir()
    (audit / "0-link").symlink_to("/dev/zero")
    os.mkfifo(audit / "0-pipe")
    away(machine, destroy=True)
    assert record_of(machine)["audit_sha256"] == hashlib.sha256(b"1.logthe log\n").hexdigest()
    assert not machine.at(layout.STATE).exists()


@pytest.mark.parametrize("destroy", [True, False])
def test_what_could_not_be_taken_back_stays_in_the_account_for_another_run(machine: Machine, destroy: bool) -> None:
    before = snapshot(machine.root)
    put(machine, "0.2.0")
    user = machine.at("/fake/fails-userdel")
    word = machine.at(layout.COMMAND)
    if destroy:
        user.touch()
    else:
        # a folder in the link's place cannot be unlinked
        word.unlink()
        word.mkdir()
    with pytest.raises(Fault, match="not taken back") as raised:
        away(machine, destroy=destroy)
    assert raised.value.code == 5
    found = read_installed(machine)
    assert found is not None
    assert not any(each.change.path.startswith(layout.UNITS) for each in found.made)
    assert [each.name for each in machine.at(layout.HOME).iterdir()] == ["installed.json"]
    if not destroy:
        word.rmdir()
        away(machine, destroy=False)
        assert "cloister-core" in machine.accounts() and not machine.at(layout.HOME).exists()
        return
    user.unlink()
    away(machine, destroy=True)
    after = snapshot(machine.root)
    left = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert len(left) == 1 and left.pop().startswith("var/log/cloister-destruction-")


def test_the_users_of_an_installation_before_go_with_the_data_and_nobody_elses_do(machine: Machine) -> None:
    put(machine, "0.2.0")
    away(machine, destroy=False)
    put(machine, "0.2.0")
    away(machine, destroy=True)
    assert machine.accounts() == {"root"} and machine.groups() == {"root"}


def test_two_accounts_are_one_that_lists_what_each_of_them_brought() -> None:
    users = Users("/etc/sysusers.d/x", ("a", "b"))
    file = File("/etc/x")
    old = (Made(users, {"users": ["a"], "groups": []}), Made(file, {"content": "MQ==", "mode": 0o644}))
    new = (Made(users, {"users": ["b"], "groups": ["g"]}), Made(file, {"content": "Mg==", "mode": 0o600}))
    assert [each.before for each in merged(old, new)] == [{"users": ["a", "b"], "groups": ["g"]}, old[1].before]
