"""How a contender talks to `deid.py`: it says `ready`, waits for a line, works, and says what it took."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable


def timed(work: Callable[[], None]) -> None:
    """Prints wall seconds, CPU seconds and peak memory in kB."""
    print("ready", flush=True)
    input()
    start, cpu = time.perf_counter(), time.process_time()
    work()
    wall = time.perf_counter() - start
    print(f"\n{wall} {time.process_time() - cpu} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}", flush=True)
    os._exit(0)
