"""The audit folder: committed records, exported in order to files that somebody else can check.

The database is the truth and the folder its copy: records reach it only after they are committed, and a crash in
between is made good at the next start. The folder holds segments and checkpoints and nothing else, ever; what has to
be written aside first is written beside the witness file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from durable.files import flush_folder, replace_file
from mediator.audit import RECORDS_PER_SEGMENT, checkpoint_name, decode_witness, segment_name, segment_of
from mediator.errors import IntegrityBroken, Malformed, NotNow
from node.core.store.store import Store

# lines read from the database at a time: about half a megabyte
_BATCH = 1000


class AuditLog:
    """Exports one store's records to one folder. Thread-safe; one object for each folder."""

    def __init__(self, store: Store, folder: Path, witness_file: Path) -> None:
        self._store = store
        self._folder = folder
        self._witness_file = witness_file
        self._lock = threading.Lock()
        # None: what the folder holds has to be looked at first
        self._exported: int | None = None
        self._checkpointed = 0
        self._witnessed = 0

    def export(self) -> int:
        """Export everything committed and not yet exported; the number of records exported in all.

        The first call makes good what a crash left out. Raises `IntegrityBroken` when the folder holds what the
        database does not, `NotNow` when the disk does not take it: the next call makes that good. Where the database
        was set back nothing is exported until the files are set aside.
        """
        with self._lock:
            try:
                if self._exported is None:
                    if self._behind():
                        return 0
                    self._exported, self._checkpointed = self._recover(), 0
                    self._witnessed = self._recover_witness()
                self._exported = self._append_records(self._exported)
                self._write_checkpoints(self._exported)
                self._append_witness()
                return self._exported
            except OSError as error:
                self._exported = None  # a line may be torn
                raise NotNow("the audit folder cannot be written", hint=error.strerror or "is the disk full?") from None

    def ahead(self) -> bool:
        """Whether the folder holds every record of the database, and goes on: the database was set back."""
        with self._store.read() as reads:
            size = reads.audit_size()
            number = segment_of(max(1, size))
            ours = [line.encode("ascii") for line in reads.audit_lines((number - 1) * RECORDS_PER_SEGMENT, size)]
        path = self._folder / segment_name(number)
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        more = len(lines) > len(ours)
        if len(lines) == RECORDS_PER_SEGMENT:
            more |= (self._folder / segment_name(number + 1)).exists()
        return more and lines[: len(ours)] == ours

    def last_witnessed(self) -> bytes | None:
        """The last whole line of the witness's file; nothing where there is none."""
        if not self._witness_file.exists():
            return None
        lines = self._witness_file.read_bytes().split(b"\n")[:-1]
        return lines[-1] if lines else None

    def set_aside(self, epoch: int) -> None:
        """Move files that hold what the database does not beside the witness's file, whole; the next export begins
        anew. Safe to repeat. Raises `NotNow` when the disk does not take them."""
        with self._lock:
            try:
                aside = self._witness_file.parent / f"before-epoch-{epoch}"
                if self._behind():
                    _move(self._folder, aside / "audit")
                if self._witness_ahead():
                    _move_file(self._witness_file, aside)
            except OSError as error:
                raise NotNow("the log's files cannot be set aside", hint=error.strerror or "is there room?") from None
            finally:
                self._exported = None

    # --- inside

    def _behind(self) -> bool:
        """Whether the database was set back behind these files, and has perhaps gone on elsewhere since."""
        with self._store.read() as reads:
            noted = reads.set_back() is not None
        return self.ahead() or (noted and self._differs())

    def _differs(self) -> bool:
        segments = sorted(self._folder.glob("segment-*.jsonl"))
        if not segments:
            return False
        lines = segments[-1].read_bytes().split(b"\n")[:-1]
        with self._store.read() as reads:
            ours = reads.audit_lines((len(segments) - 1) * RECORDS_PER_SEGMENT, RECORDS_PER_SEGMENT)
        return [line.encode("ascii") for line in ours[: len(lines)]] != lines

    def _witness_ahead(self) -> bool:
        line = self.last_witnessed()
        if line is None:
            return False
        seen = decode_witness(line).checkpoint
        with self._store.read() as reads:
            return seen.size > reads.audit_size() or reads.tree_at(seen.size).root != seen.root

    def _append_records(self, exported: int) -> int:
        while True:
            with self._store.read() as reads:
                lines = reads.audit_lines(exported, _BATCH)
            if not lines:
                return exported
            while lines:
                segment = segment_of(exported + 1)
                room = segment * RECORDS_PER_SEGMENT - exported
                with _appending(self._folder / segment_name(segment)) as descriptor:
                    for line in lines[:room]:
                        _write_whole(descriptor, line.encode("ascii") + b"\n")
                exported += len(lines[:room])
                lines = lines[room:]

    def _write_checkpoints(self, exported: int) -> None:
        with self._store.read() as reads:
            rows = reads.checkpoints(self._checkpointed)
        for row in rows:
            if row.size > exported:  # never a checkpoint before the records it covers
                return
            path = self._folder / checkpoint_name(row.size)
            if not path.exists():
                replace_file(path, row.text.encode("ascii") + b"\n", aside=self._witness_file.parent)
            self._checkpointed = row.size

    def _append_witness(self) -> None:
        with self._store.read() as reads:
            rows = reads.witnessed(self._witnessed)
        if rows:
            with _appending(self._witness_file) as descriptor:
                for row in rows:
                    _write_whole(descriptor, row.text.encode("ascii") + b"\n")
                    self._witnessed = row.size

    def _recover(self) -> int:
        """How many records the folder holds, after a torn last line was cut off."""
        segments = sorted(self._folder.glob("segment-*.jsonl"))
        if [path.name for path in segments] != [segment_name(number + 1) for number in range(len(segments))]:
            raise IntegrityBroken("a segment of the audit log is missing")
        if not segments:
            return 0
        lines = _whole_lines(segments[-1])
        before = (len(segments) - 1) * RECORDS_PER_SEGMENT
        with self._store.read() as reads:
            ours = reads.audit_lines(before, RECORDS_PER_SEGMENT)
        if [line.encode("ascii") for line in ours[: len(lines)]] != lines:
            raise IntegrityBroken(
                "the audit folder holds records that the database does not",
                hint="was the database restored from a backup? keep the folder: it says what happened since",
            )
        return before + len(lines)

    def _recover_witness(self) -> int:
        """The size of the last witnessed checkpoint in the witness file."""
        lines = _whole_lines(self._witness_file) if self._witness_file.exists() else []
        if not lines:
            return 0
        try:
            return decode_witness(lines[-1]).checkpoint.size
        except Malformed:
            raise IntegrityBroken("the last line of the witness file is not a witnessed checkpoint") from None


def _move(folder: Path, aside: Path) -> None:
    for path in sorted(folder.iterdir()):
        _move_file(path, aside)


def _move_file(path: Path, aside: Path) -> None:
    """Move a file, perhaps to another disk: there whole before it is here no more."""
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(aside / path.name, path.read_bytes())
    flush_folder(aside.parent)
    path.unlink()
    flush_folder(path.parent)


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    """A file open for appending; on the disk, and its name too, when the block ends."""
    new = not path.exists()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        flush_folder(path.parent)


def _write_whole(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) != len(line):
        raise OSError(28, "a line was not written whole")


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file without their ends; a last line without an end is cut off the file."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "r+b") as file:
        *lines, torn = file.read().split(b"\n")
        if torn:
            file.truncate(file.tell() - len(torn))
            os.fsync(descriptor)
    return lines
