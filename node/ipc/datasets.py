"""What hospital staff ask core about dataset versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class DatasetLine:
    dataset: str
    project: str
    dataset_version: str
    created: datetime
    counts: Mapping[str, int]
    excluded: Mapping[str, int]
    withdrawn: bool


@dataclass(frozen=True)
class DatasetVersionId:
    dataset_version: str


DATASETS = Verb("datasets", Empty, tuple[DatasetLine, ...])
# the version's files go, its id and numbers stay on record
DATASET_WITHDRAW = Verb("dataset_withdraw", DatasetVersionId, Empty)
