"""Checking somebody's audit log, from bytes alone: what `cloister audit verify` decides.

What a checkpoint covers cannot be changed without being found. What lies beyond the last checkpoint is only read, and
a log cut back to an earlier checkpoint, or signed anew by the node, is whole in itself: for that there is the witness.

A log that was set back says where (`audit.Epoch`). What a witness signed of an earlier epoch need not be in it then, as
far as the epoch names it; the report shows each such seam, with what of the witnessed records this log may lack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mediator.audit import (
    RECORDS_PER_SEGMENT,
    Checkpoint,
    Epoch,
    WitnessedCheckpoint,
    checkpoint_name,
    decode_checkpoint,
    decode_line,
    decode_witness,
    encode_checkpoint,
    epoch_of,
    segment_name,
)
from mediator.errors import IntegrityBroken, Malformed
from mediator.signatures import VerifyKey
from mediator.tree import Frontier

_CHECKPOINT = re.compile(r"checkpoint-[0-9]{12}\.json")
_SEGMENT = re.compile(r"segment-[0-9]{8}\.jsonl")


def is_log_file(name: str) -> bool:
    """Whether a name is one of a log's files."""
    return bool(_CHECKPOINT.fullmatch(name) or _SEGMENT.fullmatch(name))


class Fault(StrEnum):
    UNKNOWN_FILE = "unknown_file"
    SEGMENT_MISSING = "segment_missing"
    SEGMENT_LENGTH = "segment_length"
    RECORD_MALFORMED = "record_malformed"
    RECORD_SEQUENCE = "record_sequence"
    CHECKPOINT_MALFORMED = "checkpoint_malformed"
    CHECKPOINT_SIGNATURE = "checkpoint_signature"
    CHECKPOINT_MISSING = "checkpoint_missing"
    ROOT_MISMATCH = "root_mismatch"
    TRUNCATED = "truncated"
    WITNESS_MALFORMED = "witness_malformed"
    WITNESS_SIGNATURE = "witness_signature"
    WITNESS_MISSING = "witness_missing"
    ROLLED_BACK = "rolled_back"
    EMPTY = "empty"
    EPOCH_ORDER = "epoch_order"
    EPOCH_MISMATCH = "epoch_mismatch"


@dataclass(frozen=True)
class AuditFinding:
    """One thing that is wrong. `file` is a name of ours, or empty for a file that has none."""

    fault: Fault
    file: str
    detail: str


@dataclass(frozen=True)
class Seam:
    """Where a log that was set back begins a new epoch: its first record, and what that says.

    `witnessed`: a witness has signed a checkpoint of this epoch. One that no witness knows is the node's word alone.
    """

    record: int
    epoch: Epoch
    witnessed: bool


@dataclass(frozen=True)
class AuditReport:
    """What was found. `beyond` records follow the newest checkpoint and are not yet covered by any signature.

    `in_flight`: the last line was still being written when the copy was made. `witnessed`: the size of the newest
    witnessed checkpoint that this log holds, 0 without a witness.
    """

    site: str
    records: int
    checkpointed: int
    witnessed: int
    in_flight: bool
    findings: tuple[AuditFinding, ...]
    seams: tuple[Seam, ...] = ()

    @property
    def beyond(self) -> int:
        return max(0, self.records - self.checkpointed)

    @property
    def ok(self) -> bool:
        return not self.findings


def verify_log(
    files: Iterable[tuple[str, bytes]],
    keys: Mapping[str, VerifyKey],
    *,
    witness_lines: bytes | None = None,
    witness_keys: Mapping[str, VerifyKey] | None = None,
) -> AuditReport:
    """Check a folder's (name, content) pairs, given in order of name; `keys` are the node's audit keys.

    1. The folder holds nothing but segments, numbered without a gap, and checkpoints; and not nothing at all.
    2. Every segment but the last is full; every record is a canonical line, numbered without a gap. A last line
       without its end, beyond every checkpoint, is a record in flight.
    3. Every checkpoint is named for its size, of one site, of its records' epoch, and signed by one of `keys`.
    4. The log is at least as long as every checkpoint, and has its root at that size; records need a checkpoint.
    5. The same for every witnessed checkpoint, with the witness's signature where `witness_keys` are given; there is
       one. Of an epoch that is over, the log may lack what a later epoch names, and does not say that it kept.
    """
    check = _Check(keys)
    witnessed = check.read_witness(witness_lines or b"", witness_keys)
    if witness_lines is not None and not witness_lines.strip():  # (5)
        check.find(Fault.WITNESS_MISSING, "", "the witness's file holds no line")
    for checkpoint in witnessed:
        check.wanted.add(checkpoint.size)
    previous, unknown = "", 0
    for name, content in files:
        if name <= previous:
            raise ValueError("the files of a log are given in order of name")
        previous = name
        if _CHECKPOINT.fullmatch(name):  # sorts before every segment, so that all wanted sizes are known there
            check.read_checkpoint(name, content)
        elif _SEGMENT.fullmatch(name):
            check.read_segment(name, content)
        else:
            unknown += 1
    if unknown:  # (1) counted and not named: the name of a file of nobody's may be anything, a patient's too
        check.find(Fault.UNKNOWN_FILE, "", f"{_files(unknown)} neither segment nor checkpoint")
    if not previous:  # (1)
        check.find(Fault.EMPTY, "", "there is no log here")
    check.compare(check.checkpoints, Fault.TRUNCATED, Fault.ROOT_MISMATCH)  # (3), (4)
    epochs = check.epochs(witnessed)
    held = [checkpoint for checkpoint in witnessed if not check.given_up(checkpoint, epochs)]
    check.compare(held, Fault.ROLLED_BACK, Fault.ROLLED_BACK)  # (5)
    if check.tree.size and not check.checkpoints:  # (4)
        check.find(Fault.CHECKPOINT_MISSING, "", "there are records, but no valid checkpoint covers any")
    numbers = {checkpoint.number for checkpoint in held}
    return AuditReport(
        site=next((checkpoint.site for checkpoint in check.checkpoints), ""),
        records=check.tree.size,
        checkpointed=max((checkpoint.size for checkpoint in check.checkpoints), default=0),
        witnessed=max((checkpoint.size for checkpoint in held), default=0),
        in_flight=check.unfinished,
        findings=tuple(check.findings),
        seams=tuple(Seam(record, epoch, epoch.number in numbers) for record, epoch in check.seams),
    )


@dataclass
class _Check:
    """A check under way: what was read so far."""

    keys: Mapping[str, VerifyKey]
    tree: Frontier = field(default_factory=Frontier)
    segments: int = 0
    unfinished: bool = False
    findings: list[AuditFinding] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    wanted: set[int] = field(default_factory=set)
    roots: dict[int, str] = field(default_factory=lambda: {0: Frontier().root})
    seams: list[tuple[int, Epoch]] = field(default_factory=list)

    def find(self, fault: Fault, file: str, detail: str) -> None:
        self.findings.append(AuditFinding(fault, file, detail))

    def read_checkpoint(self, name: str, content: bytes) -> None:
        try:
            checkpoint = decode_checkpoint(content)
        except Malformed as error:
            self.find(Fault.CHECKPOINT_MALFORMED, name, error.message)
            return
        if name != checkpoint_name(checkpoint.size) or content != encode_checkpoint(checkpoint):  # (3)
            self.find(Fault.CHECKPOINT_MALFORMED, name, "name and content do not agree")
        elif self.checkpoints and checkpoint.site != self.checkpoints[0].site:
            self.find(Fault.CHECKPOINT_MALFORMED, name, "of another site than the checkpoints before it")
        elif self._signed(checkpoint, self.keys, Fault.CHECKPOINT_SIGNATURE, name):
            self.checkpoints.append(checkpoint)
            self.wanted.add(checkpoint.size)

    def read_witness(self, lines: bytes, witness_keys: Mapping[str, VerifyKey] | None) -> list[Checkpoint]:
        checkpoints = []
        for number, line in enumerate(lines.splitlines(), 1):
            where = f"witness line {number}"
            try:
                witnessed = decode_witness(line)
            except Malformed as error:
                self.find(Fault.WITNESS_MALFORMED, where, error.message)
                continue
            trusted = witness_keys is None or self._signed(witnessed, witness_keys, Fault.WITNESS_SIGNATURE, where)
            if trusted and self._signed(witnessed.checkpoint, self.keys, Fault.WITNESS_SIGNATURE, where):
                checkpoints.append(witnessed.checkpoint)
        return checkpoints

    def read_segment(self, name: str, content: bytes) -> None:
        if self.segments and (self.unfinished or self.tree.size % RECORDS_PER_SEGMENT):  # (2)
            self.find(Fault.SEGMENT_LENGTH, segment_name(self.segments), "not full, but not the last segment")
        self.segments += 1
        if name != segment_name(self.segments):  # (1)
            self.find(Fault.SEGMENT_MISSING, segment_name(self.segments), f"the next segment found is {name}")
            self.segments = int(name.removeprefix("segment-").removesuffix(".jsonl"))
        *lines, rest = content.split(b"\n")
        self.unfinished = bool(rest)
        if len(lines) > RECORDS_PER_SEGMENT:
            self.find(Fault.SEGMENT_LENGTH, name, f"more than {RECORDS_PER_SEGMENT} records")
        sound = True
        for line in lines:
            sound = self._read_line(name, line, sound)

    def _read_line(self, name: str, line: bytes, sound: bool) -> bool:
        """Take one record into the tree; False once a segment has a finding, so that one fault is told once."""
        self.tree = self.tree.append(line)
        if self.tree.size in self.wanted:
            self.roots[self.tree.size] = self.tree.root
        if not sound:
            return False
        try:
            record = decode_line(line)
            epoch = epoch_of(record)
        except Malformed as error:
            self.find(Fault.RECORD_MALFORMED, name, f"record {self.tree.size}: {error.message}")
            return False
        if record.sequence != self.tree.size:  # (2)
            self.find(Fault.RECORD_SEQUENCE, name, f"record {self.tree.size} has the number {record.sequence}")
            return False
        return epoch is None or self._read_seam(name, epoch)

    def _read_seam(self, name: str, epoch: Epoch) -> bool:
        newest = self.seams[-1][1].number if self.seams else 0
        if epoch.number <= newest or epoch.kept >= self.tree.size:
            self.find(Fault.EPOCH_ORDER, name, f"record {self.tree.size} opens an epoch that cannot begin there")
            return False
        self.seams.append((self.tree.size, epoch))
        return True

    def _epoch_at(self, size: int) -> Epoch | None:
        """What a checkpoint over `size` records of this log says of its epoch."""
        return next((epoch for record, epoch in reversed(self.seams) if record <= size), None)

    def epochs(self, witnessed: Iterable[Checkpoint]) -> frozenset[Epoch]:
        """The log's own epochs, and those that a witness signed and that are over too."""
        newest = self.seams[-1][1].number if self.seams else 0
        over = (other.epoch for other in witnessed if other.epoch is not None and other.number < newest)
        return frozenset([*(epoch for _, epoch in self.seams), *over])

    def given_up(self, checkpoint: Checkpoint, epochs: frozenset[Epoch]) -> bool:
        """Whether a log may lack what a witness signed: it is of an epoch that is over, and one of `epochs` names it.

        What that says it kept is not given up, nor what the log holds all the same.
        """
        if checkpoint.number >= (self.seams[-1][1].number if self.seams else 0):
            return False
        if self._epoch_at(checkpoint.size) == checkpoint.epoch and self.roots.get(checkpoint.size) == checkpoint.root:
            return False
        return any(_names(epoch, checkpoint) for epoch in epochs)

    def compare(self, checkpoints: Iterable[Checkpoint], short: Fault, other: Fault) -> None:
        """Hold the log against signed tree heads: long enough (`short`), and the same records (`other`)."""
        good = 0
        for checkpoint in sorted(checkpoints, key=lambda item: item.size):
            name = checkpoint_name(checkpoint.size)
            if checkpoint.size > self.tree.size:
                self.find(short, name, f"covers {checkpoint.size} records, the log has {self.tree.size}")
            elif self.roots[checkpoint.size] != checkpoint.root:
                self.find(other, name, f"records {good + 1} to {checkpoint.size} are not the ones signed")
            elif self._epoch_at(checkpoint.size) != checkpoint.epoch:
                self.find(Fault.EPOCH_MISMATCH, name, "is of another epoch than the records it covers")
            else:
                good = checkpoint.size

    def _signed(
        self, item: Checkpoint | WitnessedCheckpoint, keys: Mapping[str, VerifyKey], fault: Fault, where: str
    ) -> bool:
        try:
            item.verify(keys)
        except IntegrityBroken as error:
            self.find(fault, where, error.message)
            return False
        return True


def _files(number: int) -> str:
    return "a file that is" if number == 1 else f"{number} files that are"


def _names(epoch: Epoch, checkpoint: Checkpoint) -> bool:
    """Whether an epoch says that this checkpoint of an earlier one may be no more."""
    before = epoch.before
    if checkpoint.number != before.epoch or not epoch.kept < checkpoint.size <= before.size:
        return False
    return checkpoint.size < before.size or checkpoint.root == before.root
