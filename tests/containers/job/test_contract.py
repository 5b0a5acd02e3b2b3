"""The job's side of the contract, on plain folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from containers.job.contract import Task, Tasks, UnsupportedContract


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("in/tasks", "out"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path / "in", tmp_path / "out"


def give(in_dir: Path, number: int, **changes: object) -> None:
    part = in_dir / "tasks" / f".{number}.part"
    part.mkdir()
    order = {"contract": 1, "task": number, "kind": "train", "round": number, "config": {"epochs": 2}, **changes}
    (part / "task.json").write_text(json.dumps(order))
    save_file({"w": np.full(3, number, np.float32)}, part / "model.safetensors")
    part.rename(in_dir / "tasks" / str(number))


def serve(in_dir: Path, out_dir: Path) -> list[Task]:
    """Answer every task that is there, then stop."""
    served = []
    tasks = Tasks(in_dir, out_dir, poll_s=0.001)
    for task in tasks:
        task.progress(0.5)
        task.finish(model={"w": task.model()["w"] + 1}, metrics={"loss": 0.5})
        served.append(task)
        if not (in_dir / "tasks" / str(task.number + 1)).exists():
            (in_dir / "stop").touch()
    return served


def test_tasks_come_in_order_and_answers_go_where_the_contract_says(folders: tuple[Path, Path]) -> None:
    in_dir, out_dir = folders
    for number in (1, 2):
        give(in_dir, number)
    served = serve(in_dir, out_dir)
    assert [(task.number, task.kind, task.round, task.config) for task in served] == [
        (1, "train", 1, {"epochs": 2}),
        (2, "train", 2, {"epochs": 2}),
    ]
    for number in (1, 2):
        folder = out_dir / str(number)
        assert sorted(os.listdir(folder)) == ["DONE", "metrics.json", "model.safetensors", "progress.jsonl"]
        assert load_file(folder / "model.safetensors")["w"].tolist() == [number + 1] * 3
        assert json.loads((folder / "metrics.json").read_text()) == {"loss": 0.5}
        assert json.loads((folder / "progress.jsonl").read_text()) == {"fraction": 0.5}


def test_done_is_written_last(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    in_dir, out_dir = folders
    give(in_dir, 1)
    task = next(iter(Tasks(in_dir, out_dir)))
    with pytest.raises(TypeError):
        task.finish(metrics={"loss": object()})  # type: ignore[dict-item]
    assert not (out_dir / "1" / "DONE").exists()


def test_an_evaluation_leaves_no_model(folders: tuple[Path, Path]) -> None:
    in_dir, out_dir = folders
    give(in_dir, 1, kind="evaluate")
    task = next(iter(Tasks(in_dir, out_dir)))
    task.finish(metrics={"auc": 0.9})
    assert sorted(os.listdir(out_dir / "1")) == ["DONE", "metrics.json"]


def test_a_part_that_has_not_appeared_whole_is_not_seen(folders: tuple[Path, Path]) -> None:
    in_dir, out_dir = folders
    (in_dir / "tasks" / ".1.part").mkdir()
    threading.Timer(0.05, (in_dir / "stop").touch).start()
    assert list(Tasks(in_dir, out_dir, poll_s=0.001)) == []


def test_sigterm_asks_for_an_end(folders: tuple[Path, Path]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        tasks = Tasks(*folders, poll_s=0.001)
        assert not tasks.stopping
        os.kill(os.getpid(), signal.SIGTERM)
        assert list(tasks) == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_version_of_the_contract_is_refused(folders: tuple[Path, Path]) -> None:
    in_dir, out_dir = folders
    give(in_dir, 1, contract=2)
    with pytest.raises(UnsupportedContract):
        next(iter(Tasks(in_dir, out_dir)))


class Teapot(ValueError):
    """No class of the list, but one of its bases is."""


@pytest.mark.parametrize(
    ("raised", "told"),
    [("KeyError('patient 17')", "KeyError"), ("Teapot('patient 17')", "ValueError"), ("Exception('x')", "other")],
)
def test_an_exception_that_nobody_catches_is_told_by_its_class_alone(
    folders: tuple[Path, Path], raised: str, told: str
) -> None:
    in_dir, out_dir = folders
    give(in_dir, 1)
    program = f"""
from containers.job.contract import Tasks
from tests.containers.job.test_contract import Teapot
for task in Tasks({str(in_dir)!r}, {str(out_dir)!r}):
    raise {raised}
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=Path(__file__).parents[3])
    assert ended.returncode == 1 and b"Traceback" in ended.stderr  # the log has the rest
    assert json.loads((out_dir / "1" / "failure.json").read_text()) == {"exception": told}
    assert not (out_dir / "1" / "DONE").exists()


def test_a_program_that_fails_before_its_first_task_tells_it_there(folders: tuple[Path, Path]) -> None:
    in_dir, out_dir = folders
    program = f"from containers.job.contract import Tasks\nTasks({str(in_dir)!r}, {str(out_dir)!r})\nopen('/no/such')"
    subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=Path(__file__).parents[3])
    assert json.loads((out_dir / "1" / "failure.json").read_text()) == {"exception": "FileNotFoundError"}
