"""What `cloister node job` shows, and what a hostile job's output may do to a terminal: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from node.cli.it import jobs as node_jobs
from node.cli.it.jobs import readable, standing
from node.ipc.jobs import JobLine

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def line(**changes: Any) -> JobLine:
    given = {
        "job": "job-1", "run": "run-1", "kind": "train", "state": "admitted", "round": 1, "fraction": 0.0,
        "code": None, "updated": NOW,
    }  # fmt: skip
    return JobLine(**{**given, **changes})


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b]0;owned\x07done", "\\x1b]0;owned\\x07done"), (b"\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        (b"one\rtwo", "one\\rtwo"), (b"loss\t0.5\r", "loss    0.5"), (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"), (b"\xc2\x9b31m", "\\x9b31m"), ("é ü".encode(), "é ü"),
    ],
)  # fmt: skip
def test_a_line_that_would_drive_the_terminal_is_shown_as_escapes(raw: bytes, shown: str) -> None:
    assert readable(raw) == shown


def test_a_line_without_end_is_cut() -> None:
    assert len(readable(b"x" * 1_000_000)) == node_jobs.MAX_LINE


def test_where_a_job_stands() -> None:
    assert standing(line()) == "admitted"
    assert standing(line(wait="no_gpu_free", place=3)) == "admitted (no gpu free, place 3)"
    assert standing(line(state="running", wait="asked_to_make_room")) == "running (asked to make room)"


def test_following_a_job_says_each_change_once_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(node_jobs, "LOOK_S", 0.0)
    told: list[str] = []
    monkeypatch.setattr(node_jobs, "say", told.append)
    states: Iterator[JobLine] = iter(
        [line(wait="closed_hours", place=1)] * 3
        + [line(state="running", fraction=0.5, gpus=("GPU-a",))] * 2
        + [line(state="released", fraction=1.0)]
    )
    assert node_jobs._follow(lambda: next(states)).state == "released"
    assert told == ["job-1 admitted (closed hours, place 1)", "job-1 running"]
