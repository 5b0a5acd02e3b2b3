"""One DICOM file through a compiled table: read strictly, rebuilt from what the table lets stay, checked on disk.

The output is built anew, element by element; nothing of the input is edited in place, so what no rule asked for is not
there: preamble, file meta, private groups, group lengths, curves, overlays, padding, whatever follows the pixels.
Pixel data is copied byte for byte in its own transfer syntax (a deflated file becomes explicit VR little endian).

    source = engine.open(handle)                    # or read(content); the handle stays open until it is written
    refused = engine.write(source, subject, path)   # None: it stands, and was searched for what was removed

1. What the strict reader finds contradictory goes to the patient one (`node.deid.lenient`) before it is refused.
2. A new file (0600), never over another and never through a link; gone again whatever goes wrong.
3. It is read again from disk: the header is what was meant, and nothing the patient's files lost is in it, its name,
   or what follows the pixels. A match inside a value that is ours is counted, not refused.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from mediator.deid.mandatory import Mandatory
from mediator.deid.rules import Action, Table
from mediator.deid.screening import Exclusion, Facts
from mediator.deid.statement import statement
from mediator.deid.tables import Standard
from mediator.deid.values import Subject
from node.deid import encoding
from node.deid.facts import facts_of, pixels_fit
from node.deid.lenient import parse_leniently
from node.deid.pixels.fragments import has_words, value_without_words
from node.deid.pixels.segments import MalformedStream
from node.deid.profiles import load_profile, standard
from node.deid.reader import Parsed, Reader
from node.deid.rewrite import Chunk, Rewriter, usual_vr
from node.deid.stream import READ_BYTES, FileStream, MemoryStream, Stream
from node.deid.structure import Node, Unreadable

_PARDONS = 10_000
_ISSUER = 0x00100021  # Issuer of Patient ID
_SOP_INSTANCE = 0x00080018


@dataclass(frozen=True)
class Source:
    """A file that could be taken apart: what the gate needs to know, and the parts."""

    facts: Facts
    finding: Exclusion | None
    parsed: Parsed = field(repr=False)


@dataclass(frozen=True)
class Conversion:
    """What came of one instance. `pardoned` matches lay in values that are ours; the hash is of the copied pixels."""

    exclusion: Exclusion | None
    pardoned: int = 0
    pixels_sha256: str = ""


class Engine:
    """Implements `node.usecases.deidentify.DicomEngine` for one compiled profile."""

    def __init__(self, table: Table, standard: Standard) -> None:
        self.table = table
        vr_of = {tag: usual_vr(element.vrs) for tag, element in standard.elements.items()}
        self._vr_of = lambda tag: vr_of.get(tag, "UN")
        self._reader = Reader(self._vr_of, private_alone=bool(table.private))
        self._mandatory = Mandatory(standard)
        self._rewriter: Rewriter | None = None
        self._statements: dict[tuple[bool, bool], list[tuple[int, Chunk]]] = {}
        self._pardons: dict[tuple[bytes, bytes], bool] = {}

    def open(self, handle: int) -> Source | Exclusion:
        """The regular file behind a descriptor taken apart, or why it cannot be. Only its header is ever in memory."""
        return self._take_apart(FileStream(handle))

    def read(self, content: bytes) -> Source | Exclusion:
        """A file's bytes taken apart, or why they cannot be."""
        return self._take_apart(MemoryStream(content))

    def _take_apart(self, stream: Stream) -> Source | Exclusion:
        try:
            try:
                parsed = self._reader.parse(stream)
            except Unreadable as problem:
                if problem.finding is not Exclusion.MALFORMED:
                    raise
                parsed = parse_leniently(stream, self._vr_of)  # (1)
        except Unreadable as problem:
            return problem.finding
        except MemoryError:
            return Exclusion.TOO_LARGE
        finding = parsed.finding or (None if pixels_fit(parsed) else Exclusion.PIXELS_INCONSISTENT)
        return Source(facts_of(parsed), finding, parsed)

    def write(self, source: Source, subject: Subject, path: Path) -> Exclusion | None:
        """De-identify into a new file (0600); None when it stands and was checked, else why it does not stand."""
        return self.convert(source, subject, path).exclusion

    def convert(self, source: Source, subject: Subject, path: Path, *, hash_pixels: bool = False) -> Conversion:
        """`write`, and what was seen on the way. Raises `FileExistsError` where the path is taken."""
        parsed = source.parsed
        if source.finding is not None:
            return Conversion(source.finding)
        rewriter = self.rewriter_of(subject)
        meta = self._meta(source, subject)
        before, after = encoding.pixel_frame(parsed, parsed.pixels) if parsed.pixels is not None else (b"", b"")
        chunks = [Chunk(meta, (meta,)), *rewriter.header(parsed, self._statement(parsed, subject)), Chunk(before)]
        header = b"".join([chunk.raw for chunk in chunks])
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)  # (2)
        done = False
        try:
            try:
                digest = _write(handle, header, parsed, after, hash_pixels)
            except MalformedStream:
                return Conversion(Exclusion.PIXELS_INCONSISTENT)
            finally:
                os.close(handle)
            if digest is None:
                return Conversion(Exclusion.TRUNCATED)
            own = subject.pseudonyms.uid(source.facts.sop_instance).encode()
            name = Chunk(b"\0" + path.name.encode(), (own,) if own in path.name.encode() else ())
            found = self._check(path, header, after, [*chunks, name], rewriter)
            done = found.exclusion is None
        finally:
            if not done:
                path.unlink()
        return Conversion(found.exclusion, found.pardoned, digest)

    def rewriter_of(self, subject: Subject) -> Rewriter:
        """The one that writes this patient's files, with what they lost so far."""
        if self._rewriter is None or self._rewriter.subject is not subject:
            self._rewriter = Rewriter(self.table, self._mandatory, subject)
            self._pardons = {}
        return self._rewriter

    def _meta(self, source: Source, subject: Subject) -> bytes:
        facts = source.facts
        known = self.table.class_uids
        sop_class = facts.sop_class if facts.sop_class in known else subject.pseudonyms.uid(facts.sop_class)
        stays = self.table.rule(_SOP_INSTANCE).action is Action.KEEP  # PS3.10 7.1: equal to the dataset's
        sop_instance = facts.sop_instance if stays else subject.pseudonyms.uid(facts.sop_instance)
        return encoding.file_meta(source.parsed.syntax, sop_class, sop_instance)

    def _check(self, path: Path, meant: bytes, after: bytes, chunks: Sequence[Chunk], rewriter: Rewriter) -> Conversion:
        """The file as it stands on disk, everything but the pixel value; its name is the last of `chunks`. (3)"""
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            end = os.fstat(handle).st_size
            header, tail = os.pread(handle, len(meant), 0), os.pread(handle, len(after), end - len(after))
        finally:
            os.close(handle)
        if header != meant or tail != after:
            return Conversion(Exclusion.UNREADABLE)
        short = rewriter.residue.whole
        if short and any(text in short for chunk in chunks for text in chunk.kept):
            return Conversion(Exclusion.RESIDUAL_IDENTIFIER)
        pardoned = self._matches(header, chunks, rewriter)
        return Conversion(Exclusion.RESIDUAL_IDENTIFIER) if pardoned is None else Conversion(None, pardoned)

    def _matches(self, header: bytes, chunks: Sequence[Chunk], rewriter: Rewriter) -> int | None:
        """How many matches are chance; None when one is not."""
        starts: list[int] = []
        pardoned = 0
        for at, token in rewriter.residue.search(header + chunks[-1].raw):
            if not starts:
                starts = list(accumulate((len(chunk.raw) for chunk in chunks), initial=0))
            index = bisect_right(starts, at) - 1
            if index >= len(chunks) or at + len(token) > starts[index + 1]:
                return None  # across two elements
            if not self._is_chance(chunks[index], token):
                return None
            pardoned += 1
        return pardoned

    def _is_chance(self, chunk: Chunk, token: bytes) -> bool:
        """Whether every place of `token` in an element lies in a value that is ours."""
        key = (chunk.raw, token)
        if (answer := self._pardons.get(key)) is None:
            inside = sum(value.lower().count(token) for value in chunk.trusted)
            answer = chunk.raw.lower().count(token) <= inside
            if len(self._pardons) < _PARDONS:
                self._pardons[key] = answer
        return answer

    def _statement(self, parsed: Parsed, subject: Subject) -> list[tuple[int, Chunk]]:
        """(0012,0062) to (0012,0064) and (0028,0303): what was done, in the standard's own codes (PS3.15 E.1.1).

        Where the profile says that the site issued the pseudonym, its issuer stands there whatever the input had.
        """
        form = (parsed.implicit, parsed.little)
        if form not in self._statements:
            said = statement(self.table)
            codes = tuple(
                (_text(0x00080100, "SH", code), _text(0x00080102, "SH", "DCM"), _text(0x00080104, "LO", meaning))
                for code, meaning in said.codes
            )
            issued = self.table.rule(_ISSUER).action is Action.SITE
            nodes = [
                *([_text(_ISSUER, "LO", subject.site)] if issued else []),
                _text(0x00120062, "CS", said.removed),
                _text(0x00120063, "LO", said.method),
                Node(0x00120064, "SQ", items=codes),
                _text(0x00280303, "CS", said.temporal),
            ]
            raw = [encoding.dataset((node,), implicit=form[0], little=form[1]) for node in nodes]
            self._statements[form] = [(node.tag, Chunk(one, (one,))) for node, one in zip(nodes, raw, strict=True)]
        return self._statements[form]


def open_engine(profile: str) -> Engine:
    """The engine for a profile that comes with the package. Raises `UsageFault` for a name that is none."""
    return Engine(load_profile(profile), standard())


def _write(handle: int, header: bytes, parsed: Parsed, after: bytes, hash_pixels: bool) -> str | None:
    """Header, pixels, delimiter; the pixels' hash ("" unasked), or None when the source grew shorter meanwhile.

    Comments and application segments inside JPEG and JPEG 2000 streams stay behind. Raises `MalformedStream`.
    """
    whole = MemoryStream(header)
    whole.copy(0, whole.size, handle)
    pixels, digest = parsed.pixels, ""
    if pixels is not None:
        length = pixels.end - pixels.start
        if hash_pixels:
            digest = _hash(parsed.stream, pixels.start, length)
        if pixels.fragments is not None and has_words(parsed.syntax, parsed.stream, pixels.start, pixels.end):
            for part in value_without_words(parsed.syntax, parsed.stream, pixels.start, pixels.end):
                MemoryStream(part).copy(0, len(part), handle)
        elif parsed.stream.copy(pixels.start, length, handle) != length:
            return None
    if after:
        os.write(handle, after)
    return digest


def _hash(stream: Stream, start: int, length: int) -> str:
    machine = hashlib.sha256()
    for at in range(start, start + length, READ_BYTES):
        machine.update(stream.read(at, min(READ_BYTES, start + length - at)))
    return machine.hexdigest()


def _text(tag: int, vr: str, text: str) -> Node:
    return Node(tag, vr, encoding.text_value(vr, [text[:64]]))
