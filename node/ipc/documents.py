"""What hospital staff ask core about permits and other signed documents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mediator.errors import Code
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb


@dataclass(frozen=True)
class DocumentOutcome:
    """What became of a document: taken, already held, or refused with the first reason."""

    outcome: Literal["accepted", "known", "refused"]
    code: Code | None = None


@dataclass(frozen=True)
class PermitLine:
    """A permit, and what the hospital and the committee have said of it since."""

    permit: str
    permit_version: int
    project: str
    not_before: datetime
    expires: datetime
    accepted: bool
    revoked: bool


@dataclass(frozen=True)
class PermitId:
    permit: str
    permit_version: int


PERMITS = Verb("permits", Empty, tuple[PermitLine, ...])
PERMIT_TEXT = Verb("permit_text", PermitId, SignedText)
PERMIT_ACCEPT = Verb("permit_accept", SignedText, DocumentOutcome)
DOCUMENTS_IMPORT = Verb("documents_import", SignedText, DocumentOutcome)
