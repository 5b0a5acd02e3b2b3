"""Programs that last: a hub, a node. Only what was started here is ever ended, by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deploy.driver.commands import Commands, as_user
from deploy.driver.failures import DriverFailed

T = TypeVar("T")
HOST = "127.0.0.1"
# a node stops its containers first (5 s by contract), then its processes
STOP_WITHIN_S = 20.0
READY_WITHIN_S = 60.0
_LOOK_S = 0.05

Launch = Callable[..., "subprocess.Popen[bytes]"]


def eventually(look: Callable[[], T | None], *, within_s: float = 30.0, what: str = "it") -> T:
    """What `look` finds, as soon as it finds something. Raises `DriverFailed` when it finds nothing in time."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise DriverFailed(f"{what} did not happen within {within_s:g} s", code=5)
        time.sleep(_LOOK_S)
    return found


def start(commands: Commands, log: Path, *words: object, uid: int | None = None) -> subprocess.Popen[bytes]:
    """Start `cloister WORDS…` in a session of its own and leave it running; it talks into `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [str(commands.cloister), *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/",
            env=dict(commands.environment), start_new_session=True, **as_user(uid),
        )  # fmt: skip


@dataclass
class Service:
    """A program that was started and lasts."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_until_said(self, word: bytes, beyond: int, *, within_s: float = READY_WITHIN_S) -> None:
        """Until it said `word` beyond that byte of its log. Raises `DriverFailed` if it ends instead, or never does."""

        def said() -> bool:
            if word in self.log.read_bytes()[beyond:]:
                return True
            if not self.runs:
                last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-2:]
                raise DriverFailed(f"{self.name} ended at once: {' · '.join(last)}", f"see {self.log}")
            return False

        eventually(said, within_s=within_s, what=f"the start of {self.name}")

    def stop(self) -> None:
        stop([self.process])

    def kill(self) -> None:
        """SIGKILL to it and everything that it started, all at once."""
        kill_whole(self.process)


class Served:
    """What a hub and a node have in common: a service that may have been started."""

    service: Service | None

    def stop(self) -> None:
        if self.service is not None:
            self.service.stop()

    def kill(self) -> None:
        """SIGKILL to it and every process it started, all at once. A node's containers run on."""
        assert self.service is not None
        self.service.kill()


def size_of(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, and wait; whoever is too slow is killed, with everything below it."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_WITHIN_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_whole(process)


def kill_whole(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and everything below it."""
    for pid in (process.pid, *descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait(10)


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid` (proc_pid_task_children is not in every kernel, so by parent)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(words[1]), []).append(int(entry.parent.name))
    below = list(children.get(pid, ()))
    while below:
        child = below.pop()
        yield child
        below += children.get(child, ())


def free_port(host: str = HOST) -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def give(path: Path, uid: int | None) -> Path:
    """Hand a file or folder to its owner; as a plain user everything is theirs already."""
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)
    return path
