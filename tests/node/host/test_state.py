"""The state folder: owners and modes on the real file system, and what they keep from whom."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from mediator.errors import IntegrityBroken, UsageFault
from node.cli.it.enrol import write_audit_keys
from node.host.accounts import Account
from node.host.config import NodeConfig, UsersConfig, load_config
from node.host.keys import read_signing_key, read_verify_key
from node.host.state import changed_since, check_state, folders, prepare_state
from tests.node.host.test_config import MINIMAL
from tests.sim.users import as_user

IDS = {"core": 64101, "intake": 64102, "broker": 64103, "link": 64104}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def config_in(tmp_path: Path, *, separate: bool = False) -> NodeConfig:
    users = "[users]\n" + "\n".join(f"{role} = {uid}" for role, uid in IDS.items()) if separate else ""
    text = MINIMAL.replace("/var/lib/cloister", str(tmp_path / "state")) + users
    path = tmp_path / "node.toml"
    path.write_text(text)
    return load_config(path)


def test_the_folders_are_made_and_stay(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    before = os.umask(0o077)
    try:
        prepare_state(config)
        key = config.paths.audit_key.read_bytes()
        prepare_state(config)
    finally:
        os.umask(before)
    assert check_state(config) == []
    assert config.paths.audit_key.read_bytes() == key
    assert list(config.paths.audit.iterdir()) == []
    assert read_verify_key(config.paths.verdict_public_key) == read_signing_key(config.paths.verdict_key).verify_key


def test_under_one_user_nothing_is_the_groups(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    for path in config.paths.root.rglob("*"):
        assert not path.stat().st_mode & 0o022, path
    for shared in (config.paths.spool, config.paths.handover):
        assert shared.stat().st_mode & 0o7777 == 0o700


def test_what_changed_is_found_and_put_right(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    config.paths.keys.chmod(0o755)
    config.paths.logs.rmdir()
    assert [line.split()[0] for line in check_state(config)] == [str(config.paths.keys), str(config.paths.logs)]
    prepare_state(config)
    assert check_state(config) == []


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    config.paths.root.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    config.paths.keys.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageFault):
        prepare_state(config)
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lost_key_is_never_quietly_replaced(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    config.paths.audit_key.unlink()
    with pytest.raises(IntegrityBroken, match="gone"):
        prepare_state(config)
    assert not config.paths.audit_key.exists()


def test_a_lost_site_key_would_give_every_patient_a_second_pseudonym(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    (config.paths.audit / "segment-00000001.jsonl").touch()
    config.paths.site_key.unlink()
    with pytest.raises(IntegrityBroken, match="gone"):
        prepare_state(config)


def attempt(uid: int, groups: list[int], code: str, *arguments: Path) -> int:
    """Exit status of `code` run as another user: 13 where it was told "permission denied"."""
    script = f"import os, sys\ntry:\n    {code}\nexcept PermissionError:\n    sys.exit(13)\n"
    command = ["/usr/bin/python3", "-I", "-c", script, *map(str, arguments)]
    return subprocess.run(as_user(command, uid, groups)).returncode


@pytest.fixture
def separate(tmp_path: Path) -> NodeConfig:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    config = config_in(tmp_path, separate=True)
    prepare_state(config)
    return config


@as_root
@pytest.mark.parametrize("role", ["intake", "broker", "link"])
def test_only_core_reaches_its_keys_and_data(separate: NodeConfig, role: str) -> None:
    paths = separate.paths
    paths.database.touch(mode=0o600)
    os.chown(paths.database, IDS["core"], IDS["core"])
    (paths.datasets / "p").mkdir()
    for target in (paths.audit_key, paths.release_key, paths.verdict_key, paths.database):
        assert attempt(IDS["core"], [], "open(sys.argv[1]).close()", target) == 0
        assert attempt(IDS[role], [], "open(sys.argv[1]).close()", target) == 13, target
    for folder in (paths.datasets, paths.audit, paths.releases, paths.jobs, paths.keys):
        assert attempt(IDS[role], [], "os.listdir(sys.argv[1])", folder) == 13, folder


@as_root
@pytest.mark.parametrize("role", ["core", "broker", "link"])
def test_nobody_but_intake_reaches_what_could_name_a_patient(separate: NodeConfig, role: str) -> None:
    groups = [IDS["intake"], IDS["link"]] if role == "core" else []
    for target in (separate.paths.site_key, separate.paths.quarantine_key):
        assert attempt(IDS["intake"], [], "open(sys.argv[1]).close()", target) == 0
        assert attempt(IDS[role], groups, "open(sys.argv[1]).close()", target) == 13
    assert attempt(IDS[role], groups, "os.listdir(sys.argv[1])", separate.paths.quarantine) == 13


@as_root
def test_the_spool_is_written_by_core_and_read_by_the_link(separate: NodeConfig) -> None:
    spool = separate.paths.spool
    write = "os.umask(0o027); f = open(sys.argv[1] + '/envelope', 'x'); f.write('e'); f.close()"
    assert attempt(IDS["core"], [], write, spool) == 0
    assert attempt(IDS["link"], [], "open(sys.argv[1] + '/envelope').read()", spool) == 0
    assert attempt(IDS["link"], [], "open(sys.argv[1] + '/x', 'x')", spool) == 13
    assert attempt(IDS["broker"], [], "os.listdir(sys.argv[1])", spool) == 13


@as_root
def test_the_handover_is_written_by_intake_and_read_by_core(separate: NodeConfig) -> None:
    handover = separate.paths.handover
    write = "os.umask(0o027); os.mkdir(sys.argv[1] + '/o'); f = open(sys.argv[1] + '/o/f', 'x'); f.close()"
    assert attempt(IDS["intake"], [], write, handover) == 0
    assert attempt(IDS["core"], [], "open(sys.argv[1] + '/o/f').close()", handover) == 0
    assert attempt(IDS["core"], [], "open(sys.argv[1] + '/x', 'x')", handover) == 13
    assert attempt(IDS["link"], [], "os.listdir(sys.argv[1])", handover) == 13


@as_root
def test_only_the_broker_makes_sockets_in_its_folder_and_core_gets_the_group(separate: NodeConfig) -> None:
    folder = separate.paths.broker_socket.parent
    code = "import socket; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + '/s')"
    assert attempt(IDS["core"], [], code, folder) == 13
    assert attempt(IDS["broker"], [], code, folder) == 0
    assert (folder / "s").stat().st_gid == IDS["core"]


def test_every_folder_has_a_place_in_the_state_folder(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    listed = [folder.path for folder in folders(config)]
    assert len(set(listed)) == len(listed)
    assert all(path == config.paths.root or path.is_relative_to(config.paths.root) for path in listed)


def test_what_cannot_be_looked_at_for_a_moment_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a free descriptor, a disk that hangs: no reason to end every job."""
    config = config_in(tmp_path)
    prepare_state(config)
    expected = tuple(folders(config))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENFILE, "too many")))
        assert changed_since(expected) == []
    config.paths.keys.chmod(0o755)
    assert len(changed_since(expected)) == 1
    config.paths.keys.rename(tmp_path / "keys")
    config.paths.keys.symlink_to(tmp_path / "keys")
    assert changed_since(expected) == [f"{config.paths.keys} is not a folder"]


@as_root
@pytest.mark.parametrize("passes", [True, False])
def test_a_group_of_the_users_may_be_what_lets_them_pass(
    separate: NodeConfig, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    parent, group = separate.paths.root.parent, 64190
    os.chown(parent, 0, group)
    parent.chmod(0o750)
    groups = (group,) if passes else ()
    accounts = {role: Account(uid, uid, groups) for role, uid in IDS.items()}
    monkeypatch.setattr(UsersConfig, "accounts", lambda *_: accounts)
    if passes:
        prepare_state(separate)
        write_audit_keys(separate)
        return
    for step in (prepare_state, write_audit_keys):
        with pytest.raises(UsageFault, match=r"cannot (pass|read)"):
            step(separate)


@as_root
def test_parents_are_passable_whatever_the_umask(separate: NodeConfig) -> None:
    root = separate.paths.root.parent / "a" / "b" / "n"
    file = separate.paths.root.parent / "node.toml"
    file.write_text(file.read_text().replace(str(separate.paths.root), str(root)))
    config = load_config(file)
    before = os.umask(0o077)
    try:
        prepare_state(config)
    finally:
        os.umask(before)
    assert root.parent.stat().st_mode & 0o7777 == root.parent.parent.stat().st_mode & 0o7777 == 0o755
    assert check_state(config) == []
