"""One output being written: its pixels copied, then the file read again from disk and searched.

1. Header, pixel value, delimiter, in this order, into a descriptor that was opened for a new file. Only the pixels
   are another thread's: each call it makes waits for the interpreter once, so there is one for a native file.
2. The file is opened again: its header and its end are what was meant, and it has no other length.
3. Nothing the patient's files lost is in it or its name: a short one as a whole kept value, any other anywhere but
   across the pixels; and no name or number of the patient's own in a text that was kept as it stood. A match inside a
   value that is ours is counted.
4. Whatever goes wrong, the file is gone again.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

from mediator.deid.screening import Exclusion, Note
from node.deid.chunks import Chunk
from node.deid.copiers import Copiers, CopyJob
from node.deid.facts import cells_of, layout_of
from node.deid.pixels.fragments import new_value, planned
from node.deid.pixels.layout import MalformedStream
from node.deid.pixels.native import CellForm, masked_blocks
from node.deid.reader import Parsed
from node.deid.rewrite import Rewriter
from node.deid.stream import READ_BYTES, Hash, MemoryStream, Stream

_PARDONS = 10_000
# As many bytes of a number spell a word by chance.
_SURE = 8
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# A larger header is not kept waiting for its pixels: memory is one file's, not that of all that are under way.
_WAITING_BYTES = 1 << 20


@dataclass(frozen=True)
class Conversion:
    """What came of one instance. `pardoned` matches lay in values that are ours; the hash is of the copied pixels.

    `missed`: how many elements of each keyword the profile means to keep and could not; `unreadable`: geometry, pixel
    values or decoding depend on one of them. `notes`: what was read otherwise than the file says, or left out.
    `doubtful`: only a decoder can say that its pixel value holds no more than its pictures.
    """

    exclusion: Exclusion | None
    pardoned: int = 0
    pixels_sha256: str = ""
    notes: tuple[Note, ...] = ()
    doubtful: bool = False
    missed: Mapping[str, int] = field(default_factory=dict)
    unreadable: bool = False


@dataclass(frozen=True)
class Copied:
    """A pixel value that was written: its length, the hash of the source's, whether bits were masked.

    `doubtful`: only a decoder can say that it holds no more than its pictures.
    """

    size: int = 0
    digest: str = ""
    masked: bool = False
    doubtful: bool = False


class OutputWriter:
    """A new file at `path` (0600), never over another and never through a link: `FileExistsError` where it is taken.

    `chunks` are its header, `after` what follows the pixels, `own` the UID that names it once it is finished. With
    `copiers` the pixels are on their way when this returns.
    """

    def __init__(
        self,
        path: Path,
        parsed: Parsed,
        chunks: Sequence[Chunk],
        after: bytes,
        rewriter: Rewriter,
        *,
        own: str,
        hash_pixels: bool,
        copiers: Copiers | None,
    ) -> None:
        header = b"".join([chunk.raw for chunk in chunks])
        self._path = path
        self._header = header
        self._after = after
        self._chunks = [*chunks, named(own)]
        self._rewriter = rewriter
        self._notes = parsed.notes
        self._handle = os.open(path, _NEW, 0o600)
        self._job = CopyJob(partial(_write_pixels, self._handle, parsed, hash_pixels))
        self._done: Conversion | None = None
        try:
            MemoryStream(header).copy(0, len(header), self._handle)  # (1)
        except OSError:
            os.close(self._handle)
            path.unlink()
            raise
        if copiers is None or len(header) > _WAITING_BYTES:
            self.finish()
        else:
            copiers.submit(self._job)

    def finish(self) -> Conversion:
        """Wait for the pixels, check the file; its source may be closed then. Safe to repeat."""
        if self._done is None:
            stands = False
            try:
                self._done = self._finished()
                stands = self._done.exclusion is None
            finally:
                if not stands:
                    self._path.unlink()  # (4)
        return self._done

    def _finished(self) -> Conversion:
        try:
            copied = self._job.result()
            if copied is not None and self._after:
                os.write(self._handle, self._after)
        except MalformedStream:
            return Conversion(Exclusion.PIXELS_INCONSISTENT)
        finally:
            os.close(self._handle)
        if copied is None:
            return Conversion(Exclusion.TRUNCATED)
        if not self._stands(len(self._header) + copied.size + len(self._after)):
            return Conversion(Exclusion.UNREADABLE)
        pardoned = matches(self._header, self._chunks, self._rewriter)  # what was found on disk is what was meant
        if pardoned is None:
            return Conversion(Exclusion.RESIDUAL_IDENTIFIER)
        notes = (*self._notes, Note.BITS_MASKED) if copied.masked else self._notes
        return Conversion(None, pardoned, copied.digest, notes, copied.doubtful)

    def _stands(self, size: int) -> bool:
        """Everything but the pixel value, as it is on disk. (2)"""
        handle = os.open(self._path, _AGAIN)
        try:
            if os.fstat(handle).st_size != size or not self._has_header(handle):
                return False
            return not self._after or os.pread(handle, len(self._after), size - len(self._after)) == self._after
        finally:
            os.close(handle)

    def _has_header(self, handle: int) -> bool:
        whole = self._header
        if len(whole) <= READ_BYTES:
            return os.pread(handle, len(whole), 0) == whole
        parts = range(0, len(whole), READ_BYTES)
        return all(
            os.pread(handle, min(READ_BYTES, len(whole) - at), at) == whole[at : at + READ_BYTES] for at in parts
        )


def named(own: str) -> Chunk:
    """A finished file's name as it is searched: its own UID may stand in it. What it is called until then is ours."""
    return Chunk(f"\0{own}.dcm".encode(), (own.encode(),))


def matches(header: bytes, chunks: Sequence[Chunk], rewriter: Rewriter) -> int | None:
    """How many matches in a header and a file's name (the last of `chunks`) are chance; None when one is not. (3)"""
    short = rewriter.residue.whole
    if any(text in short or rewriter.names_someone(text) for chunk in chunks for text in chunk.kept):
        return None
    starts: list[int] = []
    pardoned = 0
    for at, token in rewriter.residue.search(header, chunks[-1].raw):
        if not starts:
            starts = list(accumulate([len(chunk.raw) for chunk in chunks], initial=0))
        index = bisect_right(starts, at) - 1
        if index >= len(chunks) or at + len(token) > starts[index + 1]:
            return None  # across two elements
        unsure = len(token) < _SURE or token in rewriter.residue.opaque
        if not _is_chance(chunks[index], token, rewriter.pardons, unsure=unsure):
            return None
        pardoned += 1
    return pardoned


def _is_chance(chunk: Chunk, token: bytes, pardons: dict[tuple[bytes, bytes, bool], bool], *, unsure: bool) -> bool:
    """Whether every place of `token` in an element lies in a value that is ours; or, if it may be no word, a number."""
    key = (chunk.raw, token, unsure)
    if (answer := pardons.get(key)) is None:
        ours = (*chunk.trusted, *(chunk.numbers if unsure else ()))
        inside = sum(bytes(value).lower().count(token) for value in ours)
        answer = chunk.raw.lower().count(token) <= inside
        if len(pardons) < _PARDONS:
            pardons[key] = answer
    return answer


def _write_pixels(handle: int, parsed: Parsed, hash_pixels: bool) -> Copied | None:
    """The pixel value, of even length; None when it grew shorter meanwhile.

    What no decoder reads of a compressed stream stays behind, and bits that are not stored. Raises `MalformedStream`.
    """
    pixels, stream = parsed.pixels, parsed.stream
    if pixels is None:
        return Copied()
    start, end = pixels.start, pixels.end
    machine, doubtful = hashlib.sha256() if hash_pixels else None, False
    if pixels.fragments is not None:
        layout = layout_of(parsed)
        plan = planned(parsed.syntax, stream, start, end, layout)
        doubtful = plan.doubtful
        if plan.sizes is not None:
            if machine is not None:
                for at in range(start, end, READ_BYTES):
                    machine.update(stream.read(at, min(READ_BYTES, end - at)))
            parts = new_value(parsed.syntax, stream, start, end, layout, plan.sizes)
            return Copied(sum(_append(handle, part) for part in parts), _hex(machine), doubtful=doubtful)
    elif (form := cells_of(parsed)) is not None:
        return _masked(handle, stream, start, end, form, machine)
    if stream.copy(start, end - start, handle, machine) != end - start:
        return None
    return Copied(end - start + _even(handle, end - start), _hex(machine), doubtful=doubtful)


def _masked(handle: int, stream: Stream, start: int, end: int, form: CellForm, machine: Hash | None) -> Copied | None:
    size, masked = 0, False
    for before, after in masked_blocks(stream, start, end, form):
        if machine is not None:
            machine.update(before)
        masked = masked or after is not before
        size += _append(handle, after)
    if size != end - start:
        return None
    return Copied(size + _even(handle, size), _hex(machine), masked)


def _append(handle: int, part: bytes) -> int:
    return MemoryStream(part).copy(0, len(part), handle)


def _even(handle: int, size: int) -> int:
    """How many bytes of padding a value of this length gets."""
    return _append(handle, b"\0") if size % 2 else 0


def _hex(machine: Hash | None) -> str:
    return machine.hexdigest() if machine is not None else ""
