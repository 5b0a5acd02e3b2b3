"""Processor seconds: what the demo itself, its commands, the hub and the nodes have used so far.

Containers are not in it: the engine runs them, and whoever shares the engine would be counted too.
"""

from __future__ import annotations

import os
from pathlib import Path

from deploy.driver.services import descendants

_TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds() -> float:
    """Of this process and everything below it, living or ended."""
    own = os.getpid()
    return sum(_of(pid) for pid in (own, *descendants(own)))


def _of(pid: int) -> float:
    """A process and its children that were waited for (proc(5): utime to cstime); 0 for one that is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, words[11:15])) / _TICK
