"""A disk that is full in the middle: a file system of its own, of a few GiB, on which nothing more can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.install import layout
from deploy.install.databases import standing
from deploy.install.journal import read_installed
from deploy.install.machine import Machine
from deploy.install.talk import Fault
from deploy.install.upgrade import upgrade
from tests.installer.ground import build, engine, put, running, snapshot, version_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="no disk can be made of a file here"),
]
_GIB, _MIB = 1 << 30, 1 << 20


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose every file lies on one disk of 25 GiB, of which this one's holds what is written alone."""
    image, root = tmp_path / "disk", Path(tempfile.mkdtemp(prefix="inst-", dir="/tmp"))
    with image.open("wb") as file:
        file.truncate(30 * _GIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-N", "8192", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        root.chmod(0o755)
        machine = build(root)
        with engine(root):
            yield machine
    finally:
        subprocess.run(["umount", "-l", root], check=True)
        shutil.rmtree(root)


def free(machine: Machine) -> int:
    return shutil.disk_usage(machine.root).free


def seen(machine: Machine) -> dict[str, str]:
    return {name: each for name, each in snapshot(machine.root).items() if not name.startswith("fake/fill")}


@pytest.mark.parametrize(("at", "role"), [("systemd-sysusers", "node"), ("systemctl", "hub")])
def test_an_installation_leaves_the_machine_as_it_was(full: Machine, at: str, role: str) -> None:
    full.at(f"/fake/fills-{at}").touch()
    before = seen(full)
    with pytest.raises((Fault, OSError)):
        put(full, "0.2.0", role=role)
    assert full.at("/run/filler").exists() and free(full) < _MIB, "it was full by then"
    assert seen(full) == before
    full.at(f"/fake/fills-{at}").unlink()
    full.at("/run/filler").unlink()
    put(full, "0.2.0", role=role)
    assert f"cloister-{role}.target" in running(full), "with room, it goes on from nothing"


@pytest.mark.parametrize("journal", ["wal", "rollback"])
def test_a_migration_that_finds_no_more_room_is_taken_back_and_the_version_before_runs(
    full: Machine, journal: str
) -> None:
    """What it wrote so far lies beside the database, and fills the disk, until somebody opens that again."""
    full.at(f"/fake/{journal}").touch()
    put(full, "0.2.0")
    before, installed = seen(full), read_installed(full)
    assert installed is not None
    full.at("/fake/0.3.0-grows-migrating").touch()
    with full.at("/run/filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(full) - 200 * _MIB)
    kept = free(full)
    with pytest.raises(Fault, match="did not start"):
        upgrade(full, installed, version_of(full.root, "0.3.0"), wait_s=0, dry=False)
    database = full.at(layout.database("node"))
    assert standing(database, "node").revision == "0012" and abs(free(full) - kept) < 4 * _MIB
    assert running(full) == {"cloister-node.target", "cloister-core.service", "cloister-link.service"}
    own = ("var/lib/cloister/node/core", "var/lib/cloister/before-upgrade", "fake/0.3.0")
    after = seen(full)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name) and not name.startswith(own)} == (
        set()
    )


def test_no_copy_is_begun_where_it_would_not_fit(full: Machine) -> None:
    put(full, "0.2.0")
    before, installed = seen(full), read_installed(full)
    assert installed is not None
    with full.at("/run/filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(full) - 32 * _MIB)
    with pytest.raises(Fault, match="no room for a copy"):
        upgrade(full, installed, version_of(full.root, "0.3.0"), wait_s=0, dry=False)
    assert full.at(layout.CURRENT).readlink() == Path("0.2.0") and "cloister-core.service" in running(full)
    changed = {name for name in before if before[name] != seen(full).get(name)}
    assert changed <= {"var/lib/cloister/node/core/node.db"}, "but for the start that the version before wrote down"
