"""The audit log's format: records, segments, signed checkpoints, witnessed checkpoints. Verifying is `audit_check`.

A record is one canonical JSON line. Records are numbered from 1 without gaps and fill segments of
`RECORDS_PER_SEGMENT` lines. A checkpoint signs the Merkle tree head (`tree`) over the first `size` lines, each without
its line end. A witness signs checkpoints that it was shown, each with a proof that it goes on where the last one was:
it sees hashes, never a record.

A log that was set back (its database restored from a backup) cannot go on where the witness saw it last. It opens a new
epoch: an `epoch_open` record names the newest checkpoint the witness signed, and every later checkpoint says so too.
Epoch 0 has no such record, and its records and checkpoints are what they were before there were epochs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from mediator import canonical, grammar
from mediator.errors import Code, IntegrityBroken, Malformed
from mediator.grammar import check_hex256, check_identifier, check_number, check_version
from mediator.signatures import SigningKey, VerifyKey
from mediator.tree import Frontier, proves
from mediator.types import ADDED, Kind

RECORDS_PER_SEGMENT = 10_000
# the longest record that the rules below allow has about 600 bytes
MAX_LINE_BYTES = 2048
# one a day for two millennia: nobody's word makes an epoch that has no next one
MAX_EPOCH = 1_000_000
# a checkpoint or witness line: two signatures, two key ids, a site, an epoch
MAX_CHECKPOINT_BYTES = 4096

_PERMIT = re.compile(grammar.PERMIT)
# Objects that hold an id which a signed document or the site's configuration gave: whatever may be opened can be
# recorded, a run called `lung-2026.11.26.1.2` too. Such ids are chosen where no patient's UID is known.
_NAMED = re.compile(
    rf"(run-order|run|releases|site)/{grammar.IDENTIFIER}|{grammar.instruction_id(Kind)}(@{grammar.HEX256})?"
)
# What any other object may look like: ids this node makes (`sha256:…`, `job-12`). No capitals, no spaces; a file name's
# extension cannot be told from an id's dot, so this is a fence against text, not against every secret.
_OBJECT = re.compile(r"[a-z0-9][a-z0-9._:/@-]{0,159}")
# nothing this node makes an id of reads like one
_DICOM_UID = re.compile(grammar.DICOM_UID)


class Action(StrEnum):
    """What is written down. Closed: a new action is a new version of this table, and a reader knows them all."""

    NODE_INIT = "node_init"
    NODE_START = "node_start"
    NODE_STOP = "node_stop"
    PAUSE = "pause"
    RESUME = "resume"
    ACCESS = "access"
    KEY_ROTATE = "key_rotate"
    DEID_KEY_RETIRE = "deid_key_retire"
    ENROL = "enrol"
    CERTIFICATE_ALARM = "certificate_alarm"
    DOCUMENT_IMPORT = "document_import"
    PERMIT_ACCEPT = "permit_accept"
    PERMIT_END = "permit_end"
    IMAGE_ADD = "image_add"
    IMAGE_APPROVE = "image_approve"
    IMAGE_WITHDRAW = "image_withdraw"
    INGEST_ORDER = "ingest_order"
    INGEST_REPORT = "ingest_report"
    IMPORT_ADVANCE = "import_advance"
    IMPORT_STOP = "import_stop"
    IMPORT_RETRY = "import_retry"
    IMPORT_GIVE_UP = "import_give_up"
    STUDY_TAKE = "study_take"
    DATASET_PUBLISH = "dataset_publish"
    DATASET_WITHDRAW = "dataset_withdraw"
    QUARANTINE_DESTROY = "quarantine_destroy"
    INSTRUCTION_RECEIVE = "instruction_receive"
    TASK_ADMIT = "task_admit"
    REFUSALS_COUNT = "refusals_count"
    LEDGER_CHARGE = "ledger_charge"
    CANARY = "canary"
    SELF_TEST = "self_test"
    JOB_PREPARE = "job_prepare"
    JOB_START = "job_start"
    JOB_PREEMPT = "job_preempt"
    JOB_STOP = "job_stop"
    JOB_PRODUCE = "job_produce"
    JOB_END = "job_end"
    RELEASE = "release"
    REDELIVER = "redeliver"
    DELIVER = "deliver"
    AIRLOCK_CHECK = "airlock_check"
    AIRLOCK_REVIEW = "airlock_review"
    AIRLOCK_RELEASE = "airlock_release"
    AIRLOCK_DELETE = "airlock_delete"
    WORK_DELETE = "work_delete"
    CHECKPOINT = "checkpoint"
    RECOVER = "recover"
    LOG_SET_BACK = "log_set_back"
    EPOCH_OPEN = "epoch_open"
    CLOCK_ACCEPT = "clock_accept"


class Verdict(StrEnum):
    """`allowed` and `refused` are decisions, written before anything is done; `done` and `failed` are outcomes."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class AuditRecord:
    """One record. `permit` is `id@version` or empty, `code` one of `errors.Code` or empty; there is no free text."""

    KIND: ClassVar[str] = "cloister.audit"
    VERSION: ClassVar[int] = 1

    sequence: int
    time: datetime
    actor: str
    action: Action
    object: str
    permit: str
    verdict: Verdict
    code: str

    def __post_init__(self) -> None:
        check_identifier(self.actor, "actor")
        check_version(self.sequence, "sequence")
        if not _NAMED.fullmatch(self.object) and not _is_own_id(self.object):
            raise ValueError("the object of a record is an id of ours")
        if self.permit and not _PERMIT.fullmatch(self.permit):
            raise ValueError("the permit of a record is id@version, or empty")
        if self.code and self.code not in Code.__members__.values():
            raise ValueError("the code of a record is one of ours, or empty")


def _is_own_id(text: str) -> bool:
    return _OBJECT.fullmatch(text) is not None and _DICOM_UID.search(text) is None


def encode_line(record: AuditRecord) -> bytes:
    """The record's line, with its line end."""
    return canonical.encode(record) + b"\n"


def decode_line(line: bytes) -> AuditRecord:
    """The record of a line without its line end. Raises `Malformed`."""
    return canonical.decode(AuditRecord, line, limit=MAX_LINE_BYTES)


# --- checkpoints and witnesses ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogHead:
    """A log as somebody saw it: its epoch, how many records, and their root."""

    epoch: int
    size: int
    root: str

    def __post_init__(self) -> None:
        check_hex256(self.root, "root")
        check_number(self.epoch, "epoch", most=MAX_EPOCH)
        check_number(self.size, "size")


@dataclass(frozen=True)
class Epoch:
    """What a log says of itself after it was set back.

    `before` is the newest checkpoint a witness had signed. The first `kept` records are those it had signed then too;
    of later ones nothing is said but that this log may have others.
    """

    number: int
    kept: int
    before: LogHead

    def __post_init__(self) -> None:
        if not self.before.epoch < self.number <= MAX_EPOCH or not 0 <= self.kept <= self.before.size:
            raise ValueError("an epoch follows an earlier one, and keeps no more than that had")

    @property
    def object(self) -> str:
        """The epoch as the object of its `epoch_open` record."""
        before = self.before
        return f"epoch/{self.number}/kept/{self.kept}/after/{before.epoch}/{before.size}/{before.root}"


_EPOCH = re.compile(
    f"epoch/{grammar.NUMBER}/kept/{grammar.NUMBER}/after/{grammar.NUMBER}/{grammar.NUMBER}/({grammar.HEX256})"
)


def epoch_of(record: AuditRecord) -> Epoch | None:
    """The epoch that a record opens; nothing for any other record. Raises `Malformed` for one that names none."""
    if record.action is not Action.EPOCH_OPEN:
        return None
    match = _EPOCH.fullmatch(record.object)
    try:
        if match is None:
            raise ValueError
        number, kept, epoch, size = (int(match[part]) for part in (1, 2, 3, 4))
        return Epoch(number, kept, LogHead(epoch, size, match[5]))
    except ValueError:
        raise Malformed("a record opens an epoch and does not name it") from None


@dataclass(frozen=True)
class Checkpoint:
    """A signed tree head. The signature is over the canonical bytes of everything else in here.

    `epoch` is what the log's newest `epoch_open` record says; nothing in epoch 0.
    """

    KIND: ClassVar[str] = "cloister.checkpoint"
    VERSION: ClassVar[int] = 1

    site: str
    size: int
    root: str
    time: datetime
    key: str
    signature: str
    epoch: Epoch | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        check_identifier(self.site, "site")
        check_hex256(self.root, "root")
        check_number(self.size, "size")
        if self.epoch is not None and self.size <= self.epoch.kept:
            raise ValueError("an epoch begins after the records it keeps")

    @property
    def number(self) -> int:
        """The number of its epoch."""
        return 0 if self.epoch is None else self.epoch.number

    @property
    def head(self) -> LogHead:
        return LogHead(self.number, self.size, self.root)

    @property
    def signed_bytes(self) -> bytes:
        return _without_signature(self)

    def verify(self, keys: Mapping[str, VerifyKey]) -> None:
        """Raise `IntegrityBroken` unless one of `keys` signed it."""
        _verify(self.key, self.signature, self.signed_bytes, keys, "checkpoint")


@dataclass(frozen=True)
class WitnessedCheckpoint:
    """A checkpoint with a witness's signature over the canonical bytes of everything else in here."""

    KIND: ClassVar[str] = "cloister.witness"
    VERSION: ClassVar[int] = 1

    checkpoint: Checkpoint
    key: str
    signature: str

    @property
    def signed_bytes(self) -> bytes:
        return _without_signature(self)

    def verify(self, keys: Mapping[str, VerifyKey]) -> None:
        """Raise `IntegrityBroken` unless one of `keys` signed it."""
        _verify(self.key, self.signature, self.signed_bytes, keys, "witness line")


def sign_checkpoint(
    site: str, tree: Frontier, time: datetime, key: SigningKey, epoch: Epoch | None = None
) -> Checkpoint:
    """The node's own checkpoint over everything in `tree`."""
    unsigned = Checkpoint(site, tree.size, tree.root, time, key.key_id, "", epoch)
    return replace(unsigned, signature=key.sign_bytes(unsigned.signed_bytes).hex())


def witness_checkpoint(
    checkpoint: Checkpoint,
    previous: Checkpoint | None,
    key: SigningKey,
    *,
    proof: Sequence[str] = (),
    kept: Checkpoint | None = None,
) -> WitnessedCheckpoint:
    """The witness's signature under `checkpoint`, whose own signature the caller has verified.

    `previous` is the newest checkpoint of this site that the witness has signed, `kept` the one of `epoch.kept` records
    where it has signed such a one. Raises `IntegrityBroken`: the witness signs no rollback and no rewritten past.

    1. In the same epoch `proof` shows that the log of `previous` is the beginning of this one.
    2. Another epoch is a later one and names `previous`; `proof` shows that it kept what it says it kept.
    """
    if previous is not None:
        if checkpoint.site != previous.site or checkpoint.number < previous.number:
            raise IntegrityBroken("a checkpoint of another site, or of an epoch that is over")
        if checkpoint.number == previous.number:
            _check_same_epoch(checkpoint, previous, proof)  # (1)
        else:
            _check_new_epoch(checkpoint, previous, kept, proof)  # (2)
    unsigned = WitnessedCheckpoint(checkpoint, key.key_id, "")
    return replace(unsigned, signature=key.sign_bytes(unsigned.signed_bytes).hex())


def _check_same_epoch(checkpoint: Checkpoint, previous: Checkpoint, proof: Sequence[str]) -> None:
    if checkpoint.epoch != previous.epoch:
        raise IntegrityBroken("two epochs of one number")
    if checkpoint.size < previous.size:
        raise IntegrityBroken("this checkpoint covers less than one already witnessed")
    if checkpoint.size == previous.size and checkpoint.root != previous.root:
        raise IntegrityBroken("two checkpoints of one size with different roots")
    if not proves(previous.size, previous.root, checkpoint.size, checkpoint.root, proof):
        raise IntegrityBroken("nothing proves that this log goes on where the one already witnessed ended")


def _check_new_epoch(
    checkpoint: Checkpoint, previous: Checkpoint, kept: Checkpoint | None, proof: Sequence[str]
) -> None:
    epoch = checkpoint.epoch
    if epoch is None or epoch.before != previous.head:
        raise IntegrityBroken("the epoch does not name the checkpoint witnessed last")
    if epoch.kept == 0:
        return
    if kept is None or kept.size != epoch.kept:
        raise IntegrityBroken("the epoch keeps records that were never witnessed")
    if not proves(kept.size, kept.root, checkpoint.size, checkpoint.root, proof):
        raise IntegrityBroken("nothing proves that the epoch keeps what it says it keeps")


def encode_checkpoint(checkpoint: Checkpoint | WitnessedCheckpoint) -> bytes:
    """The bytes of a checkpoint's file, or of one line of a witness file, with the line end."""
    return canonical.encode(checkpoint) + b"\n"


def decode_checkpoint(raw: bytes) -> Checkpoint:
    """The inverse of `encode_checkpoint`; the signature is not checked here. Raises `Malformed`."""
    return canonical.decode(Checkpoint, raw.removesuffix(b"\n"), limit=MAX_CHECKPOINT_BYTES)


def decode_witness(raw: bytes) -> WitnessedCheckpoint:
    """The inverse of `encode_checkpoint` for a witness line; the signature is not checked here."""
    return canonical.decode(WitnessedCheckpoint, raw.removesuffix(b"\n"), limit=MAX_CHECKPOINT_BYTES)


def _without_signature(document: Checkpoint | WitnessedCheckpoint) -> bytes:
    plain = canonical.to_plain(document)
    del plain["signature"]
    return canonical.dumps(plain)


def _verify(key_id: str, signature: str, message: bytes, keys: Mapping[str, VerifyKey], what: str) -> None:
    key = keys.get(key_id)
    if key is None:
        raise IntegrityBroken(f"a {what} is signed by a key that is not given")
    if not re.fullmatch(r"[0-9a-f]{128}", signature) or not key.verifies(bytes.fromhex(signature), message):
        raise IntegrityBroken(f"the signature of a {what} does not verify")


# --- files --------------------------------------------------------------------------------------------------


def segment_name(number: int) -> str:
    """`segment-00000001.jsonl` holds records 1 to 10,000, the next one the 10,000 after them."""
    return f"segment-{number:08d}.jsonl"


def segment_of(sequence: int) -> int:
    """The number of the segment that holds a record."""
    return (sequence - 1) // RECORDS_PER_SEGMENT + 1


def checkpoint_name(size: int) -> str:
    return f"checkpoint-{size:012d}.json"
