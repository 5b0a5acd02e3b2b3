"""The hub's tables (`hub.db`). What a table holds of a signed document is its text; the columns beside it are an index.

Times are UTC, printed as `mediator.canonical` prints them, so that they sort as text on every database.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# a change here needs a migration; `tests/federation/test_hub_store.py` compares the two
_TIME = String(32)
_NAME = String(64)
_HEX = String(64)


class HubBase(DeclarativeBase):
    """All tables of `hub.db`."""


class SiteRow(HubBase):
    """An enrolled hospital: its public keys, and whether it may connect."""

    __tablename__ = "sites"
    site: Mapped[str] = mapped_column(_NAME, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))  # active, revoked
    enrolled: Mapped[str] = mapped_column(_TIME)
    flower_key: Mapped[str] = mapped_column(Text)
    release_key: Mapped[str] = mapped_column(_HEX)
    audit_key: Mapped[str] = mapped_column(_HEX)
    inventory: Mapped[str | None] = mapped_column(Text)
    inventoried: Mapped[str | None] = mapped_column(_TIME)
    connected: Mapped[str | None] = mapped_column(_TIME)
    checkpoint_refused: Mapped[str | None] = mapped_column(_TIME)  # since when no checkpoint of it could be signed
    protocol: Mapped[int | None]  # what its link said last that it speaks


class CertificateRow(HubBase):
    """A certificate the authority issued to a node."""

    __tablename__ = "certificates"
    serial: Mapped[str] = mapped_column(String(40), primary_key=True)  # hex
    site: Mapped[str] = mapped_column(ForeignKey("sites.site"))
    issued: Mapped[str] = mapped_column(_TIME)
    expires: Mapped[str] = mapped_column(_TIME)
    revoked: Mapped[str | None] = mapped_column(_TIME)
    pem: Mapped[str] = mapped_column(Text)
    used: Mapped[str | None] = mapped_column(_TIME)  # first shown; the site's others ended then
    ended: Mapped[str | None] = mapped_column(_TIME)  # another took its place
    renewals: Mapped[int] = mapped_column(default=0, server_default="0")  # made in place of this one
    request: Mapped[str | None] = mapped_column(_HEX)  # SHA-256 of the renewal that asked for it


class InvitationRow(HubBase):
    """Six words that an operator typed, and what came of them."""

    __tablename__ = "invitations"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    site: Mapped[str] = mapped_column(_NAME)
    code: Mapped[str] = mapped_column(String(32))  # hex; empty once it opens nothing any more
    again: Mapped[bool]
    actor: Mapped[str] = mapped_column(_NAME)
    opened: Mapped[str] = mapped_column(_TIME)
    expires: Mapped[str] = mapped_column(_TIME)
    state: Mapped[str] = mapped_column(String(16))  # open, done, closed
    said: Mapped[str] = mapped_column(String(16))  # why the newest request that these words fit was refused
    request: Mapped[str | None] = mapped_column(_HEX)  # SHA-256 of what was handed in
    answer: Mapped[str | None] = mapped_column(Text)  # the same again for who did not hear it


class HubDocumentRow(HubBase):
    """A signed permit, run order or revocation list to be sent to nodes, in the order they came in."""

    __tablename__ = "documents"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(_NAME)
    name: Mapped[str] = mapped_column(String(96))  # permit@version, run, list number
    sha256: Mapped[str] = mapped_column(_HEX)
    key_id: Mapped[str] = mapped_column(_NAME)
    received: Mapped[str] = mapped_column(_TIME)
    expires: Mapped[str | None] = mapped_column(_TIME)
    text: Mapped[str] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("kind", "name"),)


class RunRow(HubBase):
    """A Cloister run: one run order, however many Flower runs it takes."""

    __tablename__ = "runs"
    run: Mapped[str] = mapped_column(_NAME, primary_key=True)
    permit: Mapped[str] = mapped_column(_NAME)
    permit_version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))  # submitted, waiting, running, done, stopped
    detail: Mapped[str] = mapped_column(Text)  # what it waits for, or why it stopped
    rounds: Mapped[int]
    minimum_sites: Mapped[int]
    attempt: Mapped[int]
    completed_round: Mapped[int]  # -1 before the untrained model is evaluated
    model_sha256: Mapped[str] = mapped_column(_HEX)
    submitted: Mapped[str] = mapped_column(_TIME)
    updated: Mapped[str] = mapped_column(_TIME)


class AttemptRow(HubBase):
    """One opening of a Flower run, or one repetition of an instruction, under a Cloister run."""

    __tablename__ = "attempts"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    flower_run: Mapped[str] = mapped_column(String(20))  # unsigned 64 bits, as text
    reason: Mapped[str] = mapped_column(_NAME)  # opened, resend
    opened: Mapped[str] = mapped_column(_TIME)


class RoundRow(HubBase):
    """One round's training or evaluation over all sites."""

    __tablename__ = "rounds"
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(String(16), primary_key=True)
    model_sha256: Mapped[str] = mapped_column(_HEX)  # of the model sent
    started: Mapped[str] = mapped_column(_TIME)
    finished: Mapped[str | None] = mapped_column(_TIME)
    seconds: Mapped[float | None]
    metrics: Mapped[str | None] = mapped_column(Text)  # weighted by num-examples over the sites that count


class HubInstructionRow(HubBase):
    """An instruction sent to one site."""

    __tablename__ = "instructions"
    site: Mapped[str] = mapped_column(_NAME, primary_key=True)
    instruction: Mapped[str] = mapped_column(String(128), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    round: Mapped[int]
    task: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    sent: Mapped[str] = mapped_column(_TIME)
    text: Mapped[str] = mapped_column(Text)


class EnvelopeRow(HubBase):
    """A release envelope received from a site, before its objects."""

    __tablename__ = "envelopes"
    site: Mapped[str] = mapped_column(_NAME, primary_key=True)
    instruction: Mapped[str] = mapped_column(String(128), primary_key=True)
    root: Mapped[str] = mapped_column(_HEX)
    size_bytes: Mapped[int]
    received: Mapped[str] = mapped_column(_TIME)
    used: Mapped[str | None] = mapped_column(_TIME)
    text: Mapped[str] = mapped_column(Text)


class ReplyRow(HubBase):
    """What became of each reply, in the order they came: used, refused by the node, or dropped by us."""

    __tablename__ = "replies"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    round: Mapped[int]
    task: Mapped[str] = mapped_column(String(16))
    site: Mapped[str] = mapped_column(_NAME)
    attempt: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(16))  # used, refused, dropped, missing
    code: Mapped[str] = mapped_column(_NAME)
    root: Mapped[str] = mapped_column(_HEX)
    size_bytes: Mapped[int]
    seconds: Mapped[float]
    metrics: Mapped[str] = mapped_column(Text)
    received: Mapped[str] = mapped_column(_TIME)
    __table_args__ = (Index("replies_by_round", "run", "round", "task"),)


class HubCheckpointRow(HubBase):
    """An audit checkpoint of a site that this hub has co-signed."""

    __tablename__ = "checkpoints"
    site: Mapped[str] = mapped_column(_NAME, primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(primary_key=True)
    root: Mapped[str] = mapped_column(_HEX)
    received: Mapped[str] = mapped_column(_TIME)
    witness: Mapped[bytes] = mapped_column(LargeBinary)


class EventRow(HubBase):
    """The hub's own audit lines: who did what, and what came of it. No free text."""

    __tablename__ = "events"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[str] = mapped_column(_TIME)
    actor: Mapped[str] = mapped_column(_NAME)
    action: Mapped[str] = mapped_column(_NAME)
    object: Mapped[str] = mapped_column(String(160))
    verdict: Mapped[str] = mapped_column(String(16))
    code: Mapped[str] = mapped_column(_NAME)
    __table_args__ = (Index("events_by_object", "object"),)
