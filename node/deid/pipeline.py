"""The way of every original through gate 0, as values and ports: a source, workers, a sink.

    source -> (quarantine) -> worker processes -> gate 0 -> pixels -> residual search -> sink

1. A *source* opens numbered originals; a worker process does it by itself, so a source is a value that travels.
2. A *batch* is what one worker takes at once: consecutive files of a folder, or one study. Its files are de-identified,
   made once more where others of their patient say whose name they hold, their pixels judged by series, each searched
   for what the others lost.
3. A *sink* says where what passed goes. It travels with its batch.
4. What a batch's files lost is told as *traces*: at the end the files of each are searched for what the others of the
   same patient and study lost (`to_search`). Traces and surveys name patients: whoever keeps them seals them.
5. A *survey* says beforehand whose a file is and which names and numbers it holds, so that batches know (`known_of`).
6. A file that met a defect of ours is refused as `our_defect`; the worker has logged the class and place of it.

`deid run` and an import differ in source, sink and screening, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mediator.deid.identifiers import Identifier, Lost
from mediator.deid.screening import Exclusion
from mediator.errors import NotNow
from node.deid.deidentify import groups
from node.deid.outcome import NOBODY, Identity
from node.deid.stream import Original

NOT_LOOKED_AT = "not_looked_at"
Known = Mapping[str, Sequence[Lost]]
"""By a patient's pseudonym: names, numbers and values that others of the patient's files are known to have lost."""
Issued = tuple[str, str, str]
"""A study's UID and a patient, both as pseudonyms, and who issued the patient's id."""


@dataclass(frozen=True)
class File:
    """One original: its number, what its source opens it by, and why it is not even opened."""

    number: int
    path: str = field(repr=False)
    refused: str | None = None

    @property
    def label(self) -> str:
        return f"src#{self.number:04d}"


class InstanceSource(Protocol):
    """Where originals are. Picklable: each worker process opens them by itself."""

    def open(self, path: str) -> Original:
        """To be closed by whoever asked. Raises `UsageFault` (no such regular file), `OSError`, `IntegrityBroken`."""


class InstanceSink(Protocol):
    """Where what passed goes. Picklable. `partial` is for what is under way, in the same file system."""

    @property
    def partial(self) -> Path: ...

    def begin(self, files: Sequence[File]) -> None:
        """Before these files are worked on: what a worker that died over them left under way is gone."""

    def draft(self, number: int, identity: Identity) -> str:
        """What an output is called while it is under way. Two that must not both pass share a name."""

    def name(self, identity: Identity) -> str:
        """What a finished file is called, made of pseudonyms alone: its path below the sink."""

    def place(self, name: str, *, review: bool) -> Path:
        """Where a finished file of this name stands."""


@dataclass(frozen=True)
class Batch:
    """What one worker takes at once."""

    files: tuple[File, ...]
    sink: InstanceSink
    known: Known = field(default_factory=dict, repr=False)
    issuers: tuple[Issued, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Result:
    """What became of one file. `name` is below its sink; "" when refused. An import has nothing to review."""

    number: int
    outcome: Literal["written", "review", "refused"]
    reasons: tuple[str, ...] = ()
    name: str = ""
    pixels: str = ""  # clean, blacked_out or review; not_looked_at as somebody decided; "" when there are none
    regions: tuple[tuple[int, ...], ...] = ()  # frame, left, top, right, bottom
    pardoned: int = 0
    missed: Mapping[str, int] = field(default_factory=dict)  # what the profile means to keep and could not, by keyword
    notes: tuple[str, ...] = ()  # how it was read, and what of it no decoder reads
    identity: Identity = field(default=NOBODY, repr=False)

    @property
    def exclusion(self) -> str | None:
        """The reason a refused file is counted under."""
        return self.reasons[0] if self.outcome == "refused" else None

    def line(self) -> dict[str, Any]:
        """For a report: only what there is to say."""
        told: dict[str, Any] = {"source": f"src#{self.number:04d}", "outcome": self.outcome}
        for key in ("reasons", "name", "pixels", "regions", "pardoned", "missed", "notes"):
            if value := getattr(self, key):
                told[key] = value
        return told


def refused(number: int, reason: Exclusion, identity: Identity = NOBODY) -> Result:
    """The result of a file that is not written."""
    return Result(number, "refused", (reason.value,), identity=identity)


@dataclass(frozen=True)
class Trace:
    """What the files of one patient or study in a batch lost, and the numbers of those that stand. Names a patient."""

    numbers: tuple[int, ...]
    keys: tuple[str, ...]
    lost: tuple[Lost, ...] = field(repr=False)


@dataclass(frozen=True)
class Done:
    """A batch that is done: a result for each file in order, and its traces."""

    results: tuple[Result, ...]
    traces: tuple[Trace, ...] = ()


@dataclass(frozen=True)
class Survey:
    """Whose a file is, and the names and numbers it holds. Of a file that will not pass only what is known anyway."""

    number: int
    identity: Identity = NOBODY
    named: tuple[Identifier, ...] = field(default=(), repr=False)
    exclusion: str | None = None
    issued: tuple[Issued, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Placed:
    """A finished file, the original it was made of, and the name that is searched as well ("" for none)."""

    file: File
    path: Path
    name: str = ""


@dataclass(frozen=True)
class Search:
    """Finished files of one patient or study, and what they are to be searched for."""

    files: tuple[Placed, ...]
    fresh: tuple[Lost, ...] = field(repr=False)


class NoRoom(NotNow):
    """There is no room left to write: every other file would fail the same way, and none of them would be to blame."""


class Workers(Protocol):
    """Does the work in processes of their own (`node.deid.processes`), or anywhere. Results come in the order asked."""

    @property
    def under_way(self) -> tuple[int, int]:
        """Files converted, and pictures read, so far: more than is told, for a batch is told when it is finished."""

    def survey(self, files: Iterable[File]) -> Iterator[Survey]:
        """What each file says."""

    def run(self, batches: Iterable[Batch]) -> Iterator[Done]:
        """Each batch; few are taken before they are asked for. Raises `NoRoom`."""

    def search_again(self, searches: Iterable[Search]) -> Iterator[tuple[Result, ...]]:
        """Of each search the files that are refused after all; they are gone then, and asking again says the same."""

    def look(self, series: Iterable[Sequence[Path]]) -> Iterator[Sequence[str]]:
        """What is wrong with each series of finished files."""


def known_of(surveys: Sequence[Survey]) -> list[Known]:
    """For each surveyed file, what those of its patient and study, directly or through others, say whose names there
    are. A report in a folder of its own names who wrote it; its images may have the word in a description."""
    known: list[Known] = [{} for _ in surveys]
    for group in groups([one.identity.keys for one in surveys]):
        named = list(dict.fromkeys(one for place in group for one in surveys[place].named))
        everybody = {surveys[place].identity.patient: named for place in group}
        for place in group:
            known[place] = everybody
    return known


def to_search(traces: Sequence[Trace]) -> Iterator[tuple[Trace, tuple[Lost, ...]]]:
    """Each trace whose files may hold what only others of its patient and study lost, with what that is."""
    for group in groups([trace.keys for trace in traces]):
        if len(group) < 2:
            continue
        several = [traces[place] for place in group]
        everything = {value for trace in several for value in trace.lost}
        for trace in several:
            if trace.numbers and (fresh := everything.difference(trace.lost)):
                yield trace, tuple(fresh)
