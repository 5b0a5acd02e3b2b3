"""Bringing data in: what intake asks of core on `intake.sock`, and what the data steward orders.

Messages name orders and dataset versions by their public ids and never a patient or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mediator.deid.orders import IngestOrder
from node.ipc.messages import Empty
from node.ipc.verb import Verb


@dataclass(frozen=True)
class IngestProgress:
    """How far an order is: `done` of `total` files in this stage (`total` is 0 while it is not known)."""

    order: str
    stage: Literal["take_in", "deidentify", "read_pixels", "hand_over", "forget"]
    done: int
    total: int


@dataclass(frozen=True)
class IngestEnd:
    """An order is over: its folder under handover is complete, or `error` says why there is none, `hint` what to do.

    `destroyed` counts the quarantined files that were destroyed; `again`: nothing is wrong with the order itself.
    """

    order: str
    destroyed: int
    error: str = ""
    hint: str = ""
    again: bool = False


ORDERS = Verb("orders", Empty, IngestOrder, "server")
PROGRESS = Verb("progress", IngestProgress, Empty)
REPORT = Verb("report", IngestEnd, Empty)

INTAKE = (ORDERS, PROGRESS, REPORT)


# --- the staff's ----------------------------------------------------------------------------------------------


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
    patients is held out for evaluation."""

    project: str
    dataset: str
    source: str
    profile: str
    clinical: str | None = None
    columns: tuple[IngestColumn, ...] = ()
    test_fraction: float = 0.0


@dataclass(frozen=True)
class IngestHappened:
    """`progress` counts files of a stage; `published` carries the new version's id and its numbers."""

    kind: Literal["progress", "published", "failed"]
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


INGEST = Verb("ingest", Ingest, IngestHappened, "server")
