"""Bringing data in, as the data steward orders it. Imports and dataset versions are named by their public ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class IngestColumn:
    """A clinical column that may survive: a number in a range, or one of a few categories."""

    name: str
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ingest:
    """Take in a folder (`source`, absolute). `clinical` names a CSV file inside it; `test_fraction` of the labelled
    patients is held out for evaluation. `defaced_by`: what took the faces off before, as the caller says."""

    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None = None
    columns: tuple[IngestColumn, ...] = ()
    test_fraction: float = 0.0
    defaced_by: str = ""


@dataclass(frozen=True)
class IngestHappened:
    """`progress` counts files of a stage; `published` carries the new version's id and its numbers; of `waiting`
    studies none is published until they are tried again or given up."""

    kind: Literal["progress", "published", "failed", "waiting", "stopped"]
    order: str
    stage: str = ""
    done: int = 0
    total: int = 0
    dataset_version: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    again: bool = False
    waiting: int = 0


@dataclass(frozen=True)
class ImportLine:
    """An import as it stands; `studies` is 0 while nobody has counted them."""

    order: str
    state: str
    project: str
    dataset: str
    studies: int
    studies_done: int
    studies_waiting: int
    destroyed: int
    dataset_version: str | None
    error: str
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class ImportId:
    order: str


INGEST = Verb("ingest", Ingest, IngestHappened, "server")
IMPORTS = Verb("imports", Empty, tuple[ImportLine, ...])
IMPORT_FOLLOW = Verb("import_follow", ImportId, IngestHappened, "server")
IMPORT_STOP = Verb("import_stop", ImportId, Empty)
IMPORT_RETRY = Verb("import_retry", ImportId, Empty)
IMPORT_GIVE_UP = Verb("import_give_up", ImportId, Empty)
