"""The table of checks: each thing that will hurt is seen, with its cure, and what is well is not complained of."""

from __future__ import annotations

import json
import os
import stat
import sys

import pytest

from deploy.install.check_disks import mount_of
from deploy.install.checks import Finding, Wanted, check, failed, show
from deploy.install.machine import Machine
from tests.installer.ground import engine, write_script

NODE = Wanted("node", hub=("127.0.0.1", 9))


def found(machine: Machine, what: str, wanted: Wanted = NODE) -> Finding:
    return next(each for each in check(machine, wanted) if each.what == what)


def write(machine: Machine, path: str, text: str) -> None:
    machine.at(path).parent.mkdir(parents=True, exist_ok=True)
    machine.at(path).write_text(text)


def test_every_part_of_the_machine_has_a_line_and_every_trouble_a_cure(machine: Machine) -> None:
    findings = check(machine, NODE)
    assert {each.what for each in findings} >= {
        "system", "systemd", "python", "engine", "gpus", "cgroups", "user namespaces", "disk of the programs",
        "disk of the data", "data disk", "encryption", "memory", "clock", "dns", "hub", "inbound ports", "apparmor",
        "services",
    }  # fmt: skip
    assert [each.what for each in findings if each.state in ("warning", "failed") and not each.cure] == []
    assert failed(findings) == []


def test_the_engine_of_a_node_that_stands_is_the_one_it_names(bare: Machine) -> None:
    again = Wanted("node", again=True)
    assert found(bare, "engine", again).state == "failed"
    with engine(bare.root, at="run/user/7/podman.sock"):
        write(bare, "/etc/cloister/node.toml", '[engine]\nsocket = "unix:///run/user/7/podman.sock"\n')
        seen = found(bare, "engine", again)
        assert seen.state == "ok" and seen.detail.endswith("at unix:///run/user/7/podman.sock")
    assert found(bare, "engine", again).detail == "none answers at unix:///run/user/7/podman.sock"
    write(bare, "/etc/cloister/node.toml", '[engine]\nsocket = "https://engine.test:2376"\n')
    assert found(bare, "engine", again).state == "unknown"
    write(bare, "/etc/cloister/node.toml", "[engi")
    assert found(bare, "engine", again).detail == "none answers"


@pytest.mark.parametrize(
    ("path", "text", "what", "state", "says"),
    [
        ("/etc/os-release", 'ID=fedora\nVERSION_ID="41"\n', "system", "failed", "fedora-41"),
        ("/proc/meminfo", "MemTotal: 1048576 kB\n", "memory", "failed", "1.0 GiB"),
        ("/sys/fs/selinux/enforce", "1\n", "selinux", "failed", "not supported"),
        ("/sys/module/apparmor/parameters/enabled", "N\n", "apparmor", "warning", "neither"),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu io\n", "cgroups", "failed", "memory, pids"),
        ("/proc/sys/user/max_user_namespaces", "0\n", "user namespaces", "warning", "none"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0\n", "user namespaces", "warning", "root's alone"),
        ("/proc/self/mounts", "s:/v /var/lib/cloister nfs4 rw 0 0\n", "data disk", "failed", "nfs4"),
        ("/proc/self/mounts", "/dev/b /var/lib/cloister xfs ro 0 0\n", "data disk", "ok", "/dev/b (xfs)"),
        ("/proc/self/mounts", "/dev/a / ext4 rw,usrquota 0 0\n", "quotas", "warning", "on for /"),
        ("/proc/self/mounts", "/dev/a / ext4 rw,noexec 0 0\n", "programs", "failed", "noexec"),
    ],
)  # fmt: skip
def test_what_will_hurt_is_seen(machine: Machine, path: str, text: str, what: str, state: str, says: str) -> None:
    write(machine, path, text)
    seen = found(machine, what)
    assert seen.state == state and says in seen.detail, seen


def test_a_disk_that_is_read_only_is_seen_though_it_is_a_disk(machine: Machine) -> None:
    write(machine, "/proc/self/mounts", "/dev/b /var/lib/cloister xfs ro 0 0\n")
    assert [each.state for each in check(machine, NODE) if each.what == "data disk"] == ["ok", "failed"]


def test_the_nearest_mount_counts(machine: Machine) -> None:
    lines = "/dev/a / ext4 rw 0 0\n/dev/b /var xfs rw 0 0\n/dev/c /var/lib/cloister-not xfs rw 0 0\n"
    write(machine, "/proc/self/mounts", lines)
    mount = mount_of(machine, "/var/lib/cloister")
    assert mount is not None and mount[1] == "/dev/b"


def test_an_encrypted_volume_is_recognised_below_lvm_too(machine: Machine) -> None:
    write(machine, "/proc/self/mounts", "/dev/mapper/data / ext4 rw 0 0\n")
    write(machine, "/dev/dm-1", "")
    machine.at("/dev/mapper").mkdir(parents=True, exist_ok=True)
    machine.at("/dev/mapper/data").symlink_to("../dm-1")
    write(machine, "/sys/class/block/dm-1/dm/uuid", "LVM-abc\n")
    assert found(machine, "encryption").state == "warning"
    write(machine, "/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n")
    machine.at("/sys/class/block/dm-1/slaves/dm-0").mkdir(parents=True)
    assert found(machine, "encryption").state == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device's node")
def test_an_encrypted_volume_is_known_by_its_number_where_its_name_is_no_link(machine: Machine) -> None:
    write(machine, "/proc/self/mounts", "/dev/mapper/data / ext4 rw 0 0\n")
    machine.at("/dev/mapper").mkdir(parents=True)
    os.mknod(machine.at("/dev/mapper/data"), stat.S_IFBLK | 0o600, os.makedev(254, 3))
    assert found(machine, "encryption").state == "warning"
    write(machine, "/sys/devices/virtual/block/dm-3/dm/uuid", "CRYPT-LUKS2-abc\n")
    for folder, name in (("/sys/dev/block", "254:3"), ("/sys/class/block", "dm-3")):
        machine.at(folder).mkdir(parents=True, exist_ok=True)
        machine.at(f"{folder}/{name}").symlink_to(machine.at("/sys/devices/virtual/block/dm-3"))
    assert found(machine, "encryption").detail == "/dev/mapper/data is encrypted"


def test_no_engine_is_a_failure_unless_the_bundle_brings_one(bare: Machine) -> None:
    assert found(bare, "engine").state == "failed" and "apt-get" in found(bare, "engine").cure
    assert found(bare, "engine", Wanted("node", brings=("podman",))).state == "ok"
    assert not [each for each in check(bare, Wanted("hub", port=18443)) if each.what == "engine"]


@pytest.mark.parametrize(("version", "state"), [("19.3.1", "failed"), ("20.10.24", "ok"), ("28.0.0", "ok")])
def test_an_engine_is_named_with_its_version_and_an_old_one_refused(bare: Machine, version: str, state: str) -> None:
    with engine(bare.root, version):
        seen = found(bare, "engine")
    assert seen.state == state and f"docker {version}" in seen.detail


def test_an_engine_that_names_images_by_their_manifests_is_refused_with_the_cure(bare: Machine) -> None:
    with engine(bare.root, "29.1.3", store="io.containerd.snapshotter.v1"):
        seen = found(bare, "engine")
    assert seen.state == "failed" and "containerd" in seen.detail and "/etc/docker/daemon.json" in seen.cure


def test_a_clock_that_is_synchronised_is_well(machine: Machine) -> None:
    assert found(machine, "clock").state == "warning"
    write_script(machine.at("/usr/bin/timedatectl"), "print('yes')\n")
    assert found(machine, "clock").state == "ok"


def test_a_name_that_nobody_knows_is_told_before_enrolment(machine: Machine) -> None:
    assert found(machine, "dns", Wanted("node", hub=("no-such-host.invalid", 8443))).state == "warning"


def test_services_of_somebody_else_are_a_conflict(machine: Machine) -> None:
    write_script(machine.at("/usr/bin/systemctl"), "print('cloister-core.service loaded active running Core')\n")
    assert found(machine, "services").state == "failed"


def test_the_table_is_json_too(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    findings = check(machine, NODE)
    show(findings, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert [each["what"] for each in plain] == [each.what for each in findings]
    assert set(plain[0]) == {"what", "state", "detail", "cure"}
    show(findings)
    assert len(capsys.readouterr().out.splitlines()) >= len(findings)


def test_a_trial_root_never_touches_the_real_machine(machine: Machine) -> None:
    assert machine.program("systemctl") == str(machine.root / "usr/bin/systemctl")
    assert machine.run(["hostname"]).code == 127 and machine.run([sys.executable, "-c", "import time; time.sleep(9)"],
                                                                timeout_s=0.2).code == 124  # fmt: skip
