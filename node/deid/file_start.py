"""How a file begins: in which transfer syntax its dataset is, and where. Also of files that do not say it (PS3.10 7.1).

1. Preamble, `DICM`, file meta in explicit VR little endian, a transfer syntax we know: the rule.
2. File meta without a preamble, or without a transfer syntax; a dataset alone, as tapes and older systems have it. Its
   first element tells how it is written, as dcmtk tells it: the group's byte order, then whether a VR stands behind.
   Compression and deflation are told by nothing; such a file is `syntax_missing`.
3. A file read by force may be anything. Who reads it must see that it holds to its end (`node.deid.by_force`); if it
   does not, `doubt` says why.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from mediator.deid.screening import Exclusion, Note
from node.deid.stream import MemoryStream, Stream
from node.deid.structure import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LONG_VRS,
    MAX_INFLATED_BYTES,
    SHORT_VRS,
    SYNTAXES,
    Unreadable,
)

# File meta is shorter.
START_BYTES = 1 << 14
_SHORT_HEADER, _LENGTH = struct.Struct("<H2sH").unpack_from, struct.Struct("<L").unpack_from
_PREAMBLE, _META, _SYNTAX = 128, b"\2\0", 0x0010
# What a dataset begins with: identification, or a DICOMDIR's own group.
_FIRST_GROUPS = (0x0008, 0x0004)


@dataclass(frozen=True)
class Start:
    """Where the dataset begins in `stream` (inflated: then it is explicit). `doubt`: what a file read by force is, if
    its dataset does not hold; None for one that says what it is."""

    syntax: str
    stream: Stream
    at: int
    notes: tuple[Note, ...] = ()
    doubt: Exclusion | None = None


def start_of(stream: Stream, head: bytes) -> Start:
    """`head`: at least the first `START_BYTES` of the stream, or all. Raises `Unreadable`."""
    head = head[:START_BYTES]
    notes: tuple[Note, ...] = ()
    doubt = None
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        syntax, at = _file_meta(head, _PREAMBLE + 4)
    else:
        notes, doubt = (Note.READ_WITHOUT_PREAMBLE,), Exclusion.PREAMBLE_MISSING
        syntax, at = _without_preamble(head)
    if not syntax:
        notes, doubt = (*notes, Note.READ_WITHOUT_META), doubt or Exclusion.SYNTAX_MISSING
        syntax = _guessed(head, at)
    if syntax not in SYNTAXES:
        raise Unreadable(Exclusion.SYNTAX_NOT_SUPPORTED)
    if syntax == DEFLATED:
        return Start(EXPLICIT, MemoryStream(_inflate(stream, at)), 0, notes, doubt)
    return Start(syntax, stream, at, notes, doubt)


def _without_preamble(head: bytes) -> tuple[str, int]:
    """The same of a file whose first bytes are file meta's or a dataset's. (2)"""
    at = 4 if head.startswith(b"DICM") else 0
    if head.startswith(_META, at) and head[at + 4 : at + 6] in SHORT_VRS | LONG_VRS:
        return _file_meta(head, at)
    if at or _form_of(head) is None:
        raise Unreadable(Exclusion.NOT_DICOM)
    return "", 0


def _file_meta(head: bytes, at: int) -> tuple[str, int]:
    """The transfer syntax ("": not told), and where the dataset begins."""
    syntax, size = "", len(head)
    while at + 8 <= size and head.startswith(_META, at):
        element, vr, length = _SHORT_HEADER(head, at + 2)
        start = at + 8
        if vr in LONG_VRS:
            if at + 12 > size:
                raise Unreadable(Exclusion.TRUNCATED)
            (length,) = _LENGTH(head, start)
            start += 4
        elif vr not in SHORT_VRS:
            raise Unreadable(Exclusion.MALFORMED)
        at = start + length
        if at > size:
            raise Unreadable(Exclusion.TRUNCATED)
        if element == _SYNTAX:
            syntax = head[start:at].rstrip(b" \0").decode("latin-1")
    return syntax, at


def _guessed(head: bytes, at: int) -> str:
    """How the dataset at `at` is written, by its first element."""
    if at + 8 > len(head):
        raise Unreadable(Exclusion.TRUNCATED)
    form = _form_of(head[at : at + 8])
    if form is None:
        raise Unreadable(Exclusion.SYNTAX_MISSING)
    return form


def _form_of(first: bytes) -> str | None:
    """The uncompressed transfer syntax in which these bytes begin a dataset; None where they do not."""
    if len(first) < 8:
        return None
    has_vr = first[4:6] in SHORT_VRS | LONG_VRS
    if int.from_bytes(first[:2], "little") in _FIRST_GROUPS:
        return EXPLICIT if has_vr else IMPLICIT
    if int.from_bytes(first[:2], "big") in _FIRST_GROUPS and has_vr:
        return BIG_ENDIAN
    return None


def _inflate(stream: Stream, start: int) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    at = start
    while not machine.eof:
        packed = machine.unconsumed_tail or stream.read(at, 1 << 16)
        if not packed:
            raise Unreadable(Exclusion.TRUNCATED)
        at += 0 if machine.unconsumed_tail else len(packed)
        try:
            plain += machine.decompress(packed, 1 << 20)
        except zlib.error as error:
            raise Unreadable(Exclusion.MALFORMED) from error
        if len(plain) > MAX_INFLATED_BYTES:
            raise Unreadable(Exclusion.INFLATE_LIMIT)
    return bytes(plain)
