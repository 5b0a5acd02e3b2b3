"""The engine of a bundle: brought where none answers, waited for, and never taken from others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.install.journal import read_installed
from deploy.install.machine import Machine
from deploy.install.main import install_from, parser
from deploy.install.talk import Fault
from deploy.install.uninstall import uninstall
from tests.installer.ground import ANSWERS, HUB_ANSWERS, engine, running, snapshot, version_of, write_script

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")


def bring_docker(machine: Machine, *words: str) -> None:
    """Install from a bundle that brings docker.io."""
    machine.at("/fake/packages").write_text("bash installed\n")
    source = replace(version_of(machine.root, "0.2.0"), packages=(("docker.io", Path("/x/docker.io_1_amd64.deb")),))
    install_from(machine, parser().parse_args(["node", *ANSWERS, *words]), source, None)


@pytest.fixture
def brought(bare: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose engine answers once its package was installed."""
    with engine(bare.root):
        answers = "unix:///run/docker.sock"
        there = bare.at("/fake/engine")
        for module in ("install", "check_engine", "system_changes"):
            monkeypatch.setattr(
                f"deploy.install.{module}.find_engine", lambda _machine: answers if there.exists() else None
            )
        yield bare


def test_packages_that_the_bundle_brought_stay_and_are_named(
    brought: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    bring_docker(brought)
    found = read_installed(brought)
    assert found is not None
    uninstall(brought, found, destroy=True, dry=False)
    assert "docker.io installed" in brought.text("/fake/packages")
    assert "left: the Debian packages docker.io" in capsys.readouterr().err
    assert "dpkg --" not in brought.text("/fake/programs").replace("dpkg --install", "")


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_fails_never_purges_an_engine(brought: Machine, there: bool) -> None:
    if there:
        brought.at("/var/lib/docker/image").mkdir(parents=True)
    brought.at("/fake/0.2.0-fails-starting").touch()
    with pytest.raises(Fault):
        bring_docker(brought)
    assert ("docker.io installed" in brought.text("/fake/packages")) == there
    assert "--purge" not in brought.text("/fake/programs")


DAEMON = "/etc/docker/daemon.json"


def test_it_is_told_to_name_images_by_their_configuration_before_it_starts(brought: Machine) -> None:
    bring_docker(brought)
    assert json.loads(brought.text(DAEMON)) == {"features": {"containerd-snapshotter": False}}
    found = read_installed(brought)
    assert found is not None
    uninstall(brought, found, destroy=True, dry=False)
    assert brought.at(DAEMON).exists(), "it stays with the engine, whose images it would lose"


def test_what_an_engine_is_told_already_is_kept_and_what_we_told_goes_with_it(brought: Machine) -> None:
    brought.at("/fake/0.2.0-fails-starting").touch()
    with pytest.raises(Fault):
        bring_docker(brought)
    assert not brought.at(DAEMON).parent.exists()
    brought.at(DAEMON).parent.mkdir()
    brought.at(DAEMON).write_text("{}")
    with pytest.raises(Fault):
        bring_docker(brought)
    assert brought.text(DAEMON) == "{}"


def test_no_engine_is_brought_over_what_another_keeps(brought: Machine) -> None:
    brought.at("/var/lib/docker/volumes/of-somebody").mkdir(parents=True)
    with pytest.raises(Fault, match="holds what another engine keeps"):
        bring_docker(brought)
    assert "dpkg --install" not in brought.text("/fake/programs")


def test_it_is_waited_for_and_a_dry_run_only_tells_of_it(brought: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    brought.at("/fake/packages").write_text("bash installed\n")
    before = snapshot(brought.root)
    bring_docker(brought, "--dry-run")
    told = capsys.readouterr().err
    assert "would install the Debian packages docker.io" in told and "would link /opt/cloister/current" in told
    assert snapshot(brought.root) == before and "systemctl start" not in brought.text("/fake/programs")
    bring_docker(brought)
    assert "cloister-core.service" in running(brought)
    assert 'socket = "unix:///run/docker.sock"' in brought.text("/etc/cloister/node.toml")


@pytest.mark.parametrize("role", ["node", "hub"])
def test_what_else_the_bundle_brings_is_installed_where_an_engine_answers(machine: Machine, role: str) -> None:
    names = ("docker.io", "logrotate", "libpopt0", "runc")
    source = replace(
        version_of(machine.root, "0.2.0"), packages=tuple((each, Path(f"/x/{each}_1_amd64.deb")) for each in names)
    )
    write_script(
        machine.at("/usr/bin/dpkg-deb"), "print('Depends: libc6 (>= 2.4), cron | cron-daemon, libpopt0 (>= 1)')"
    )
    answers = ANSWERS if role == "node" else HUB_ANSWERS
    install_from(machine, parser().parse_args([role, *answers]), source, None)
    asked = [line for line in machine.text("/fake/programs").splitlines() if line.startswith("dpkg --")]
    assert asked == ["dpkg --install /x/logrotate_1_amd64.deb /x/libpopt0_1_amd64.deb"]
