"""An audit log's folder, read once and in order, whatever its size: at most one segment is in memory."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mediator.audit import (
    MAX_CHECKPOINT_BYTES,
    RECORDS_PER_SEGMENT,
    AuditRecord,
    checkpoint_name,
    decode_checkpoint,
    decode_line,
)
from mediator.audit_check import AuditReport, Fault, is_log_file, verify_log
from mediator.errors import IntegrityBroken, Malformed, UsageFault
from mediator.signatures import KeyRing, VerifyKey
from node.cli.files import read_bytes, read_text
from node.cli.output import say
from node.host.keys import check_not_private

# a segment of 10,000 records of at most 2 kB; whatever is larger is not one
_MAX_FILE_BYTES = 64 << 20
# a line has 800 bytes, and there is one every five minutes: ten years of them
_MAX_WITNESS_BYTES = 1 << 30
_CLOSED = "the log is core's: run as root, or name a copy"
_SEGMENT, _CHECKPOINT = "segment-", "checkpoint-"


@dataclass(frozen=True)
class LogLine:
    """A record as it was read: its bytes without the line end, and what they say."""

    raw: bytes
    record: AuditRecord
    # the size of the first signed checkpoint over it; 0 while there is none; nothing where no signature was checked
    checkpoint: int | None


@dataclass(frozen=True)
class Log:
    """A log's folder and what it is checked with. No `keys`: it is read and not checked."""

    folder: Path
    keys: KeyRing | None
    witness: Path | None
    witness_keys: KeyRing | None

    def read(self, take: Callable[[LogLine], None], *, first: int = 1, last: int | None = None) -> AuditReport | None:
        """Hand every record of `first` to `last` to `take`, in order, while the whole log is checked as
        `cloister audit verify` does; nothing is said of a log that is only read.

        Records reach `take` before the end of the check. Raises `IntegrityBroken` for a line that is no record in a log
        that is not checked.
        """
        if self.keys is None:
            for _ in self._passing(take, first, last):
                pass
            return None
        return verify_log(
            self._passing(take, first, last),
            self.keys,
            witness_lines=None if self.witness is None else self.witness_lines(),
            witness_keys=None if self.witness is None else self.witness_keys,
        )

    def last_record(self) -> int:
        """The number of the last line that is whole, by the last segment alone; 0 in an empty log."""
        found = [name for name, path in _sorted(self.folder) if path is not None and is_log_file(name)]
        newest = next((name for name in reversed(found) if name.startswith(_SEGMENT)), None)
        if newest is None:
            return 0
        return _begin(newest) + read_bytes(self.folder / newest, limit=_MAX_FILE_BYTES).count(b"\n")

    def witness_lines(self) -> bytes:
        return b"" if self.witness is None else read_bytes(self.witness, limit=_MAX_WITNESS_BYTES)

    def _passing(self, take: Callable[[LogLine], None], first: int, last: int | None) -> Iterator[tuple[str, bytes]]:
        covered: list[int] = []  # a checkpoint's name sorts before every segment's
        for name, path in _sorted(self.folder):
            if not is_log_file(name) or not name.startswith(_SEGMENT):
                content = b"" if path is None or self.keys is None else read_bytes(path, limit=_MAX_FILE_BYTES)
                if is_log_file(name) and self._signed(name, content):
                    covered.append(_size(name))
                yield name, content
                continue
            begin = _begin(name)
            wanted = first <= begin + RECORDS_PER_SEGMENT and (last is None or last > begin)
            if self.keys is None and not wanted:
                continue
            content = b"" if path is None else read_bytes(path, limit=_MAX_FILE_BYTES)
            if wanted:
                for number, raw in enumerate(content.split(b"\n")[:-1], begin + 1):
                    if first <= number and (last is None or number <= last):
                        self._take(number, raw, covered, take)
            yield name, content

    def _take(self, number: int, raw: bytes, covered: list[int], take: Callable[[LogLine], None]) -> None:
        try:
            record = decode_line(raw)
        except Malformed:
            if self.keys is None:  # otherwise the check finds it
                raise IntegrityBroken(f"record {number} is no record", hint="cloister audit verify") from None
            return
        at = bisect_left(covered, number)
        size = covered[at] if at < len(covered) else 0
        take(LogLine(raw, record, None if self.keys is None else size))

    def _signed(self, name: str, content: bytes) -> bool:
        """Whether the node signed a checkpoint, and over as many records as it is named for."""
        if self.keys is None:
            return False
        try:
            checkpoint = decode_checkpoint(content)
            checkpoint.verify(self.keys)
        except (Malformed, IntegrityBroken):  # the check finds it
            return False
        return name == checkpoint_name(checkpoint.size)


def _begin(segment: str) -> int:
    """How many records stand in the segments before this one."""
    return (int(segment.removeprefix(_SEGMENT).removesuffix(".jsonl")) - 1) * RECORDS_PER_SEGMENT


def _size(checkpoint: str) -> int:
    return int(checkpoint.removeprefix(_CHECKPOINT).removesuffix(".json"))


def checkpoint_sizes(folder: Path) -> list[int]:
    """How many records each checkpoint says that it covers, by name, in order."""
    names = (name for name, path in _sorted(folder) if path is not None and is_log_file(name))
    return [_size(name) for name in names if name.startswith(_CHECKPOINT)]


def checkpoint_at(folder: Path, size: int) -> bytes:
    """The file of the checkpoint over so many records."""
    return read_bytes(folder / checkpoint_name(size), limit=MAX_CHECKPOINT_BYTES)


def newest_checkpoint(folder: Path) -> bytes | None:
    """The file of the checkpoint over the most records."""
    sizes = checkpoint_sizes(folder)
    return checkpoint_at(folder, sizes[-1]) if sizes else None


def is_there(path: Path) -> bool:
    """Whether a file beside the log is there. Raises `UsageFault` for who may not look."""
    try:
        return path.is_file()
    except PermissionError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}", hint=_CLOSED) from error


def _sorted(folder: Path) -> list[tuple[str, Path | None]]:
    """Names in order, each with the file of that name; a folder or a link has a slash behind its name, and none."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        hint = _CLOSED if isinstance(error, PermissionError) else ""
        raise UsageFault(f"cannot read {folder}: {error.strerror}", hint=hint) from error
    plain = {entry.name: Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)}
    others = [f"{entry.name}/" for entry in entries if entry.name not in plain]
    if "audit/" in others and not any(map(is_log_file, plain)):
        raise UsageFault(f"{folder} is not the audit log's folder", hint=f"name the one inside it: {folder / 'audit'}")
    return sorted([*plain.items(), *((name, None) for name in others)], key=lambda item: item[0])


def read_keys(path: Path) -> tuple[KeyRing, KeyRing]:
    """(audit keys, witness keys) from a file of `purpose hex` lines, or of one key alone."""
    check_not_private(path)
    found: dict[str, list[VerifyKey]] = {"audit": [], "witness": []}
    for line in read_text(path, limit=1 << 16).splitlines():
        purpose, _, text = line.strip().rpartition(" ")
        if not text or line.startswith("#"):
            continue
        if (purpose or "audit") not in found:
            raise UsageFault(f"{path} is no list of keys: lines are `audit <hex>` and `witness <hex>`")
        found[purpose or "audit"].append(VerifyKey.from_text(text))
    if not found["audit"]:
        raise UsageFault(f"{path} holds no audit key")
    return KeyRing(found["audit"]), KeyRing(found["witness"])


def check(report: AuditReport) -> None:
    """Raise `IntegrityBroken` for a log with a finding."""
    if report.ok:
        return
    first = report.findings[0]
    place = f"{first.file}: " if first.file else ""
    # the hub has seen more than this folder holds: cut back, or copied before the witness file was
    hint = "of a running node copy the witness file first" if first.fault is Fault.ROLLED_BACK else ""
    raise IntegrityBroken(f"the audit log does not verify: {place}{first.detail}", hint=hint)


def tell_seams(report: AuditReport) -> None:
    """Say where the log was set back, and what it may lack since."""
    for seam in report.seams:
        epoch, who = seam.epoch, "the witness" if seam.witnessed else "no witness"
        say(f"the log was set back: epoch {epoch.number} begins with record {seam.record}; of {epoch.before.size} "
            f"records witnessed before, it keeps the first {epoch.kept}; {who} has signed this epoch")  # fmt: skip


def tell_cover(report: AuditReport | None, newest_shown: int) -> None:
    """Say how far what was shown is covered. Raises `IntegrityBroken` for a log that does not verify."""
    if report is None:
        say("nothing was checked: what is shown is what the files say")
        return
    check(report)
    tell_seams(report)
    witnessed = f", and the hub has witnessed {report.witnessed}" if report.witnessed else ""
    say(f"the audit log verifies: {report.checkpointed} of {report.records} records are covered by a signed checkpoint"
        f"{witnessed}")  # fmt: skip
    if newest_shown > report.checkpointed:
        say(f"records after {report.checkpointed} are not covered yet: nothing proves that they stay as they are")
