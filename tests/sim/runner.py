"""A runner without an engine: the job is a Python function, the contract's folders are real.

Held to the same contract tests as the real one (`tests/containers/contract.py`) where these need no kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mediator.errors import Code, Denied, NotNow, Reason
from mediator.exits import OTHER, RAISED
from mediator.ports import JobEvent, Prepared
from mediator.signatures import KeyRing, VerifyKey, open_signed
from mediator.types import ContainerSpec, OutputFile

Behaviour = Callable[[Mapping[str, Any], bytes], Mapping[str, bytes]]
"""(task.json, model bytes) -> the files of `/out/<n>/`; may raise to end the container with status 1.

Beside what task.json says, the mapping has `checkpoint` (bytes or None) and `stopping()`.
"""


class Leave(Exception):
    """Raised by a behaviour that was asked to make room: it leaves a checkpoint, or none, and ends with status 0."""

    def __init__(self, checkpoint: bytes | None = None) -> None:
        super().__init__("made room")
        self.checkpoint = checkpoint


@dataclass
class _Container:
    spec: ContainerSpec
    events: queue.Queue[JobEvent | None] = field(default_factory=queue.Queue)
    outputs: dict[int, Mapping[str, bytes]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    started: bool = False


# How often a container looks for its next task: seldom where none has come for a while. A test that stops no container
# leaves it behind, and dozens that look two hundred times a second each take more of a processor than the tests.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S, _FORGOTTEN_S = 0.005, 0.05, 120.0


class FakeRunner:
    """`behaviours` maps an image digest to what its job does."""

    def __init__(self, verdict_key: VerifyKey, behaviours: Mapping[str, Behaviour]) -> None:
        self._ring = KeyRing([verdict_key])
        self._behaviours = behaviours
        self.containers: dict[str, _Container] = {}
        self.specs: list[ContainerSpec] = []
        self.terminated: list[str] = []
        self.away = False
        # verb → why the broker says no to it
        self.refusals: dict[str, Reason] = {}

    def prepare(self, signed_spec: str) -> Prepared:
        self._answer("prepare")
        spec = open_signed(ContainerSpec, signed_spec, self._ring).document
        if spec.job not in self.containers:
            self.containers[spec.job] = _Container(spec)
            self.specs.append(spec)
        return Prepared(spec.job, hashlib.sha256(repr(spec.resources).encode()).hexdigest())

    def execute(self, job: str) -> Iterator[JobEvent]:
        self._answer("execute")
        container = self._known(job)
        if not container.started:
            container.started = True
            threading.Thread(target=self._work, args=(container,), daemon=True).start()
        yield JobEvent("started")
        while (event := container.events.get()) is not None:
            yield event

    def _known(self, job: str) -> _Container:
        if job not in self.containers:
            raise Denied(Reason(Code.JOB_UNKNOWN))
        return self.containers[job]

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        self._answer()
        files = self._known(job).outputs.pop(task)
        return [OutputFile(name, content) for name, content in files.items()]

    def terminate(self, job: str, grace_s: float) -> None:
        self._answer()
        self.terminated.append(job)
        if job in self.containers:
            self.containers[job].stop.set()
            self.containers[job].events.put(JobEvent("stopped"))
            self.containers[job].events.put(None)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        self._answer()
        gone = [job for job in self.containers if job not in keep]
        for job in gone:
            self.containers.pop(job).stop.set()
        return gone

    def _answer(self, verb: str = "") -> None:
        if self.away:
            raise NotNow("the engine does not answer")
        if verb in self.refusals:
            raise Denied(self.refusals[verb])

    def _work(self, container: _Container) -> None:
        behave = self._behaviours[container.spec.image]
        number, stopping = 1, Path(container.spec.in_dir) / "stop"
        idle_s, pause_s = 0.0, _SHORTEST_PAUSE_S
        while not container.stop.is_set() and idle_s < _FORGOTTEN_S:
            if os.path.exists(stopping):
                container.events.put(JobEvent("exited", status=0))
                container.events.put(None)
                return
            folder = Path(container.spec.in_dir) / "tasks" / str(number)
            if not os.path.exists(folder):
                time.sleep(pause_s)
                idle_s, pause_s = idle_s + pause_s, min(1.1 * pause_s, _LONGEST_PAUSE_S)
                continue
            idle_s, pause_s = 0.0, _SHORTEST_PAUSE_S
            task = json.loads((folder / "task.json").read_bytes())
            left = folder / "checkpoint"
            task["checkpoint"] = left.read_bytes() if left.exists() else None
            task["stopping"] = stopping.exists
            try:
                model = folder / "model.safetensors"  # which an analysis does not get
                container.outputs[number] = behave(task, model.read_bytes() if model.exists() else b"")
            except Leave as leave:
                container.outputs[number] = {} if leave.checkpoint is None else {"checkpoint": leave.checkpoint}
                container.events.put(JobEvent("exited", status=0))
                container.events.put(None)
                return
            except Exception as error:  # noqa: BLE001 - whatever the behaviour raises ends its container
                raised = RAISED.get(type(error).__name__, RAISED[OTHER])  # as the job library and the keeper tell it
                container.events.put(JobEvent("failed", number, code=raised))
                container.events.put(JobEvent("exited", status=1))
                container.events.put(None)
                return
            container.events.put(JobEvent("progress", number, 1.0))
            container.events.put(JobEvent("done", number))
            number += 1
