"""A node whose clock and whose disk somebody else has in his hand.

    python -P disturbed.py HAND serve CONFIG            the supervisor, with the processes below
    python -P disturbed.py HAND process ROLE CONFIG     one process: what `cloister node process ROLE` is

`HAND/clock` says by how many seconds core's wall clock is wrong, `HAND/disk` how many seconds every fsync and every
commit takes longer, in each process. Both are read whenever they matter; a file that is not there means 0.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any


def read(file: Path) -> float:
    try:
        return float(file.read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def slow_disk(file: Path) -> None:
    fsync = os.fsync

    def slowly(descriptor: int) -> None:
        time.sleep(read(file))
        fsync(descriptor)

    os.fsync = slowly


def slow_commits(file: Path, engine: Any = None) -> None:
    """SQLite's own fsync is out of Python's reach: it comes with a commit, of this engine or of any."""
    import sqlalchemy  # only core has a database

    sqlalchemy.event.listen(engine or sqlalchemy.Engine, "commit", lambda _: time.sleep(read(file)))


def wrong_clock(file: Path) -> None:
    """The clock that core is given is an argument of its; the process gives it this one."""
    from node.core import process
    from node.core.core import CoreProcess

    process.CoreProcess = partial(CoreProcess, wall=lambda: datetime.now(UTC) + timedelta(seconds=read(file)))


def process(hand: Path, role: str, config: str) -> None:
    slow_disk(hand / "disk")
    if role == "core":
        slow_commits(hand / "disk")
        wrong_clock(hand / "clock")
    sys.argv = ["cloister", "node", "process", role, "--config", config]
    from node.cli import main

    main()


def serve(hand: Path, config: Path) -> None:
    from node.host.config import load_config
    from node.host.logs import set_up
    from node.host.supervisor import Supervisor

    def command(role: str) -> Sequence[str]:
        return [sys.executable, "-P", __file__, str(hand), "process", role, str(config)]

    loaded = load_config(config)
    set_up("supervisor", level=loaded.logging.level, form=loaded.logging.format)
    Supervisor(loaded, config, command=command).run()


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(Path(sys.argv[1]), Path(sys.argv[3]))
    else:
        process(Path(sys.argv[1]), sys.argv[3], sys.argv[4])
