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


@dataclass(frozen=True)
class BudgetLine:
    """What has left, or may still leave, one dataset under a permit; under all of them, where `permit` is empty.

    `noised` and `without_noise` count charged tasks whose output leaves with noise and without (an evaluation
    under a budget, which leaves fixed numbers alone, is without). `epsilon` is what the noised
    ones come to at `delta`, `budget` what they may; None where the permit has none.
    """

    dataset: str
    permit: str
    noised: int
    without_noise: int
    epsilon: float
    delta: float
    budget: float | None


DATASETS = Verb("datasets", Empty, tuple[DatasetLine, ...])
DATASET_BUDGET = Verb("dataset_budget", Empty, tuple[BudgetLine, ...])
# the version's files go, its id and numbers stay on record
DATASET_WITHDRAW = Verb("dataset_withdraw", DatasetVersionId, Empty)
