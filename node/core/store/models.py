"""The tables: DESIGN section 7 as SQLAlchemy models. `migrations/` makes the same tables; a test compares the two.

No table holds anything that names a patient: a patient is a keyed pseudonym, and which person that is only intake's
own database could tell. Times are UTC. Nothing here is particular to SQLite.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no zone, so a time without one is refused on the way in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class NodeBase(DeclarativeBase):
    # named constraints, so that later migrations can change them on every database
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        bytes: LargeBinary(),
        int: BigInteger(),
        str: String(200),
    }


# --- what research is about ---------------------------------------------------------------------------------


class SiteTable(NodeBase):
    __tablename__ = "site"

    site: Mapped[str] = mapped_column(primary_key=True)
    added: Mapped[datetime]


class ProjectTable(NodeBase):
    __tablename__ = "project"

    project: Mapped[str] = mapped_column(primary_key=True)
    added: Mapped[datetime]


class PatientTable(NodeBase):
    """A pseudonym, keyed per project: the same person has another one in another project."""

    __tablename__ = "patient"

    project: Mapped[str] = mapped_column(ForeignKey("project.project"), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(primary_key=True)


class DatasetTable(NodeBase):
    __tablename__ = "dataset"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("project.project"))
    site: Mapped[str] = mapped_column(ForeignKey("site.site"))


class DatasetVersionTable(NodeBase):
    __tablename__ = "dataset_version"

    dataset_version: Mapped[str] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(ForeignKey("dataset.dataset"), index=True)
    created: Mapped[datetime]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("dataset_version.dataset_version"))
    folder: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str]
    profile_fingerprint: Mapped[str]
    engine_version: Mapped[str]
    counts: Mapped[dict[str, Any]]
    excluded: Mapped[dict[str, Any]]


class VersionPatientTable(NodeBase):
    """Whose data a version holds, so that a withdrawal finds every version it concerns."""

    __tablename__ = "version_patient"
    __table_args__ = (ForeignKeyConstraint(["project", "pseudonym"], ["patient.project", "patient.pseudonym"]),)

    dataset_version: Mapped[str] = mapped_column(ForeignKey("dataset_version.dataset_version"), primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    pseudonym: Mapped[str] = mapped_column(primary_key=True)


class VersionStudyTable(NodeBase):
    """Which studies a version holds (version 2 and later), so that a study goes when no version holds it any more."""

    __tablename__ = "version_study"
    __table_args__ = (Index(None, "project", "root"),)

    dataset_version: Mapped[str] = mapped_column(ForeignKey("dataset_version.dataset_version"), primary_key=True)
    study: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(ForeignKey("project.project"))
    root: Mapped[str]


class WithdrawalTable(NodeBase):
    __tablename__ = "withdrawal"

    dataset_version: Mapped[str] = mapped_column(ForeignKey("dataset_version.dataset_version"), primary_key=True)
    time: Mapped[datetime]


class ImportTable(NodeBase):
    """One import, from its order on. `order_text` holds the source folder as the steward typed it, and is emptied when
    the import has ended; `tried_with` is the version of Cloister that left studies waiting."""

    __tablename__ = "import"

    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(index=True)
    project: Mapped[str]
    dataset: Mapped[str]
    actor: Mapped[str]
    order_text: Mapped[str] = mapped_column(Text)
    studies: Mapped[int]
    studies_done: Mapped[int]
    studies_waiting: Mapped[int]
    destroyed: Mapped[int]
    tried_with: Mapped[str]
    dataset_version: Mapped[str | None]
    error: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text)
    not_now: Mapped[bool]
    created: Mapped[datetime]
    updated: Mapped[datetime]


class ImportStudyTable(NodeBase):
    """A study that core has taken for an import under way; gone when the import has ended."""

    __tablename__ = "import_study"
    __table_args__ = (Index(None, "project", "root"),)

    import_name: Mapped[str] = mapped_column(ForeignKey("import.name"), primary_key=True)
    study: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    patient: Mapped[str]
    split: Mapped[str]
    instances: Mapped[int]
    root: Mapped[str]
    size_bytes: Mapped[int]
    profile: Mapped[str]
    profile_fingerprint: Mapped[str]
    engine_version: Mapped[str]


class ImageTable(NodeBase):
    """An approval; `withdrawn` while it does not hold any more."""

    __tablename__ = "image"

    image: Mapped[str] = mapped_column(primary_key=True)
    approved: Mapped[datetime]
    note: Mapped[str] = mapped_column(Text)
    approved_by: Mapped[str | None]
    withdrawn: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class ImageFactsTable(NodeBase):
    """What is in an image (`mediator.images.ImageFacts` as canonical JSON), from before it is approved."""

    __tablename__ = "image_facts"

    image: Mapped[str] = mapped_column(primary_key=True)
    manifest: Mapped[str | None] = mapped_column(index=True)
    lineage: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    added: Mapped[datetime]


# --- who allowed what ---------------------------------------------------------------------------------------


class PermitTable(NodeBase):
    __tablename__ = "permit"

    permit: Mapped[str] = mapped_column(primary_key=True)
    permit_version: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str]
    not_before: Mapped[datetime]
    expires: Mapped[datetime]
    text: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str]
    key_id: Mapped[str]
    received: Mapped[datetime]


class AcceptanceTable(NodeBase):
    __tablename__ = "acceptance"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    permit: Mapped[str]
    permit_version: Mapped[int]
    expires: Mapped[datetime]
    text: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str]
    received: Mapped[datetime]
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")

    __table_args__ = (Index(None, "permit", "permit_version"),)


class RunOrderTable(NodeBase):
    __tablename__ = "run_order"

    run: Mapped[str] = mapped_column(ForeignKey("run.run"), primary_key=True)
    permit: Mapped[str]
    permit_version: Mapped[int]
    rounds: Mapped[int]
    expires: Mapped[datetime]
    text: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str]
    key_id: Mapped[str]
    received: Mapped[datetime]
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")


class RevocationListTable(NodeBase):
    """A list, and all that is revoked by it and by those before it."""

    __tablename__ = "revocation_list"

    number: Mapped[int] = mapped_column(primary_key=True)
    issued: Mapped[datetime]
    revoked: Mapped[list[Any]] = mapped_column(server_default="[]")
    text: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str]
    key_id: Mapped[str]
    received: Mapped[datetime]


# --- what runs ----------------------------------------------------------------------------------------------


class RunTable(NodeBase):
    """`state`: ordered, then running from the first task that is charged."""

    __tablename__ = "run"

    run: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    changed: Mapped[datetime]


class RunVersionTable(NodeBase):
    __tablename__ = "run_version"

    run: Mapped[str] = mapped_column(ForeignKey("run.run"), primary_key=True)
    dataset_version: Mapped[str] = mapped_column(ForeignKey("dataset_version.dataset_version"), primary_key=True)


class RoundTable(NodeBase):
    """`state`: open, served."""

    __tablename__ = "round"

    run: Mapped[str] = mapped_column(ForeignKey("run.run"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    changed: Mapped[datetime]


class InstructionTable(NodeBase):
    """Also the replay table: an id once in here is never served again. `state`: open, released, refused.

    Of one that gate 1 refused `text` and `reply_context` are empty and their hashes all that is kept.
    """

    __tablename__ = "instruction"

    instruction: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str]
    permit: Mapped[str]
    permit_version: Mapped[int]
    round: Mapped[int]
    task: Mapped[str]
    attempt: Mapped[int]
    model_sha256: Mapped[str]
    text: Mapped[str] = mapped_column(Text)
    reply_context: Mapped[bytes]
    text_sha256: Mapped[str] = mapped_column(default="", server_default="")
    context_sha256: Mapped[str] = mapped_column(default="", server_default="")
    received: Mapped[datetime]
    expires: Mapped[datetime]
    state: Mapped[str]
    hub_code: Mapped[str | None]
    delivered: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (Index(None, "run", "round", "task"),)


class RefusalDayTable(NodeBase):
    """Refusals of one source on one day (UTC): those `kept` have records of their own, `more` have none."""

    __tablename__ = "refusal_day"

    source: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)
    kept: Mapped[int]
    more: Mapped[int]


class JobTable(NodeBase):
    """`used_s`: slot-seconds in containers so far (a job on two GPUs uses two a second), for the queue's turns.

    `starts`: how often its task was handed to a container.
    """

    __tablename__ = "job"

    job: Mapped[str] = mapped_column(primary_key=True)
    instruction: Mapped[str] = mapped_column(ForeignKey("instruction.instruction"), index=True)
    run: Mapped[str]
    round: Mapped[int]
    task: Mapped[str]
    permit: Mapped[str]
    permit_version: Mapped[int]
    dataset_version: Mapped[str | None] = mapped_column(ForeignKey("dataset_version.dataset_version"))
    state: Mapped[str] = mapped_column(index=True)
    sandbox: Mapped[str | None]
    code: Mapped[str | None]
    created: Mapped[datetime]
    updated: Mapped[datetime]
    used_s: Mapped[float] = mapped_column(default=0.0, server_default="0")
    preempted: Mapped[int] = mapped_column(default=0, server_default="0")
    starts: Mapped[int] = mapped_column(default=0, server_default="0")


class ReleaseTable(NodeBase):
    __tablename__ = "release"

    instruction: Mapped[str] = mapped_column(ForeignKey("instruction.instruction"), primary_key=True)
    permit: Mapped[str]
    permit_version: Mapped[int]
    run: Mapped[str]
    round: Mapped[int]
    task: Mapped[str]
    attempt: Mapped[int]
    model_sha256: Mapped[str]
    root: Mapped[str]
    objects: Mapped[list[Any]]
    size_bytes: Mapped[int]
    folder: Mapped[str] = mapped_column(Text)
    envelope: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]

    __table_args__ = (Index(None, "run", "round", "task"),)


class LedgerEntryTable(NodeBase):
    """`dataset` is a name; `noise_multiplier` that of the output charged for, null where it leaves without noise."""

    __tablename__ = "ledger_entry"

    permit: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    permit_version: Mapped[int]
    size_bytes: Mapped[int]
    epsilon: Mapped[float]
    time: Mapped[datetime]
    dataset: Mapped[str | None] = mapped_column(index=True)
    noise_multiplier: Mapped[float | None]


class BudgetedVersionTable(NodeBase):
    """Dataset versions that an acceptance of a permit with a privacy budget ever covered; the node may not hold them
    yet."""

    __tablename__ = "budgeted_version"

    permit: Mapped[str] = mapped_column(primary_key=True)
    dataset_version: Mapped[str] = mapped_column(primary_key=True, index=True)


class CanaryTable(NodeBase):
    __tablename__ = "canary"

    # SQLite counts by itself in a plain INTEGER alone
    canary: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    fingerprint: Mapped[str] = mapped_column(index=True)
    time: Mapped[datetime]
    passed: Mapped[bool]
    probes: Mapped[dict[str, Any]]


class FailureTable(NodeBase):
    """What failed although everything around it answered; `set_aside` since when it is tried no more."""

    __tablename__ = "failure"

    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    times: Mapped[int]
    first: Mapped[datetime]
    last: Mapped[datetime]
    set_aside: Mapped[datetime | None] = mapped_column(index=True)


class SettingTable(NodeBase):
    __tablename__ = "setting"

    setting: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


# --- the airlock --------------------------------------------------------------------------------------------


class AirlockFileTable(NodeBase):
    """One file of an analysis, or a round's counts that people have to judge. `content` is what may leave, until the
    file has ended; `record` its disclosures; `near` the values they are about, which stay here."""

    __tablename__ = "airlock_file"

    file: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("job.job"), index=True)
    run: Mapped[str]
    permit: Mapped[str]
    permit_version: Mapped[int]
    name: Mapped[str]
    needed: Mapped[int]
    state: Mapped[str] = mapped_column(index=True)
    content_sha256: Mapped[str]
    record_sha256: Mapped[str]
    record: Mapped[str] = mapped_column(Text)
    # up to a megabyte, wanted by one question in a hundred
    content: Mapped[bytes | None] = mapped_column(deferred=True)
    code: Mapped[str | None]
    created: Mapped[datetime]
    updated: Mapped[datetime]
    near: Mapped[str] = mapped_column(Text, default="", server_default="")


class AirlockReviewTable(NodeBase):
    """A signed review; a document once in here never counts again."""

    __tablename__ = "airlock_review"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    file: Mapped[str] = mapped_column(ForeignKey("airlock_file.file"), index=True)
    subject: Mapped[str]
    key_id: Mapped[str]
    decision: Mapped[str]
    why: Mapped[str]
    text: Mapped[str] = mapped_column(Text)
    time: Mapped[datetime]


class ShownCountsTable(NodeBase):
    """The counts of one file, or of one round's metrics, that left under a permit or may leave; gone with a file that
    never will. `source` is the file or the instruction. `counts` is null for what left before they were kept."""

    __tablename__ = "shown_counts"

    source: Mapped[str] = mapped_column(primary_key=True)
    permit: Mapped[str] = mapped_column(index=True)
    run: Mapped[str]
    name: Mapped[str]
    task: Mapped[str]
    dataset_version: Mapped[str | None]
    split: Mapped[str | None]
    left: Mapped[bool]
    counts: Mapped[str | None] = mapped_column(Text)
    time: Mapped[datetime]


# --- the audit log ------------------------------------------------------------------------------------------


class AuditRecordTable(NodeBase):
    """One record; `line` is its canonical JSON, the exact bytes that are hashed and exported."""

    __tablename__ = "audit_record"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    action: Mapped[str] = mapped_column(index=True)
    verdict: Mapped[str]
    line: Mapped[str] = mapped_column(Text)


class AuditHeadTable(NodeBase):
    """One row: how many records there are, the newest time, and the Merkle frontier over all lines."""

    __tablename__ = "audit_head"

    head: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int]
    newest: Mapped[datetime | None]
    frontier: Mapped[list[Any]]


class CheckpointTable(NodeBase):
    """`frontier`: the Merkle frontier at this size, from which what was added later can be proven to be added."""

    __tablename__ = "checkpoint"

    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Text)
    time: Mapped[datetime]
    frontier: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))


class WitnessedTable(NodeBase):
    """A checkpoint with the hub's signature beside ours."""

    __tablename__ = "witnessed"

    size: Mapped[int] = mapped_column(ForeignKey("checkpoint.size"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    time: Mapped[datetime]


class LogEpochTable(NodeBase):
    """An epoch of the log after the first (`mediator.audit.Epoch`), and the record that opened it."""

    __tablename__ = "log_epoch"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    record: Mapped[int]
    kept: Mapped[int]
    before_epoch: Mapped[int]
    before_size: Mapped[int]
    before_root: Mapped[str]
    opened: Mapped[datetime]


class SetBackTable(NodeBase):
    """One row while the log is known to have been set back: the newest log head that is not this log's."""

    __tablename__ = "set_back"

    one: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    size: Mapped[int]
    root: Mapped[str]
    noticed: Mapped[datetime]
