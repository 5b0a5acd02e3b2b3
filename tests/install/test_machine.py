"""The machines themselves: what the story says of an installer is worth what these are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.files import changes
from tests.install.machine import CGROUPS, Machine, found
from tests.install.network import join
from tests.install.roots import CACHE, DEBIAN_12

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine("test-one", DEBIAN_12) as one:
        yield one


def test_a_machine_boots_with_its_own_init_and_nothing_on_its_network(machine: Machine) -> None:
    assert machine.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert machine.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    links = machine.run("ip", "-o", "link").stdout.splitlines()
    assert {line.split()[1].split("@")[0].rstrip(":") for line in links} <= {"lo", "docker0", "tunl0", "sit0"}
    assert machine.run("ip", "route", "show", "default").stdout == ""


def test_an_engine_runs_in_it(machine: Machine) -> None:
    assert machine.run("docker", "info", "--format", "{{.Driver}}").stdout.strip() == "overlay2"


def test_what_was_written_is_listed_and_outlives_a_reboot_and_a_power_cut(machine: Machine) -> None:
    machine.write("/etc/cloister-test", "written", mode=0o640)
    machine.run("rm", "/etc/debian_version")
    machine.run("touch", "/etc/issue.net")  # written back as it was: no change
    machine.reboot()
    machine.run("sync")
    machine.cut_power()
    machine.start()
    listed = changes(machine)
    assert listed["/etc/cloister-test"].startswith("file 0:0 0640 ")
    assert listed["/etc/debian_version"] == "deleted"
    assert "/etc/issue.net" not in listed
    assert (machine.base / "etc/debian_version").exists()


def test_two_machines_reach_each_other_by_name_over_a_cable(machine: Machine) -> None:
    with Machine("test-two", DEBIAN_12) as other:
        join(machine, other)
        serving = "import socket; s = socket.create_server(('10.77.0.1', 8443)); s.accept()[0].sendall(b'here')"
        machine.shell(f'python3 -c "{serving}" >/dev/null 2>&1 & sleep 0.5')
        asking = "import socket; print(socket.create_connection(('test-one', 8443), 5).recv(9))"
        assert other.run("python3", "-c", asking).stdout.strip() == "b'here'"
        assert other.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert machine.run("systemctl", "is-system-running").stdout.strip() == "running"


def test_an_ended_machine_leaves_no_process_mount_or_folder() -> None:
    with Machine("test-end", DEBIAN_12) as one:
        pid, leader = one.pid(), one.leader()
        assert found("test-end").leader() == leader
    assert not Path(f"/proc/{leader}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert not (CACHE / "live" / "test-end").exists()
    assert "test-end" not in subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    assert not list(CGROUPS.glob("*/cloister-machine-test-end/*/cgroup.procs"))
