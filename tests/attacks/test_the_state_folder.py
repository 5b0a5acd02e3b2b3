"""Core against root: what a process that is not to be believed can do to the state folder around it, as its own user.

No engine is needed. Each attempt is made by a process of that user, on real folders with their real owners.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from federation.client.link import Link
from mediator.errors import NotNow, UsageFault
from mediator.signatures import KeyRing, SigningKey
from node.cli.it.pause import _mark as mark_as_core
from node.host.config import NodeConfig
from node.host.paths import StatePaths
from node.host.processes import named
from node.host.state import check_state, folders, look_at_state, migrate_state, prepare_state
from node.host.supervisor import Supervisor, is_ready
from tests.mediator.test_grammar import ENVELOPE
from tests.node.host.test_state import IDS, config_in
from tests.node.host.test_supervisor import Node, alive, until
from tests.sim.users import as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="tries what each of a node's users may do")

SWAP = """
import os, sys
folder, elsewhere = sys.argv[1:]
for attempt in (lambda: os.rename(folder, folder + ".away"), lambda: os.rmdir(folder),
                lambda: os.symlink(elsewhere, folder + ".new") or os.rename(folder + ".new", folder)):
    try:
        attempt()
    except OSError:
        continue
    if not os.path.isdir(folder) or os.path.islink(folder):
        os.path.lexists(folder) or os.symlink(elsewhere, folder)
        sys.exit(9)
"""


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that every user may pass through, as pytest's own are not."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


@pytest.fixture
def config(open_path: Path) -> NodeConfig:
    made = config_in(open_path, separate=True)
    prepare_state(made)
    return made


@pytest.fixture
def elsewhere(open_path: Path) -> Path:
    """What an attacker would have root write into, or give away."""
    folder = open_path / "elsewhere"
    folder.mkdir(mode=0o755)
    (folder / "core.log").write_text("root's own\n")
    return folder


def swap(uid: int, folder: Path, elsewhere: Path) -> bool:
    """Whether a process of user `uid` gets something of its own into the folder's place."""
    tried = ["/usr/bin/python3", "-I", "-c", SWAP, str(folder), str(elsewhere)]
    ended = subprocess.run(as_user(tried, uid, [IDS["link"], IDS["intake"]] if uid == IDS["core"] else []), check=False)
    assert ended.returncode in (0, 9)
    return ended.returncode == 9


@pytest.mark.parametrize("role", IDS)
def test_no_process_puts_a_link_in_the_place_of_anothers_folder(config: NodeConfig, elsewhere: Path, role: str) -> None:
    """Core owned the state folder once, and could."""
    others = [each for each in folders(config) if each.uid != IDS[role]]
    assert len(others) > 8
    assert [each.path for each in others if swap(IDS[role], each.path, elsewhere)] == []
    assert check_state(config) == [] and sorted(os.listdir(elsewhere)) == ["core.log"]


def test_whoever_owns_a_folder_on_the_way_owns_what_it_leads_to(config: NodeConfig) -> None:
    """What the test above tries, as a rule over all folders there will be."""
    owned = {each.path: each for each in folders(config)}
    for each in owned.values():
        for parent in each.path.parents:
            if parent in owned:
                assert owned[parent].uid in (0, each.uid), (parent, each.path)
                assert not owned[parent].mode & 0o022 or owned[parent].mode & 0o1000, parent


def test_whatever_core_writes_has_a_folder_of_cores(config: NodeConfig) -> None:
    """In the state folder itself stand folders, and what root writes there."""
    paths = config.paths
    named = {name: getattr(paths, name) for name, kind in vars(StatePaths).items() if isinstance(kind, property)}
    listed = {each.path for each in folders(config)}
    loose = {name for name, path in named.items() if isinstance(path, Path) and path.parent == paths.root}
    assert {name for name in loose if named[name] not in listed} == {"audit_keys"}


def test_core_cannot_have_root_make_or_give_away_a_file_elsewhere(config: NodeConfig, elsewhere: Path) -> None:
    """Keys are made in core's own folder, where core may put what it likes."""
    paths = config.paths
    paths.audit_key.unlink()
    paths.audit_key.with_name("audit.key.pub").unlink()
    paths.audit_key.symlink_to(elsewhere / "new")
    os.chown(paths.audit_key, IDS["core"], IDS["core"], follow_symlinks=False)
    with pytest.raises(UsageFault):
        prepare_state(config)
    assert sorted(os.listdir(elsewhere)) == ["core.log"]
    assert (elsewhere / "core.log").stat().st_uid == 0


@pytest.mark.parametrize("way", ["pipe", "folder", "second name"])
def test_roots_own_pause_is_not_kept_waiting_nor_writes_elsewhere(
    config: NodeConfig, elsewhere: Path, way: str
) -> None:
    ready = config.paths.pause_mark.with_name("paused.ready")
    if way == "pipe":
        os.mkfifo(ready)
    elif way == "folder":
        ready.mkdir()
    else:
        os.link(elsewhere / "core.log", ready)
    signal.alarm(5)
    try:
        assert mark_as_core(config)
    finally:
        signal.alarm(0)
    assert os.path.lexists(config.paths.pause_mark) and os.geteuid() == 0
    assert (elsewhere / "core.log").read_text() == "root's own\n"


@pytest.mark.parametrize("way", ["link", "second name", "core's"])
def test_root_writes_a_log_into_its_own_file_alone(
    config: NodeConfig, elsewhere: Path, open_path: Path, way: str
) -> None:
    """What a core of an earlier version may have left under a log's name."""
    log = config.paths.logs / "broker.log"
    if way == "link":
        log.symlink_to(elsewhere / "core.log")
    elif way == "second name":
        os.link(elsewhere / "core.log", log)
    else:
        log.write_text("root's own\n")
        os.chown(log, IDS["core"], IDS["core"])
    command = ["/usr/bin/python3", "-c", "print('written')"]
    supervisor = Supervisor(config, open_path / "node.toml", command=lambda _role: command)
    if way == "link":
        with pytest.raises(NotNow, match="cannot write the log"):
            supervisor.run()
    else:
        supervisor._start(named("broker")).wait()
        assert log.read_text() == "written\n" and log.stat().st_uid == 0
    assert (elsewhere / "core.log").read_text() == "root's own\n"


def old_install(config: NodeConfig) -> None:
    """The state folder as earlier versions made it: core's own, with core's database in it."""
    paths, core = config.paths, IDS["core"]
    paths.core.rmdir()
    for path, mode in ((paths.root, 0o711), (paths.run, 0o711), (paths.work, 0o711)):
        os.chown(path, core, core)
        path.chmod(mode)
    with closing(sqlite3.connect(paths.root / "node.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE kept (word TEXT)")
        database.execute("INSERT INTO kept VALUES ('here')")
        database.commit()
        for name in ("node.db", "node.db-wal", "node.db-shm"):  # as a crash leaves it: the words are in the log
            (paths.root / f"{name}.copy").write_bytes((paths.root / name).read_bytes())
    for name in ("node.db", "node.db-wal", "node.db-shm"):
        (paths.root / f"{name}.copy").rename(paths.root / name)
    (paths.root / "paused").touch()
    for name in ("node.db", "node.db-wal", "node.db-shm", "paused"):
        os.chown(paths.root / name, core, core)


@pytest.fixture
def start(config: NodeConfig, open_path: Path) -> Iterator[Callable[[], Node]]:
    nodes: list[Node] = []

    def begin() -> Node:
        nodes.append(Node(open_path, config, {}))
        return nodes[-1]

    yield begin
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
        node.process.communicate()


def test_an_earlier_versions_state_is_taken_from_core_at_the_start(
    config: NodeConfig, start: Callable[[], Node]
) -> None:
    old_install(config)
    assert "earlier version" in " ".join(look_at_state(config).wrong) and check_state(config) != []
    node = start()
    until(lambda: all(node.pids(role) for role in IDS) and is_ready(config))
    assert check_state(config) == []
    paths = config.paths
    assert (paths.root.stat().st_uid, paths.core.stat().st_uid) == (0, IDS["core"])
    assert not [name for name in os.listdir(paths.root) if name.startswith("node.db") or name == "paused"]
    assert paths.pause_mark.exists() and paths.database.stat().st_uid == IDS["core"]
    with closing(sqlite3.connect(paths.database)) as database:
        assert database.execute("SELECT word FROM kept").fetchall() == [("here",)]
    assert "4 files of core's" in node.stop()


def test_an_earlier_core_that_had_swapped_a_folder_stops_the_start(
    config: NodeConfig, elsewhere: Path, start: Callable[[], Node]
) -> None:
    old_install(config)
    config.paths.logs.rmdir()
    assert swap(IDS["core"], config.paths.logs, elsewhere) or not config.paths.logs.exists()
    if not config.paths.logs.is_symlink():
        config.paths.logs.symlink_to(elsewhere)
    node = start()
    assert node.process.wait(15) != 0
    assert (elsewhere / "core.log").read_text() == "root's own\n" and elsewhere.stat().st_mode & 0o777 == 0o755
    assert sorted(os.listdir(elsewhere)) == ["core.log"]


def test_a_database_in_two_places_is_nobodys_to_choose_from(config: NodeConfig) -> None:
    old_install(config)
    config.paths.core.mkdir()
    config.paths.database.write_text("another")
    with pytest.raises(UsageFault, match=r"node\.db"):
        migrate_state(config)
    assert config.paths.database.read_text() == "another" and (config.paths.root / "node.db").exists()


def test_a_folder_opened_to_others_while_the_node_runs_ends_the_node(
    config: NodeConfig, start: Callable[[], Node]
) -> None:
    """Not at the start alone: core is told, everybody ends, and nothing starts before a person has looked."""
    node = start()
    until(lambda: all(node.pids(role) for role in IDS) and is_ready(config))
    pids = [pid for role in IDS for pid in node.pids(role)]
    config.paths.keys.chmod(0o755)
    assert node.process.wait(20) != 0
    assert "told: the state folder changed" in node.said("core")
    assert node.process.stderr is not None and b"has changed under the running node" in node.process.stderr.read()
    assert not any(alive(pid) for pid in pids)
    again = start()
    assert again.process.wait(15) != 0 and not any(alive(pid) for pid in pids)


def test_a_state_folder_that_a_link_leads_to_is_refused(open_path: Path) -> None:
    (open_path / "real").mkdir()
    (open_path / "state").symlink_to(open_path / "real")
    config = config_in(open_path, separate=True)
    with pytest.raises(UsageFault, match="write: state_dir = "):
        prepare_state(config)
    assert list((open_path / "real").iterdir()) == []


async def test_the_link_pushes_no_file_that_a_link_in_the_spool_leads_to(open_path: Path) -> None:
    """The spool is core's to write, and the link could be led to its own key."""
    spool, secret = open_path / "spool", open_path / "link.key"
    (spool / "release").mkdir(parents=True)
    secret.write_text("the link's own")
    (spool / "release" / "model").symlink_to(secret)
    (spool / "other").symlink_to(open_path)
    (spool / "release" / "plain").write_text("core's")
    release = SigningKey(b"7" * 32)
    pushed: list[bytes] = []

    class Reads:
        def push_release(self, _context: bytes, _envelope: object, read: Callable[[str], bytes]) -> None:
            pushed.append(read(self.key))

        key = "plain"

    reads = Reads()
    link: Any = object.__new__(Link)
    link._own = SimpleNamespace(release_keys=KeyRing([release.verify_key]))
    link._config, link._fleet = SimpleNamespace(spool=spool), reads
    link._core = SimpleNamespace(may_leave=AsyncMock(return_value=True))
    link._channel, link._notes = SimpleNamespace(ask=AsyncMock()), Mock()
    link._clock = lambda: datetime.min.replace(tzinfo=UTC)
    signed = release.sign(ENVELOPE)
    assert await link._push("i", b"", signed, "release")
    for folder, key in (("release", "model"), ("other", "link.key")):
        reads.key = key
        with pytest.raises(OSError, match=r"symbolic|directory"):
            await link._push("i", b"", signed, folder)
    assert pushed == [b"core's"]
