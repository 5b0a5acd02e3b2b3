"""What hospital staff ask core about analyses and the airlock.

Records and reviews cross as the canonical JSON and the signed text of their documents. A file's content crosses to the
data steward alone: it is at most 1 MiB of text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from mediator.errors import Code
from node.ipc.channel import Verb
from node.ipc.messages import Empty, Message

State = Literal["produced", "checked", "waiting", "approved", "released", "refused", "expired"]


class StartAnalysis(Message):
    """A local run order that this node holds, by its run."""

    run: str


class Started(Message):
    instruction: str


class FileLine(Message):
    """A file in the airlock. `outcome` is what the rules found, `approvals` how many of `needed` persons agree.

    `late`: it waits longer than the hospital wants.
    """

    file: str
    run: str
    permit: str
    permit_version: int
    name: str
    outcome: Literal["pass", "review", "fail"]
    state: State
    code: Code | None
    approvals: int
    needed: int
    late: bool
    created: datetime
    updated: datetime


class Files(Message):
    items: tuple[FileLine, ...]


class FileId(Message):
    file: str


class ReviewLine(Message):
    """Who said what of a file, and the signed document that says so."""

    subject: str
    key_id: str
    decision: Literal["approve", "refuse"]
    why: str
    text: str
    time: datetime


class FileShown(Message):
    """A file to look at: what would leave (empty where nothing may), its disclosure record, its reviews."""

    line: FileLine
    content: bytes
    content_sha256: str
    record: str
    record_sha256: str
    reviews: tuple[ReviewLine, ...]


class ReviewText(Message):
    """A signed `mediator.airlock.Review`."""

    text: str


class Reviewed(Message):
    state: State


ANALYSIS_START = Verb("analysis_start", StartAnalysis, Started)
AIRLOCK_LIST = Verb("airlock_list", Empty, Files)
AIRLOCK_SHOW = Verb("airlock_show", FileId, FileShown)
AIRLOCK_REVIEW = Verb("airlock_review", ReviewText, Reviewed)
AIRLOCK_TAKE = Verb("airlock_take", FileId, FileShown)
AIRLOCK_TAKEN = Verb("airlock_taken", FileId, Empty)

LISTED = (ANALYSIS_START, AIRLOCK_LIST, AIRLOCK_SHOW, AIRLOCK_REVIEW, AIRLOCK_TAKE, AIRLOCK_TAKEN)
