"""What hospital staff ask core about analyses and the airlock.

Records cross as the canonical JSON, reviews as rows with the signed text of their documents. A file's content crosses
to the data steward alone: it is at most 1 MiB of text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mediator.airlock.review import FileState
from mediator.disclosure import NearCount
from mediator.errors import Code
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb


@dataclass(frozen=True)
class RunId:
    """A local run order that this node holds, by its run."""

    run: str


@dataclass(frozen=True)
class Started:
    instruction: str


@dataclass(frozen=True)
class FileId:
    file: str


@dataclass(frozen=True)
class FileLine:
    """A file in the airlock. `outcome` is what the rules found, `approvals` how many of `needed` persons agree.

    `late`: it waits longer than the hospital wants.
    """

    file: str
    run: str
    permit: str
    permit_version: int
    name: str
    outcome: Literal["pass", "review", "fail"]
    state: FileState
    code: Code | None
    approvals: int
    needed: int
    late: bool
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class NewReview:
    """A person's signed review, about to be kept."""

    sha256: str
    file: str
    subject: str
    key_id: str
    decision: str
    why: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class ReviewRow(NewReview):
    """Who said what of a file, and the signed document that says so."""

    time: datetime


@dataclass(frozen=True)
class ShownFile:
    """A file to look at: what would leave (empty where nothing may), its disclosure record, its reviews.

    `near` are counts that differ little from some that left before: for who reviews, never for who takes the file.
    """

    line: FileLine
    content: bytes = field(repr=False)
    content_sha256: str
    record: str = field(repr=False)
    record_sha256: str
    reviews: tuple[ReviewRow, ...]
    near: tuple[NearCount, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FileReviewed:
    state: FileState


ANALYSIS_START = Verb("analysis_start", RunId, Started)
AIRLOCK_LIST = Verb("airlock_list", Empty, tuple[FileLine, ...])
AIRLOCK_SHOW = Verb("airlock_show", FileId, ShownFile)
AIRLOCK_REVIEW = Verb("airlock_review", SignedText, FileReviewed)
AIRLOCK_TAKE = Verb("airlock_take", FileId, ShownFile)
AIRLOCK_TAKEN = Verb("airlock_taken", FileId, Empty)
