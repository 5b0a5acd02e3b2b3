"""What intake asks of core on `intake.sock`. Imports and studies have ids of ours; no patient and no file is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mediator.import_orders import IngestOrder
from mediator.manifests import Deidentification, Split
from node.ipc.messages import Empty
from node.ipc.verb import Verb

Stage = Literal["take_in", "deidentify", "hand_over", "forget"]


@dataclass(frozen=True)
class Work:
    """What to do about an import: carry its order out from where it was, give up what waits, or destroy all of it.

    `begun`: core may hold studies of it already, so intake has what is left of it, or has lost it.
    """

    kind: Literal["carry_out", "give_up", "destroy"]
    order: IngestOrder
    begun: bool = False


@dataclass(frozen=True)
class IngestProgress:
    """How far an order is: `done` of `total` files in this stage (`total` is 0 while it is not known)."""

    order: str
    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class GoOn:
    """Whether the import is to go on; a person may have stopped it."""

    go_on: bool


@dataclass(frozen=True)
class StudyReady:
    """A study stands in the import's handover folder, whole: `instances` files. `studies`: how many the import has."""

    order: str
    studies: int
    study: str
    patient: str
    split: Split
    instances: int
    made_by: Deidentification


@dataclass(frozen=True)
class StudyTaken:
    """`taken`: core has it on its own disk and on record, and intake forgets it."""

    outcome: Literal["taken", "stopped", "disk_full"]


@dataclass(frozen=True)
class IngestEnd:
    """Intake is through with an import: what core needs lies in its handover folder, or `error` says why it does not,
    `hint` what to do; or `waiting` studies met a defect of ours and stay.

    `destroyed` counts the quarantined files that were destroyed; `again`: nothing is wrong with the order itself.
    """

    order: str
    destroyed: int
    error: str = ""
    hint: str = ""
    again: bool = False
    waiting: int = 0


@dataclass(frozen=True)
class LiveImports:
    """Imports that have not ended, those that wait too."""

    orders: tuple[str, ...]


@dataclass(frozen=True)
class Swept:
    """What an import that core does not know any more had left, and how many originals were among it."""

    order: str
    destroyed: int


ORDERS = Verb("orders", Empty, Work, "server")
PROGRESS = Verb("progress", IngestProgress, GoOn)
STUDY = Verb("study", StudyReady, StudyTaken)
REPORT = Verb("report", IngestEnd, Empty)
LIVE = Verb("imports_live", Empty, LiveImports)
SWEPT = Verb("swept", Swept, Empty)
