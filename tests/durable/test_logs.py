"""A log that stays small while another process fills it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from durable.logs import keep_small

LIMIT = 1 << 20


def test_a_process_that_talks_without_end_fills_two_logs_and_no_more(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    program = "import sys\nwhile True: sys.stdout.write('x' * 99 + chr(10))"
    with log.open("ab") as output:
        child = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=output)
    largest, moved = 0, 0
    try:
        until_s = time.monotonic() + 20
        while moved < 3:
            assert time.monotonic() < until_s
            largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
            moved += keep_small(log, LIMIT)
            time.sleep(0.01)
        assert child.poll() is None, "it goes on in the same file"
    finally:
        child.kill()
        child.wait()
    assert largest < 4 * LIMIT
    assert (tmp_path / "child.log.1").stat().st_size <= LIMIT + (1 << 16)


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"a line\n")
    assert not keep_small(log, LIMIT) and not keep_small(tmp_path / "none.log", LIMIT)
    assert log.read_bytes() == b"a line\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_log_is_not_emptied(tmp_path: Path, kind: str) -> None:
    """Somebody put a link in the log's place, to have another file emptied."""
    victim, log = tmp_path / "victim", tmp_path / "child.log"
    victim.write_bytes(b"x" * (LIMIT + 1))
    {"link": lambda: log.symlink_to(victim), "pipe": lambda: os.mkfifo(log), "folder": log.mkdir}[kind]()
    assert not keep_small(log, LIMIT) and victim.stat().st_size == LIMIT + 1
