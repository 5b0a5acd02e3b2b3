"""A task that is asked to make room: what the job library offers for it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from containers.job.contract import Task, Tasks


def give(root: Path, number: int, checkpoint: bytes | None = None) -> None:
    folder = root / "in" / "tasks" / str(number)
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(
        json.dumps({"contract": 1, "task": number, "kind": "train", "round": 1, "config": {}})
    )
    if checkpoint is not None:
        (folder / "checkpoint").write_bytes(checkpoint)


def first(root: Path) -> Task:
    (root / "out").mkdir(exist_ok=True)
    found: list[Task] = []
    # not the main thread: SIGTERM stays the test runner's
    thread = threading.Thread(target=lambda: found.append(next(iter(Tasks(root / "in", root / "out")))))
    thread.start()
    thread.join(5)
    return found[0]


def test_a_task_that_never_made_room_has_no_checkpoint(tmp_path: Path) -> None:
    give(tmp_path, 1)
    task = first(tmp_path)
    assert task.checkpoint is None and not task.stopping


def test_a_task_hears_the_request_leaves_its_state_and_ends_with_status_0(tmp_path: Path) -> None:
    give(tmp_path, 1)
    task = first(tmp_path)
    (tmp_path / "in" / "stop").touch()
    assert task.stopping
    with pytest.raises(SystemExit) as ended:
        task.leave(b"\x00state")
    assert not ended.value.code
    assert [path.name for path in task.out.iterdir()] == ["checkpoint"], "no DONE: it is not finished"
    assert (task.out / "checkpoint").read_bytes() == b"\x00state"


def test_the_same_task_in_its_next_container_finds_what_it_left(tmp_path: Path) -> None:
    give(tmp_path, 1, b"\x00state")
    assert first(tmp_path).checkpoint == b"\x00state"
