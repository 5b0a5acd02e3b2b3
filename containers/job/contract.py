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

A safetensors file has no order of its own (its writers sort by type and name): which tensor is the model's first, its
second and so on, the permit says, and `task.json` repeats it as `tensors`. The answer may come in any order.

Asked by `/in/stop`, a task that is not finished has a grace to make room (the hospital says how long): it may write
`/out/<n>/checkpoint`, one file of any form within the limits of `/out`, and end with status 0. The same task is given
to a later container with that file as `/in/tasks/<m>/checkpoint`. Nobody else ever gets it, and it ends with the task.

    if task.stopping:
        task.leave(state)

A program that cannot go on may say why in `/out/<n>/failure.json`: {"exception": "ValueError"}, the class and nothing
else. `Tasks` does it for any exception that nobody catches. Of what a job says about its end, only a class name out of
a closed list (`EXCEPTIONS`; every other is "other") leaves the hospital: never a text.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

CONTRACT = 1
POLL_S = 0.05

# the class names that leave; a class that is none of them is told as the first of its bases that is
EXCEPTIONS = frozenset({
    "AssertionError", "AttributeError", "EOFError", "FileNotFoundError", "FloatingPointError", "ImportError",
    "IndexError", "KeyError", "MemoryError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError",
    "UnboundLocalError", "UnicodeDecodeError", "ValueError", "ZeroDivisionError",
    "LinAlgError", "ArrowInvalid", "InvalidDicomError", "OutOfMemoryError", "SafetensorError",
    "NoReply", "UnsupportedContract",
})  # fmt: skip

Weights = Mapping[str, npt.NDArray[Any]]


class UnsupportedContract(Exception):
    """The task speaks a version of the contract that this library does not."""


@dataclass(frozen=True)
class Task:
    """One piece of work. `kind` is `train`, `evaluate` or `analyse`; `config` holds the scalars a permit allows.

    `tensors` are the model's names in the permit's order; none from a hospital whose node does not say them yet.
    """

    number: int
    kind: str
    round: int
    config: Mapping[str, Any]
    folder: Path = field(repr=False)
    out: Path = field(repr=False)
    asked_to_stop: Callable[[], bool] = field(default=lambda: False, repr=False)
    tensors: tuple[str, ...] = field(default=(), repr=False)

    @property
    def stopping(self) -> bool:
        """Whether this task is asked to make room: look between two batches, and `leave`."""
        return self.asked_to_stop()

    @property
    def checkpoint(self) -> bytes | None:
        """What this very task left when it made room last; None if it never did."""
        try:
            return (self.folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            return None

    def leave(self, checkpoint: bytes) -> NoReturn:
        """Make room: leave `checkpoint` to go on from, and end this program."""
        (self.out / "checkpoint").write_bytes(checkpoint)
        sys.exit(0)

    @property
    def model_path(self) -> Path:
        """The global model, as safetensors; an analysis has none."""
        return self.folder / "model.safetensors"

    def model(self) -> dict[str, npt.NDArray[Any]]:
        """The global model's tensors by name, in the permit's order: as a list, they are the layers in theirs."""
        found = load_file(self.model_path)
        return {name: found[name] for name in self.tensors or found}

    def progress(self, fraction: float) -> None:
        """Say how far this task is, 0 to 1. Hospital staff see it; nobody outside does."""
        with open(self.out / "progress.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps({"fraction": round(min(1.0, max(0.0, fraction)), 3)}) + "\n")

    def declare(self, files: Sequence[Mapping[str, Any]]) -> None:
        """Hand in an analysis: tables that are in `out` already, each with `name`, `what` and `count`, and where it has
        them `labels`, `value` and `largest`. Whatever is not declared here makes all of them nothing."""
        listed = [
            {"type": str(file["name"]).rpartition(".")[2], "labels": [], "value": None, "largest": [], **file}
            for file in files
        ]
        (self.out / "outputs.json").write_text(json.dumps({"contract": CONTRACT, "files": listed}), encoding="ascii")
        (self.out / "DONE").touch()

    def finish(self, *, metrics: Mapping[str, Any], model: Weights | None = None) -> None:
        """Hand in the result. Names, shapes and types of `model` and the names in `metrics` are the permit's.

        A metric is a finite number: Python's, or a scalar of numpy, torch or the like (a truth is 1 or 0). Raises
        `TypeError` or `ValueError` with the name of one that is not.
        """
        plain = {name: _number(name, value) for name, value in metrics.items()}
        if model is not None:
            # the writer reads memory as it lies; `ascontiguousarray` would make a vector of a scalar
            tensors = {name: np.asarray(array, order="C") for name, array in model.items()}
            save_file(tensors, self.out / "model.safetensors")
        (self.out / "metrics.json").write_text(json.dumps(plain), encoding="ascii")
        (self.out / "DONE").touch()


class Tasks:
    """The tasks of this container, in order, as they come. The iteration ends when the container is asked to stop."""

    def __init__(self, in_dir: str | Path = "/in", out_dir: str | Path = "/out", *, poll_s: float = POLL_S) -> None:
        self._in = Path(in_dir)
        self._out = Path(out_dir)
        self._poll_s = poll_s
        self._terminated = False
        self._at = 1  # the task at work, or the next one
        # a container's main thread hears SIGTERM; in any other thread `/in/stop` is the way
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_terminate)
        self._hook_before, sys.excepthook = sys.excepthook, self._on_exception

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for an end; a long task may look at it between two batches."""
        return self._terminated or (self._in / "stop").exists()

    def __iter__(self) -> Iterator[Task]:
        while not self.stopping:
            folder = self._in / "tasks" / str(self._at)
            if folder.is_dir():
                yield self._open(self._at, folder)
                self._at += 1
            else:
                time.sleep(self._poll_s)

    def _open(self, number: int, folder: Path) -> Task:
        order = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        if order.get("contract") != CONTRACT:
            raise UnsupportedContract(f"this library speaks contract {CONTRACT}")
        out = self._out / str(number)
        os.makedirs(out, exist_ok=True)
        tensors = tuple(order.get("tensors", ()))  # joined contract 1 later
        return Task(number, order["kind"], order["round"], order["config"], folder, out, lambda: self.stopping, tensors)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The program ends: say the exception's class, and let Python print the rest into the hospital's log."""
        name = next((base.__name__ for base in kind.__mro__ if base.__name__ in EXCEPTIONS), "other")
        try:
            os.makedirs(self._out / str(self._at), exist_ok=True)
            (self._out / str(self._at) / "failure.json").write_text(json.dumps({"exception": name}), encoding="ascii")
        except OSError:
            pass  # a full /out: the end itself is seen all the same
        self._hook_before(kind, error, trace)

    def _on_terminate(self, _number: int, _frame: Any) -> None:
        self._terminated = True


def _number(name: str, value: Any) -> int | float:
    """The plain number in a metric. Scalars of array libraries have a shape without sides, and `item`."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, numbers.Real):
        raise TypeError(f"metric {name!r} is not a number but {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"metric {name!r} is not finite")
    return float(value)
