"""A core on a file system that is really full: the last records, and a restart."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mediator.audit import decode_line
from node.core.core import CoreProcess
from node.core.reserve import RESERVE_BYTES, Reserve
from node.core.switch import Switch
from node.core.tasks import pause
from node.host.config import NodeConfig
from node.host.keys import read_verify_key
from node.host.state import prepare_state
from tests.federation.ground import ROOT
from tests.node.core.process.test_process import configured, eventually
from tests.sim.runner import FakeRunner

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")

# the core that is killed: it has paused and left its mark on a full disk, and has written nothing down
KILLED = """
import os, sys
from pathlib import Path
from node.core.core import CoreProcess
from node.host.config import load_config
from node.host.keys import read_verify_key
from tests.node.core.process.test_full_disk import fill
from tests.sim.runner import FakeRunner
config = load_config(Path(sys.argv[1]))
process = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
process.start()
fill(config.paths.root)
switch = process.core.switch
sys.stdout.write(str(switch.mark("it_admin", switch.turn_on())))
sys.stdout.flush()
os._exit(9)
"""


def fill(root: Path) -> None:
    """Until neither a byte nor a name fits any more; what the write-ahead log had room for is given back first."""
    with closing(sqlite3.connect(root / "core" / "node.db", isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (root / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                pass
    for number in range(10_000):
        try:
            (root / f"name-{number}").touch()
        except OSError:
            return


@pytest.fixture
def config() -> Iterator[NodeConfig]:
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    (root / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=400", "tmpfs", root / "state"], check=True)
    made = configured(root)
    prepare_state(made)
    yield made
    subprocess.run(["umount", "-l", root / "state"], check=True)
    shutil.rmtree(root)


def core_of(config: NodeConfig) -> CoreProcess:
    return CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))


def pauses(process: CoreProcess) -> list[str]:
    with process.core.store.read() as snapshot:
        lines = [decode_line(line.encode()) for line in snapshot.audit_lines(0, 1_000)]
    return [line.actor for line in lines if line.action.value == "pause"]


def test_a_pause_is_written_down_on_a_disk_that_has_not_a_byte_left(config: NodeConfig) -> None:
    process = core_of(config)
    process.start()
    assert config.paths.reserve.stat().st_size == RESERVE_BYTES
    fill(config.paths.root)
    answer = pause.pause(process.core, process.sandboxes, "it_admin")
    assert answer.kept and config.paths.pause_mark.exists(), "the mark needs neither room nor a name of its own"
    eventually(lambda: pauses(process) == ["it_admin"])
    assert not config.paths.reserve.exists()
    (config.paths.root / "filler").unlink()
    assert process.core.reserve.make(), "and is there for the next time"
    for path in config.paths.root.glob("name-*"):
        path.unlink()
    process.stop()


def test_a_core_that_was_killed_on_a_full_disk_starts_on_it_and_begins_paused(config: NodeConfig) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(config.paths.root.parent / "node.toml")], cwd=ROOT, capture_output=True
    )
    assert (ran.returncode, ran.stdout) == (9, b"True"), ran.stderr.decode()
    found = os.statvfs(config.paths.root)
    assert found.f_bavail == 0 and found.f_ffree == 0
    process = core_of(config)
    process.start()
    assert process.greet(False), "paused from its first moment"
    process.watch.look()
    eventually(lambda: pauses(process) == ["it_admin.unknown"])
    (config.paths.root / "filler").unlink()
    process.stop()


def test_a_mark_is_made_where_no_file_can_be(config: NodeConfig) -> None:
    switch = Switch(config.paths.pause_mark)
    switch.prepare()
    for number in range(10_000):
        try:
            (config.paths.root / f"name-{number}").touch()
        except OSError:
            break
    assert switch.mark("data_steward.a.silva", switch.turn_on()) and switch.marked_by() == "data_steward.unknown"
    assert not Switch(config.paths.root / "another").mark("it_admin"), "which it would not be without the prepared one"
    switch.turn_off(switch.turn)
    assert not switch.marked


def test_a_reserve_is_made_only_where_it_leaves_room_and_freed_only_where_there_is_none(tmp_path: Path) -> None:
    size = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert not Reserve(tmp_path / "reserve", size // 2).make() and list(tmp_path.iterdir()) == []
    reserve = Reserve(tmp_path / "reserve", 1 << 20)
    assert reserve.make() and reserve.make() and not reserve.free_if_full()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20
    assert not Reserve().make() and not Reserve().free_if_full()
