"""The life of a file in the airlock as one table, and what a person's review is worth.

A file is a row. The rules of gate 2 (`mediator.airlock.decide`) come first, people after: as many different persons as
the rules ask for must approve exactly this content, none of them a person of the permit; one refusal ends it. Nothing
sits forgotten: what is not decided, or not fetched, in its time ends as expired, its content deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal

from mediator import transitions
from mediator.errors import Code, Denied, Reason
from mediator.grammar import check_hex256, check_identifier
from mediator.signatures import Signed
from mediator.types import CLOCK_TOLERANCE

# A review is signed and sent at once. An older one was kept back, perhaps for another day.
REVIEW_HOLDS = timedelta(hours=1)


class FileState(StrEnum):
    PRODUCED = "produced"  # copied out of the container; no rule has been asked
    CHECKED = "checked"  # the rules let it through to people; its record is written
    WAITING = "waiting"  # one person has approved and another must
    APPROVED = "approved"  # enough persons have approved; it may be fetched
    RELEASED = "released"  # it was fetched
    REFUSED = "refused"  # a rule or a person said no
    EXPIRED = "expired"  # nobody decided, or nobody fetched it, in time


class FileEvent(StrEnum):
    CHECK = "check"
    ENDORSE = "endorse"  # an approval that is not the last
    APPROVE = "approve"
    RELEASE = "release"
    REFUSE = "refuse"
    EXPIRE = "expire"


ENDED = frozenset({FileState.RELEASED, FileState.REFUSED, FileState.EXPIRED})

TRANSITIONS: Mapping[tuple[FileState, FileEvent], FileState] = {
    (FileState.PRODUCED, FileEvent.CHECK): FileState.CHECKED,
    (FileState.PRODUCED, FileEvent.REFUSE): FileState.REFUSED,
    (FileState.CHECKED, FileEvent.ENDORSE): FileState.WAITING,
    (FileState.CHECKED, FileEvent.APPROVE): FileState.APPROVED,
    (FileState.CHECKED, FileEvent.REFUSE): FileState.REFUSED,
    (FileState.CHECKED, FileEvent.EXPIRE): FileState.EXPIRED,
    (FileState.WAITING, FileEvent.APPROVE): FileState.APPROVED,
    (FileState.WAITING, FileEvent.REFUSE): FileState.REFUSED,
    (FileState.WAITING, FileEvent.EXPIRE): FileState.EXPIRED,
    (FileState.APPROVED, FileEvent.RELEASE): FileState.RELEASED,
    (FileState.APPROVED, FileEvent.REFUSE): FileState.REFUSED,
    (FileState.APPROVED, FileEvent.EXPIRE): FileState.EXPIRED,
}


def advance(state: FileState, event: FileEvent) -> FileState:
    """The state after `event`. Raises `IntegrityBroken` for an event the table does not have in this state."""
    return transitions.advance(TRANSITIONS, state, event, "a file")


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    return transitions.mermaid(TRANSITIONS, FileState.PRODUCED, ENDED)


# --- reviews ------------------------------------------------------------------------------------------------

# Why, in words that carry nothing: what a reviewer would write freely could quote what they saw.
Why = Literal["safe", "small_groups", "looks_like_a_person", "not_what_the_permit_asks", "misdeclared", "unclear"]


@dataclass(frozen=True)
class Review:
    """One person's yes or no to exactly one content of one file with exactly one record, signed with their key."""

    KIND: ClassVar[str] = "cloister.airlock-review"
    VERSION: ClassVar[int] = 1

    site: str
    file: str
    content_sha256: str
    record_sha256: str
    decision: Literal["approve", "refuse"]
    why: Why
    issued: datetime

    def __post_init__(self) -> None:
        check_identifier(self.site, "site")
        check_identifier(self.file, "file")
        check_hex256(self.content_sha256, "content_sha256")
        check_hex256(self.record_sha256, "record_sha256")
        if (self.decision == "approve") != (self.why == "safe"):
            raise ValueError("safe is why somebody approves; a refusal has another reason")


def review_id(signed: Signed[Review]) -> str:
    """A review's own hash (hex): of the signed text, because two persons may say the same in the same second."""
    return hashlib.sha256(signed.text.encode("ascii")).hexdigest()


@dataclass(frozen=True)
class FileFacts:
    """What a review is held against. `requesters` are the subjects and key ids that the permit names; `approved_by` the
    subjects of those who have approved, `reviewed` every review there is of this file (`review_id`)."""

    site: str
    file: str
    content_sha256: str
    record_sha256: str
    state: FileState
    needed: int
    requesters: frozenset[str]
    approved_by: frozenset[str]
    reviewed: frozenset[str]


def review(signed: Signed[Review], reviewers: Mapping[str, str], facts: FileFacts, now: datetime) -> FileEvent:
    """What a review does to its file. `reviewers` is a subject for each key id. Raises `Denied` with every reason.

    1. It is by a person the hospital has named, who is not a person of the permit: neither by key nor by subject.
    2. It is for this site and file, and for exactly the content and the record that are here.
    3. It is new: signed within the last hour, and never seen before.
    4. Its file waits for people, and this person has not approved it yet: two approvals are two persons'.
    """
    document, subject = signed.document, reviewers.get(signed.key_id)
    reasons = []
    if subject is None:  # (1)
        raise Denied(Reason(Code.REVIEWER_NOT_PERMITTED, "the hospital has named nobody with this key"))
    if facts.requesters & {subject, signed.key_id}:
        reasons.append(Reason(Code.REVIEWER_NOT_PERMITTED, "a person of the permit does not review its files"))
    about = (document.site, document.file, document.content_sha256, document.record_sha256)
    if about != (facts.site, facts.file, facts.content_sha256, facts.record_sha256):  # (2)
        reasons.append(Reason(Code.REVIEW_MISMATCH, "for another site, file, content or record"))
    age = now - document.issued
    if age > REVIEW_HOLDS or age < -CLOCK_TOLERANCE or review_id(signed) in facts.reviewed:  # (3)
        reasons.append(Reason(Code.REVIEW_REPLAYED, "seen before, or not signed within the last hour"))
    if facts.state not in (FileState.CHECKED, FileState.WAITING, FileState.APPROVED):  # (4)
        reasons.append(Reason(Code.REVIEW_MISMATCH, f"the file is {facts.state.value}"))
    if document.decision == "approve" and facts.state is FileState.APPROVED:
        reasons.append(Reason(Code.REVIEW_MISMATCH, "the file is approved"))
    if document.decision == "approve" and subject in facts.approved_by:
        reasons.append(Reason(Code.REVIEWER_NOT_PERMITTED, "this person has approved it already"))
    if reasons:
        raise Denied(reasons)
    if document.decision == "refuse":
        return FileEvent.REFUSE
    return FileEvent.APPROVE if len(facts.approved_by | {subject}) >= facts.needed else FileEvent.ENDORSE


def overdue(states: Iterable[tuple[FileState, datetime]], limit: timedelta, now: datetime) -> int:
    """How many files have waited for people longer than `limit`, given each one's state and since when it waits."""
    return sum(state not in ENDED and now - since > limit for state, since in states)
