"""The seams: what the use cases ask of the outside.

Protocols that the adapters implement, and the fakes in `tests/sim` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from mediator.errors import Code
from mediator.types import Kind, OutputFile, ReleasedObject

if TYPE_CHECKING:  # the mediator's own imports stay standard library and numpy where the contract says so
    import numpy as np
    import numpy.typing as npt

    Tensors = Mapping[str, npt.NDArray[np.generic]]


class Clock(Protocol):
    """The one source of `now` in a process (UTC)."""

    def __call__(self) -> datetime: ...


@dataclass(frozen=True)
class Prepared:
    """A container that exists and has not started, and its sandbox fingerprint (hex SHA-256)."""

    job: str
    fingerprint: str


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a container, as the engine or the keeper saw it.

    `done` carries the task number whose `DONE` appeared; `progress` a task number and a fraction 0 to 1;
    `exited` the exit status; `failed` the task during which the job's program named the class of its exception, and
    the code of that class (`mediator.exits.RAISED`). It is the job's own word, and ends nothing.
    """

    kind: Literal[
        "started", "progress", "done", "failed", "exited", "out_of_memory", "time_limit", "stopped", "out_full"
    ]
    task: int = 0
    fraction: float = 0.0
    status: int = 0
    code: Code | None = None


class Runner(Protocol):
    """Runs containers. Five verbs, each idempotent; all state is read from the engine."""

    def prepare(self, signed_spec: str) -> Prepared:
        """Create (or adopt) the container of a signed `ContainerSpec`; it is not started. Raises `Denied`."""

    def execute(self, job: str) -> Iterator[JobEvent]:
        """Start the container if it is not running, then yield its events until it ends."""

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        """Freeze the container, copy `/out/<task>/` once, clear `/out`, resume the container if it runs."""

    def terminate(self, job: str, grace_s: float) -> None:
        """Stop the container: SIGTERM, then SIGKILL after `grace_s`."""

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        """Remove every container, volume and work area of this node but those of `keep`; returns the jobs."""


class UpdateCodec(Protocol):
    """Builds canonical Flower objects out of released values (implemented by `federation.client.objects`)."""

    def encode(
        self, task: Kind, tensors: Tensors, metrics: Mapping[str, float | int]
    ) -> tuple[str, Mapping[str, bytes]]:
        """The RecordDict's root object id and every object's bytes by id (children before parents)."""

    def listing(self, objects: Mapping[str, bytes]) -> tuple[ReleasedObject, ...]:
        """Ids and sizes in pushing order."""
