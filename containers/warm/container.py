"""A warm container: what it is bound to, what it is given, what it holds, its folders, and how a task makes room."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durable.files import write_inside
from durable.reading_group import EVERYBODY, ReadingGroup
from mediator import canonical
from mediator.admission import Admitted
from mediator.errors import Code, Reason
from mediator.ports import JobEvent, Prepared
from mediator.types import ContainerSpec, Kind

# the contract's name for what a job leaves for itself when it is asked to make room
CHECKPOINT = "checkpoint"


class Preempted(Exception):
    """A task made room, and left `checkpoint` to go on from (None: it begins again)."""

    def __init__(self, checkpoint: bytes | None = None) -> None:
        super().__init__("made room")
        self.checkpoint = checkpoint


@dataclass(frozen=True)
class SandboxKey:
    """What a warm container is bound to; a task with another key gets another container."""

    run: str
    permit: str
    permit_version: int
    dataset_version: str
    task: Kind
    image: str
    limits_sha256: str


def sandbox_key(admitted: Admitted) -> SandboxKey:
    """What the container of this task is bound to."""
    limits = canonical.dumps(canonical.to_plain(admitted.permit.terms.resources))
    return SandboxKey(
        run=admitted.order.run,
        permit=admitted.permit.terms.permit,
        permit_version=admitted.permit.terms.permit_version,
        dataset_version=admitted.dataset_version,
        task=admitted.instruction.task,
        image=admitted.order.image,
        limits_sha256=hashlib.sha256(limits).hexdigest(),
    )


@dataclass(frozen=True)
class WarmTask:
    """What goes into `/in/tasks/<n>/`: the contract's task.json members and the model, already checked by gate 1; and
    the checkpoint of this very task, if it made room before. `tensors` are the model's names in the permit's order."""

    kind: Kind
    round: int
    config: Mapping[str, Any]
    model: bytes = field(repr=False)
    checkpoint: bytes | None = field(default=None, repr=False)
    tensors: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Holding:
    """A container as the queue sees it: what it is bound to, its GPUs, and since when it serves nothing."""

    name: str
    key: SandboxKey
    gpus: tuple[str, ...]
    idle_s: float
    busy: bool
    ending: bool


@dataclass
class WarmContainer:
    """One container: its host folders, how many tasks it was given, and its stream of events.

    `leave_by_s` (monotonic) is when a task that was asked to make room is ended; `refused` why it could not start,
    where that is not its image's fault; `ended` is set when whoever ended it has removed it.
    """

    name: str
    key: SandboxKey
    folder: Path
    tasks_given: int = 0
    last_used_s: float = field(default_factory=time.monotonic)
    busy: bool = False
    stop_code: Code | None = None
    gpus: tuple[str, ...] = ()
    leave_by_s: float | None = None
    engine_lost: bool = False
    refused: Reason | None = None
    vouched: tuple[ContainerSpec, Prepared] | None = None
    # the thread whose task it serves, or served last
    server: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    group: ReadingGroup = EVERYBODY
    events: queue.Queue[JobEvent] = field(default_factory=queue.Queue)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def in_dir(self) -> Path:
        return self.folder / "in"

    @property
    def tasks_dir(self) -> Path:
        return self.in_dir / "tasks"

    def make_folders(self) -> None:
        """In what the broker has made (a runner may have made nothing): for the container's group to read."""
        self.tasks_dir.mkdir(parents=True)
        self.group.give_folder(self.tasks_dir)

    def ask_to_end(self) -> bool:
        """Leave the contract's sign that the job is to end; false where the disk does not take it."""
        try:
            write_inside(self.in_dir / "stop", b"", 0o644, flush=False)
        except FileExistsError:
            pass
        except OSError:
            return False
        return True
