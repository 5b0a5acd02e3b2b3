"""Installing on a machine: what is there afterwards, again, in a dry run, and after every way to fail."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.journal import Journal, read_installed, recover
from deploy.install.machine import Machine
from deploy.install.talk import Fault
from node.host.config import NodeConfig
from tests.installer.ground import SENTINEL_ID, calls, engine, put, running, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")


def test_a_node_stands_and_waits_for_its_first_permit(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    put(machine, "0.2.0")
    assert running(machine) == {"cloister-node.target", "cloister-core.service", "cloister-link.service"}
    assert os.readlink(machine.at(layout.CURRENT)) == "0.2.0"
    assert machine.at(layout.COMMAND).is_symlink()
    assert {"cloister-core", "cloister-link"} <= machine.accounts()
    unit = machine.text("/etc/systemd/system/cloister-core.service")
    assert f"{layout.CURRENT}/venv/bin/python" in unit and "0.2.0" not in unit
    assert machine.at("/var/lib/cloister/node/keys/site.key").exists()
    installed = read_installed(machine)
    assert installed is not None and (installed.role, installed.version) == ("node", "0.2.0")
    assert (
        machine.at(f"{layout.CURRENT}/install.sh").exists() and machine.at(f"{layout.CURRENT}/install/run.py").exists()
    )
    told = capsys.readouterr().err
    assert "firewall:" in told and "next:" in told and "enrol" in told


def test_the_configuration_is_the_products_own_and_holds_no_placeholder(machine: Machine) -> None:
    put(machine, "0.2.0")
    text = machine.text(layout.configuration("node"))
    plain = tomllib.loads(text)
    plain["state_dir"] = Path("/var/lib/cloister/node")
    plain["intake"]["source_roots"] = tuple(map(Path, plain["intake"]["source_roots"]))
    for name in ("committee", "stewards", "hub", "witnesses"):
        plain["trust"][name] = tuple(plain["trust"][name])
    config = NodeConfig.model_validate(plain)
    assert (config.site, config.hub.host, config.hub.port) == ("st-anna", "127.0.0.1", 9)
    assert config.engine.sentinel == SENTINEL_ID and config.users.separate
    assert config.trust.committee == ("ab" * 32,) and config.trust.stewards == ("cd" * 32,)
    assert "example" not in text and "0" * 64 not in text


def test_nothing_is_open_to_all_and_no_secret_stands_in_a_unit_or_a_command(machine: Machine) -> None:
    put(machine, "0.2.0")
    secret = "k" * 32
    for path in machine.root.rglob("*"):
        if not path.is_symlink() and not path.is_socket() and not path.is_relative_to(machine.root / "fake"):
            assert not path.stat().st_mode & 0o022, path
    assert not any(secret in each.read_text() for each in machine.at(layout.UNITS).iterdir())
    assert secret not in machine.text("/fake/programs") and secret not in machine.text(layout.INSTALLED)


def test_a_hub_stands_in_a_folder_of_its_own_user(machine: Machine) -> None:
    put(machine, "0.2.0", role="hub")
    assert running(machine) == {"cloister-hub.target", "cloister-hub.service"}
    assert machine.at("/var/lib/cloister/hub").stat().st_mode & 0o7777 == 0o700
    plain = tomllib.loads(machine.text(layout.configuration("hub")))
    assert plain["ingress"]["hosts"] == ["hub.north.test"] and plain["trust"]["committee_keys"] == ["ab" * 32]


def test_a_second_run_changes_nothing_and_keeps_running(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    put(machine, "0.2.0", "--site", "st-anna")
    assert snapshot(machine.root) == before
    assert "nothing was changed" in capsys.readouterr().err
    assert "systemctl stop" not in machine.text("/fake/programs")


@pytest.mark.parametrize(
    ("role", "flag", "text", "there"),
    [("node", "--hub", "other:9", "127.0.0.1:9"), ("node", "--site", "other", "st-anna"),
     ("node", "--steward-key", "ef" * 32, "cd" * 32), ("hub", "--port", "18444", "18443"),
     ("hub", "--host", "other.test", "hub.north.test")],
)  # fmt: skip
def test_an_answer_that_the_kept_configuration_contradicts_is_told_and_not_passed_over(
    machine: Machine, role: str, flag: str, text: str, there: str
) -> None:
    put(machine, "0.2.0", role=role)
    before = snapshot(machine.root)
    with pytest.raises(Fault) as raised:
        put(machine, "0.2.0", flag, text, role=role)
    assert raised.value.code == 3 and raised.value.message.endswith(f"otherwise than {flag}: {there}")
    assert "change it in that file" in raised.value.hint and snapshot(machine.root) == before


def test_a_second_run_mends_what_was_changed_by_hand(machine: Machine) -> None:
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    unit = machine.at("/etc/systemd/system/cloister-core.service")
    unit.write_text(unit.read_text() + "User=root\n")
    put(machine, "0.2.0")
    after = snapshot(machine.root)
    assert {name for name in after if after[name] != before.get(name)} <= {
        "opt/cloister/installed.json", "var/lib/cloister/node/core/node.db",  # it started again, and recorded that
    }  # fmt: skip


def test_a_dry_run_tells_every_change_and_makes_none(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(machine.root)
    put(machine, "0.2.0", "--dry-run")
    told = capsys.readouterr().err
    assert snapshot(machine.root) == before and not running(machine)
    put(machine, "0.2.0")
    done = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    made = [line for line in done if line.split()[0] in ("make", "write", "link", "run", "have", "enable")]
    assert len(made) > 12
    for line in made:
        # a configuration that nobody keeps names another place and another sentinel
        words = line.split(" (")[0]
        assert words == f"write {layout.INSTALLED}" or f"would {words}" in told, line


@pytest.mark.parametrize("role", ["node", "hub"])
@pytest.mark.parametrize(
    "what",
    [
        "fails-systemd-sysusers",
        "fails-systemd-tmpfiles",
        "0.2.0-fails-init",
        "0.2.0-fails-starting",
        "dead-cloister-{role}.service",
    ],
)
def test_what_fails_leaves_the_machine_as_it_was(machine: Machine, what: str, role: str) -> None:
    machine.at(f"/fake/{what}".format(role="core" if role == "node" else role)).touch()
    before = snapshot(machine.root)
    with pytest.raises(Fault):
        put(machine, "0.2.0", role=role)
    assert snapshot(machine.root) == before


def test_a_file_where_a_folder_has_to_be_leaves_the_machine_as_it_was(machine: Machine) -> None:
    before = snapshot(machine.root)
    machine.at("/etc/logrotate.d").rmdir()
    machine.at("/etc/tmpfiles.d").rmdir()
    machine.at("/etc/tmpfiles.d").write_text("in the way")
    half = snapshot(machine.root)
    with pytest.raises((Fault, OSError)):
        put(machine, "0.2.0")
    assert snapshot(machine.root) == half != before


def test_a_file_that_was_there_before_comes_back(machine: Machine) -> None:
    machine.at("/etc/sysusers.d/cloister-node.conf").write_text("# the administrator's own\n")
    machine.at("/etc/sysusers.d/cloister-node.conf").chmod(0o600)
    machine.at("/fake/0.2.0-fails-starting").touch()
    before = snapshot(machine.root)
    with pytest.raises(Fault):
        put(machine, "0.2.0")
    assert snapshot(machine.root) == before


def test_a_configuration_that_is_half_written_is_told_and_left(machine: Machine) -> None:
    machine.at("/etc/cloister").mkdir()
    machine.at(layout.configuration("node")).write_text('site = "st-an')
    before = snapshot(machine.root)
    with pytest.raises(Fault, match=r"node\.toml is refused") as raised:
        put(machine, "0.2.0")
    assert raised.value.code == 2 and snapshot(machine.root) == before


def test_another_version_or_role_is_not_installed_over_the_one_that_is_there(machine: Machine) -> None:
    put(machine, "0.2.0")
    before = snapshot(machine.root)
    with pytest.raises(Fault, match=r"0\.2\.0 is installed") as raised:
        put(machine, "0.3.0")
    assert raised.value.code == 3 and "upgrade" in raised.value.hint
    assert snapshot(machine.root) == before


def test_the_engine_of_the_bundle_is_installed_where_there_is_none_and_goes_when_it_fails(bare: Machine) -> None:
    before = snapshot(bare.root)
    with pytest.raises(Fault, match="engine"):
        put(bare, "0.2.0")
    assert snapshot(bare.root) == before and calls(bare) == []


def test_a_sentinel_that_the_engine_does_not_have_is_refused(machine: Machine) -> None:
    before = snapshot(machine.root)
    with pytest.raises(Fault, match="has no image"):
        put(machine, "0.2.0", "--sentinel", f"sha256:{'9' * 64}")
    assert snapshot(machine.root) == before


def test_an_image_that_was_given_to_the_engine_goes_again_where_it_fails(bare: Machine) -> None:
    bare.at("/fake/0.2.0-fails-starting").touch()
    with engine(bare.root) as images, pytest.raises(Fault):
        put(bare, "0.2.0")
    assert images == set()


def test_the_journal_is_written_before_each_change(machine: Machine) -> None:
    from deploy.install.changes import File

    class Cut(BaseException):
        pass

    class Breaks(File):
        def apply(self, machine: Machine) -> None:
            lines = machine.at(layout.JOURNAL).read_text().splitlines()
            assert json.loads(lines[-1])["change"]["path"] == self.path
            super().apply(machine)
            raise Cut

    before = snapshot(machine.root)
    with pytest.raises(Cut), Journal(machine) as journal:
        journal.do(Breaks("/etc/cloister.d", "text"))
    assert snapshot(machine.root) == before


def test_a_journal_whose_last_line_is_half_written_is_taken_back(machine: Machine) -> None:
    before = snapshot(machine.root)
    journal = Journal(machine)
    journal.__enter__()
    from deploy.install.changes import Folder

    journal.do(Folder("/etc/cloister"))
    journal._file.close()
    with machine.at(layout.JOURNAL).open("a") as file:
        file.write('{"change": {"kind": "fi')
    assert recover(machine) and not recover(machine)
    assert snapshot(machine.root) == before
