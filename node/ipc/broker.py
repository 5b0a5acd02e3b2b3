"""`broker.sock`: what core asks of the broker. Containers and their events cross as `mediator.ports` has them."""

from __future__ import annotations

from dataclasses import dataclass

from mediator.ports import JobEvent, Prepared
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb


@dataclass(frozen=True)
class ContainerId:
    """A container, by its job's name."""

    job: str


@dataclass(frozen=True)
class FinaliseTask:
    job: str
    task: int


@dataclass(frozen=True)
class FileStart:
    """One file of `/out/<task>/`; exactly `size_bytes` raw bytes follow."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Terminate:
    job: str
    grace_s: float


@dataclass(frozen=True)
class ContainerIds:
    """Those to keep; or, in the answer, those that are gone."""

    jobs: tuple[str, ...]


PREPARE = Verb("prepare", SignedText, Prepared)
EXECUTE = Verb("execute", ContainerId, JobEvent, "server")
FINALISE = Verb("finalise", FinaliseTask, FileStart, "download")
TERMINATE = Verb("terminate", Terminate, Empty)
CLEAN = Verb("clean", ContainerIds, ContainerIds)
