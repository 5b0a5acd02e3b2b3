"""Processes and users of this machine, as the house uses them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from deploy.driver import services
from deploy.driver.services import HOST, descendants, eventually, free_port, give, kill_whole
from deploy.driver.signing import key_id, public

__all__ = [
    "AS_ROOT", "HOST", "UID_BASE", "descendants", "eventually", "free_port", "give", "key_id", "kill_role",
    "kill_whole", "public", "stop",
]  # fmt: skip

AS_ROOT = os.geteuid() == 0
# beside the demo's numbers; below those systemd gives away
UID_BASE = 61100


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


def stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        services.stop([process])
