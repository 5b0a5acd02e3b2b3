"""The guard: a real process that holds a node's pid file, and ends when the state folder is changed under it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediator.errors import NotNow, UsageFault
from node.host.config import NodeConfig
from node.host.guard import guard
from node.host.notify import Notifier
from node.host.state import check_state, prepare_state
from node.host.supervisor import Supervisor, only_one, sound_folders
from tests.node.host.test_notify import Manager
from tests.node.host.test_state import config_in
from tests.node.host.test_supervisor import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the guard is root's")

DRIVER = """
import sys
from pathlib import Path
from mediator.errors import CloisterError
from node.host import guard, supervisor
from node.host.config import load_config
from node.host.notify import Notifier
guard.STATE_CHECK_S = 0.2
def tell(unit):
    Path(sys.argv[2]).write_text(unit)
try:
    guard.guard(load_config(Path(sys.argv[1])), Notifier.from_environment(), tell=tell)
except CloisterError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def passable(tmp_path: Path) -> Path:
    """The node's users must get to where the state folder is."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


class Guarded:
    def __init__(self, tmp_path: Path) -> None:
        self.config = config_in(tmp_path, separate=True)
        self.told = tmp_path / "told"
        self.manager = Manager(tmp_path / "notify")
        prepare_state(self.config)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path / "node.toml"), str(self.told)],
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(self.manager.path), "WATCHDOG_USEC": "3000000"},
        )
        self.heard: list[str] = []

    def hears(self, word: str) -> bool:
        self.heard += self.manager.heard()
        return word in self.heard

    def ended(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=15)
        return self.process.returncode, said.decode()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    node = Guarded(passable(tmp_path))
    until(lambda: node.hears("READY=1"))
    yield node
    if node.process.poll() is None:
        node.process.kill()
    node.process.communicate()
    node.manager.close()


def test_it_says_that_it_lives_as_often_as_it_looks(guarded: Guarded) -> None:
    until(lambda: guarded.hears("WATCHDOG=1") and guarded.heard.count("WATCHDOG=1") > 2)
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.ended() == (0, "")
    assert guarded.hears("STOPPING=1") and not guarded.told.exists()


def test_a_folder_that_is_changed_ends_it_after_core_was_told(guarded: Guarded) -> None:
    guarded.config.paths.keys.chmod(0o777)
    status, said = guarded.ended()
    assert status == 4 and str(guarded.config.paths.keys) in said
    assert guarded.told.read_text() == "cloister-core.service"


def test_serve_is_refused_while_the_units_run_the_node(guarded: Guarded, tmp_path: Path) -> None:
    with pytest.raises(NotNow, match="by the system's service manager") as refused:
        Supervisor(guarded.config, tmp_path / "node.toml").run()
    assert "systemctl stop" in (refused.value.hint or "")


def prepared(tmp_path: Path) -> NodeConfig:
    config = config_in(passable(tmp_path), separate=True)
    prepare_state(config)
    return config


def test_the_guard_is_refused_while_serve_runs_the_node(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    with only_one(config), pytest.raises(NotNow, match=r"running already$"):
        guard(config, Notifier())


def test_it_does_not_begin_over_a_folder_that_is_not_as_it_must_be(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    config.paths.keys.chmod(0o777)
    with pytest.raises(UsageFault, match="not as it must be"):
        guard(config, Notifier())
    with only_one(config):
        pass  # the pid file is nobody's again


def test_a_folder_of_an_earlier_version_is_brought_up_to_date_before_it_is_looked_at(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    (config.paths.root / "node.db").write_bytes(b"")
    core = config.users.accounts()["core"]
    os.chown(config.paths.root, core.uid, core.gid)
    with only_one(config, by="units"):
        assert len(sound_folders(config)) > len(config.users.accounts())
    assert not (config.paths.root / "node.db").exists() and config.paths.database.exists()
    assert check_state(config) == []


def test_a_node_under_one_user_has_no_guard(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    with pytest.raises(UsageFault, match="each process has its own user"):
        guard(config, Notifier())
