"""`--keep` and `--stop`: what is left running is written down by process id and start, and only that is ended."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.workplace import write_json
from deploy.driver.services import STOP_WITHIN_S, Service

FILE = "running.json"


@dataclass(frozen=True)
class Kept:
    """A process left running. `started` (kernel ticks after boot) tells it from a later one with the same number."""

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return _started(self.pid) == self.started


def write(root: Path, services: list[Service]) -> None:
    """Note what stays running in `root`."""
    kept = [
        {"name": service.name, "pid": service.process.pid, "started": _started(service.process.pid)}
        for service in services
    ]
    write_json(root / FILE, kept)


def read(root: Path) -> list[Kept]:
    """What an earlier demo left running in `root` and still runs."""
    try:
        noted = json.loads((root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [entry for entry in (Kept(**each) for each in noted) if entry.alive]


def stop(root: Path) -> list[str]:
    """End what runs in `root`, nodes before the hub; return the names."""
    kept = read(root)
    nodes = [entry for entry in kept if entry.name != "hub"]
    for group in (nodes, [entry for entry in kept if entry.name == "hub"]):
        for entry in group:
            os.kill(entry.pid, signal.SIGTERM)
        _wait(group)
    (root / FILE).unlink(missing_ok=True)
    return [entry.name for entry in kept]


def _wait(group: list[Kept]) -> None:
    deadline = time.monotonic() + STOP_WITHIN_S
    while time.monotonic() < deadline and any(entry.alive for entry in group):
        time.sleep(0.1)
    for entry in group:
        if entry.alive:
            os.killpg(entry.pid, signal.SIGKILL)  # each leads a session of its own


def _started(pid: int) -> int:
    """When a process began, in clock ticks after boot; 0 if it is gone or only waits to be reaped (proc(5))."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if words[0] == "Z" else int(words[19])
