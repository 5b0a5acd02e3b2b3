"""What a service manager is told: on a real socket of its kind, by the processes that tell it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.host.notify import Notifier, Pulse
from node.link.process import _beat
from tests.node.host.test_supervisor import until

TELLER = """
import asyncio
import os
from node.host.notify import Notifier
notifier = Notifier.from_environment()
notifier.ready(); notifier.alive(); notifier.stopping()
print(notifier.every_s, [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))])
"""


class Manager:
    """The end of a service manager: a datagram socket, and what arrived on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(256).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def tell(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TELLER]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)


def test_a_process_says_that_it_serves_lives_and_ends_and_its_children_cannot(manager: Manager) -> None:
    said = tell(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="60000000").stdout
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert said == "20.0 []\n"


def test_another_process_is_meant_by_the_watchdog(manager: Manager) -> None:
    assert tell(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC="60000000", WATCHDOG_PID="1").stdout == "None []\n"


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    assert tell().stdout == "None []\n"
    assert tell(NOTIFY_SOCKET=str(tmp_path / "gone"), WATCHDOG_USEC="3000000").stdout == "1.0 []\n"


def test_a_loop_that_hangs_at_one_step_is_not_fed(manager: Manager) -> None:
    now = [0.0]
    pulse = Pulse(Notifier(str(manager.path), watchdog_s=0.03), longest_s=10.0, clock=lambda: now[0])
    pulse.start()
    until(lambda: "WATCHDOG=1" in manager.heard())
    pulse.step()
    now[0] = 11.0
    assert not pulse.beats
    time.sleep(0.1)
    manager.heard()
    time.sleep(0.1)
    assert manager.heard() == []
    pulse.idle()
    until(lambda: "WATCHDOG=1" in manager.heard())


async def test_a_link_whose_loop_is_held_up_is_not_fed(manager: Manager) -> None:
    beat = asyncio.create_task(_beat(Notifier(str(manager.path), watchdog_s=0.03)))
    await asyncio.sleep(0.1)
    heard = manager.heard()
    assert heard[0] == "READY=1" and heard.count("WATCHDOG=1") > 2
    time.sleep(0.1)
    assert manager.heard() == []
    beat.cancel()
