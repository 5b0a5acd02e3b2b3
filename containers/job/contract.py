"""The job contract, version 1, in Python. Any language can do the same: it is folders and files.

    for task in Tasks():
        weights = task.model()
        ...
        task.progress(0.5)
        task.finish(model=weights, metrics={"loss": 0.31, "num-examples": 80})

`/in/tasks/<n>/` (n = 1, 2, …) holds `task.json` and `model.safetensors`, and appears whole. The answer goes to
`/out/<n>/`: `model.safetensors` (train only), `metrics.json` (a flat object of numbers), then an empty `DONE`. After
`DONE` the container is frozen, `/out` is copied and emptied, and only then does it run on. `/in/stop` or SIGTERM ask
for an end.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

CONTRACT = 1
POLL_S = 0.05

Weights = Mapping[str, npt.NDArray[Any]]


class UnsupportedContract(Exception):
    """The task speaks a version of the contract that this library does not."""


@dataclass(frozen=True)
class Task:
    """One piece of work. `kind` is `train` or `evaluate`; `config` holds the scalars that the permit allows."""

    number: int
    kind: str
    round: int
    config: Mapping[str, Any]
    folder: Path = field(repr=False)
    out: Path = field(repr=False)

    @property
    def model_path(self) -> Path:
        """The global model, as safetensors."""
        return self.folder / "model.safetensors"

    def model(self) -> dict[str, npt.NDArray[Any]]:
        """The global model's tensors by name."""
        return dict(load_file(self.model_path))

    def progress(self, fraction: float) -> None:
        """Say how far this task is, 0 to 1. Hospital staff see it; nobody outside does."""
        with open(self.out / "progress.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps({"fraction": round(min(1.0, max(0.0, fraction)), 3)}) + "\n")

    def finish(self, *, metrics: Mapping[str, float], model: Weights | None = None) -> None:
        """Hand in the result. Names, shapes and types of `model` and the names in `metrics` are the permit's."""
        if model is not None:
            tensors = {name: np.ascontiguousarray(array) for name, array in model.items()}
            save_file(tensors, self.out / "model.safetensors")
        (self.out / "metrics.json").write_text(json.dumps(dict(metrics)), encoding="ascii")
        (self.out / "DONE").touch()


class Tasks:
    """The tasks of this container, in order, as they come. The iteration ends when the container is asked to stop."""

    def __init__(self, in_dir: str | Path = "/in", out_dir: str | Path = "/out", *, poll_s: float = POLL_S) -> None:
        self._in = Path(in_dir)
        self._out = Path(out_dir)
        self._poll_s = poll_s
        self._terminated = False
        # a container's main thread hears SIGTERM; in any other thread `/in/stop` is the way
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_terminate)

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for an end; a long task may look at it between two batches."""
        return self._terminated or (self._in / "stop").exists()

    def __iter__(self) -> Iterator[Task]:
        number = 1
        while not self.stopping:
            folder = self._in / "tasks" / str(number)
            if folder.is_dir():
                yield self._open(number, folder)
                number += 1
            else:
                time.sleep(self._poll_s)

    def _open(self, number: int, folder: Path) -> Task:
        order = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        if order.get("contract") != CONTRACT:
            raise UnsupportedContract(f"this library speaks contract {CONTRACT}")
        out = self._out / str(number)
        os.makedirs(out, exist_ok=True)
        return Task(number, order["kind"], order["round"], order["config"], folder, out)

    def _on_terminate(self, _number: int, _frame: Any) -> None:
        self._terminated = True
