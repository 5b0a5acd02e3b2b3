"""A node's and a hub's processes, started as their units start them: what each tells its service manager, and when."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.hub.config import load_config as load_hub
from federation.hub.state import HubState
from node.host.processes import named
from node.host.state import prepare_state
from node.host.supervisor import _answers
from tests.end_to_end.commands import ENVIRONMENT
from tests.end_to_end.machine import free_port
from tests.node.core.process.test_process import configured
from tests.node.host.test_notify import Manager
from tests.node.host.test_supervisor import until

WATCHDOG_S = 1.5


@pytest.fixture
def room() -> Iterator[Path]:
    # a Unix socket's name has at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    yield folder
    shutil.rmtree(folder)


class Started:
    def __init__(self, room: Path, *words: str) -> None:
        self.manager = Manager(room / f"{words[-1]}.notify")
        self.log = room / f"{words[-1]}.log"
        told = {"NOTIFY_SOCKET": str(self.manager.path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "node.cli", *words], stdout=out, stderr=out, cwd="/",
                env={**ENVIRONMENT, **told},
            )  # fmt: skip
        self.heard: list[str] = []

    def hears(self, word: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        self.heard += self.manager.heard()
        return word in self.heard

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.manager.close()


def lives(started: Started) -> None:
    """It is fed again and again; and not by a process that stands still."""
    for _ in range(2):
        started.heard.clear()
        until(lambda: started.hears("WATCHDOG=1"))
    started.process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    started.hears("")
    started.heard.clear()
    time.sleep(WATCHDOG_S)
    assert not started.hears("WATCHDOG=1")


@pytest.mark.parametrize("role", ["broker", "core"])
def test_it_is_ready_when_its_sockets_are_served_and_lives_while_its_loop_comes_round(room: Path, role: str) -> None:
    config = configured(room)
    prepare_state(config)
    config_file = str(room / "node.toml")
    started = Started(room, "node", "process", role, "--config", config_file)
    try:
        until(lambda: started.hears("READY=1"))
        assert all(_answers(config.paths.root / socket) for socket in named(role).sockets)
        lives(started)
    finally:
        started.end()


def test_intake_lives_while_it_waits_for_core(room: Path) -> None:
    config = configured(room)
    prepare_state(config)
    started = Started(room, "node", "process", "intake", "--config", str(room / "node.toml"))
    try:
        until(lambda: started.hears("READY=1"))
        lives(started)
    finally:
        started.end()


def test_the_hub_is_ready_when_nodes_may_connect(room: Path) -> None:
    port, file = free_port(), room / "hub.toml"
    file.write_text(
        f'version = 1\nname = "h"\nstate_dir = "state"\n[ingress]\nlisten = "127.0.0.1"\nport = {port}\n'
        f'hosts = ["127.0.0.1"]\n[trust]\ncommittee_keys = ["{"3" * 64}"]\n'
    )
    HubState.create(load_hub(file)).close()
    started = Started(room, "hub", "serve", "--config", str(file))
    try:
        until(lambda: started.hears("READY=1"), 60)
        assert "ready at" in started.log.read_text()
        lives(started)
    finally:
        started.end()
