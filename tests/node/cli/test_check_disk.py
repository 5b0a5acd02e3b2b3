"""`cloister check` about disks: room, encrypted volumes, quotas."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.cli.check_disk import disk, is_encrypted, mount_of, volume

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/dm-0 rw,errors=remount-ro
30 22 254:3 / /srv/two\040words rw,noatime shared:9 - ext4 /dev/dm-3 rw,usrquota
31 22 0:44 / /home/a rw - ecryptfs /home/.a rw
32 22 0:45 / /tank rw - zfs tank rw
33 30 8:17 / /srv/two\040words/under rw - xfs /dev/sdb1 rw,prjquota,noquota
"""


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """`/proc` and `/sys` of a machine with LUKS below LVM below `/`, a plain second disk, and a mirror of both."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_text(MOUNTS)
    devices = {"254:0": ("LVM-x", ["254:1"]), "254:1": ("CRYPT-LUKS2-x", ["8:1"]), "8:1": ("", []),
               "8:17": ("", []), "254:3": ("LVM-y", ["254:1", "8:17"])}  # fmt: skip
    for number, (uuid, below) in devices.items():
        at = sys / "dev/block" / number
        (at / "slaves").mkdir(parents=True)
        if uuid:
            (at / "dm").mkdir()
            (at / "dm/uuid").write_text(f"{uuid}\n")
        for each in below:
            (at / "slaves" / each).mkdir()
            (at / "slaves" / each / "dev").write_text(f"{each}\n")
    return proc, sys


def test_a_folder_lies_on_the_nearest_mount(machine: tuple[Path, Path]) -> None:
    for folder, point in {
        "/var/lib/cloister": "/", "/srv/two words/x": "/srv/two words",
        "/srv/two words/under/x": "/srv/two words/under",
        "/srv/two wordsmith": "/",
    }.items():  # fmt: skip
        found = mount_of(Path(folder), machine[0])
        assert found is not None and found.point == Path(point), folder


def test_luks_is_seen_through_a_volume_manager_and_one_plain_disk_below_is_not_encrypted(
    machine: tuple[Path, Path],
) -> None:
    seen = {number: is_encrypted(number, machine[1]) for number in ("254:0", "254:1", "8:1", "8:17", "254:3", "9:9")}
    assert seen == {"254:0": True, "254:1": True, "8:1": False, "8:17": False, "254:3": False, "9:9": False}


@pytest.mark.parametrize(
    ("folder", "states"),
    [
        ("/var/lib/cloister", ["ok"]), ("/home/a/b", ["ok"]), ("/tank/x", ["unknown"]),
        ("/srv/two words/x", ["warning", "warning"]), ("/srv/two words/under", ["warning", "warning"]),
    ],
)  # fmt: skip
def test_encryption_and_quotas_are_said(machine: tuple[Path, Path], folder: str, states: list[str]) -> None:
    found = list(volume("state volume", Path(folder), proc=machine[0], sys=machine[1]))
    assert [each["state"] for each in found] == states
    if len(found) > 1:
        assert found[1]["what"] == "quotas" and "quota" in found[1]["detail"] and "noquota" not in found[1]["detail"]


def test_a_real_folder_lies_on_a_real_mount(tmp_path: Path) -> None:
    found = mount_of(tmp_path)
    assert found is not None and tmp_path.resolve().is_relative_to(found.point)
    assert next(volume("state volume", tmp_path))["what"] == "state volume"


def test_a_disk_with_little_room_and_one_with_none_are_said(tmp_path: Path) -> None:
    assert disk("state disk", tmp_path, least=0, little=0)["state"] == "ok"
    assert disk("state disk", tmp_path, least=0, little=1 << 60)["state"] == "warning"
    found = disk("state disk", tmp_path, least=1 << 60)
    assert found["state"] == "missing" and str(tmp_path) in found["mend"]
    assert disk("state disk", tmp_path / "absent")["state"] == "unknown"
