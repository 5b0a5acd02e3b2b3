"""Processes, users, ports and keys of this machine, as the house uses them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mediator.signatures import VerifyKey

T = TypeVar("T")
AS_ROOT = os.geteuid() == 0
# beside the demo's numbers; below those systemd gives away
UID_BASE = 61100
HOST = "127.0.0.1"


def eventually(look: Callable[[], T | None], *, within_s: float = 30.0, what: str = "it") -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def public(key: Path) -> str:
    return Path(f"{key}.pub").read_text().strip()


def key_id(key: Path) -> str:
    return VerifyKey.from_text(public(key)).key_id


def give(path: Path, uid: int | None) -> None:
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid` (proc_pid_task_children is not in every kernel, so by parent)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            child = int(entry.parent.name)
            yield child
            yield from descendants(child)


def kill_role(process: subprocess.Popen[bytes], role: str) -> None:
    """SIGKILL to one process of a node; its supervisor starts it again."""
    for pid in descendants(process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if f"process\0{role}".encode() in words:
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError(f"no {role} is running")


def kill_whole(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and everything below it."""
    for pid in (process.pid, *descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait(10)


def stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        kill_whole(process)
