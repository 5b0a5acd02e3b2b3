"""Words inside compressed streams: comment and application segments, and whatever hangs on behind. Pure, on bytes.

1. JPEG and JPEG-LS (ITU-T T.81, T.87): COM, APPn, and bytes after EOI. APP0 of exactly JFIF's fourteen bytes, APP14 of
   at most Adobe's twelve, APP8's colour transform and SPIFF's header of fixed fields say how to decode and stay.
2. JPEG 2000 and HTJ2K (ITU-T T.800): COM in the main header and in tile-part headers, bytes after EOC. Some writers
   put a JP2 file there, which PS3.5 A.4.4 forbids: of its boxes those stay that are needed to decode.
3. RLE (PS3.5 G) is `node.deid.pixels.rle`'s; native pixels have no place for words.
4. An encoder's notice of itself and its version is no word: nearly every JPEG 2000 stream has one.

`words` finds, `without_words` takes away; the entropy-coded data stay byte for byte, so decoded pixels stay the same.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_SYNTAX = "1.2.840.10008.1.2.4."
JPEG = frozenset(_SYNTAX + tail for tail in ("50", "51", "57", "70", "80", "81"))
JPEG_2000 = frozenset(_SYNTAX + tail for tail in ("90", "91", "92", "93", "201", "202", "203"))
# A header of a hundred segments is unusual; more are an attack on whoever walks them.
MAX_SEGMENTS = 10_000

# The entry that ends a SPIFF directory (ITU-T T.84 F.2.2.3), with the SOI that belongs to it.
_SPIFF_END = b"\0\0\0\1\xff\xd8"
# A JP2 file's first box (ITU-T T.800 I.5.1), and the boxes a decoder reads beside the codestream.
JP2 = b"\0\0\0\x0cjP  "
_JP2_BOXES = frozenset({b"jP  ", b"ftyp", b"jp2h", b"jp2c"})

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RSTn have no length
_SOC, _SOT, _SOD, _EOC, _J2K_COM = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64


_VERSION = rb"v?\d{1,3}(\.\d{1,3}){0,3}\.?"
_NOTICE = re.compile(
    rb"(\x00\x01)?(Created by (GDCM/)?(OpenJPEG|Grok) +version |Kakadu-|OpenJPH Ver |Creator: JasPer Version )"
    + _VERSION
    + rb"\x00*"
)


class MalformedStream(Exception):
    """The stream is not what its syntax says it is."""


@dataclass(frozen=True)
class Segment:
    """A run of bytes that carries no pixels: where it stands in the stream, and what it holds."""

    start: int
    end: int
    payload: bytes


def words(syntax: str, stream: bytes) -> tuple[Segment, ...]:
    """Every segment of one frame's stream that could hold words. Raises `MalformedStream`."""
    if syntax in JPEG:
        return tuple(_jpeg(stream))
    if syntax not in JPEG_2000:
        return ()
    if not stream.startswith(JP2):
        return tuple(found for found, _tile in _jpeg_2000(stream))
    found: list[Segment] = []
    for kind, start, inside, end in _boxes(stream):
        if kind == b"jp2c":
            inner = words(syntax, stream[inside:end])
            found += [Segment(inside + one.start, inside + one.end, one.payload) for one in inner]
        elif kind not in _JP2_BOXES:
            found.append(Segment(start, end, stream[inside:end]))
    return tuple(found)


def without_words(syntax: str, stream: bytes) -> bytes:
    """The stream less those segments; the same object when there are none. Raises `MalformedStream`."""
    if syntax in JPEG:
        return _cut(stream, list(_jpeg(stream)))
    if syntax not in JPEG_2000:
        return stream
    if stream.startswith(JP2):
        return _jp2_without_words(syntax, stream) if words(syntax, stream) else stream
    found = list(_jpeg_2000(stream))
    shorter: dict[int, int] = {}
    for segment, tile in found:
        if tile is not None:
            shorter[tile] = shorter.get(tile, 0) + segment.end - segment.start
    if shorter:
        changed = bytearray(stream)
        for tile, less in shorter.items():  # Psot: the tile-part's length, four bytes at SOT + 6; 0 means "to the end"
            (length,) = struct.unpack_from(">L", stream, tile + 6)
            if length:
                struct.pack_into(">L", changed, tile + 6, length - less)
        stream = bytes(changed)
    return _cut(stream, [segment for segment, _tile in found])


def _cut(stream: bytes, segments: list[Segment]) -> bytes:
    if not segments:
        return stream
    parts, at = [], 0
    for segment in sorted(segments, key=lambda segment: segment.start):
        parts.append(stream[at : segment.start])
        at = segment.end
    kept = b"".join([*parts, stream[at:]])
    return kept + b"\0" * (len(kept) % 2)


def _jpeg(stream: bytes) -> list[Segment]:
    """(1)"""
    if stream[:2] != b"\xff\xd8":
        raise MalformedStream
    found: list[Segment] = []
    at = 2
    for _count in range(MAX_SEGMENTS):
        start = at
        while stream[at : at + 2] == b"\xff\xff":
            at += 1  # fill bytes
        if at + 2 > len(stream) or stream[at] != 0xFF:
            raise MalformedStream
        marker = stream[at + 1]
        if marker == _EOI:
            return [*found, *_tail(stream, at + 2)]
        if marker in _STANDALONE:
            at += 2
            continue
        end = at + 2 + _length(stream, at + 2)
        payload = stream[at + 4 : end]
        if (marker == _COM and not _NOTICE.fullmatch(payload)) or (
            0xE0 <= marker <= 0xEF and not _decodes(marker, payload)
        ):
            found.append(Segment(start, end, payload))
        at = _after_scan(stream, end) if marker == _SOS else end
    raise MalformedStream


def _decodes(marker: int, payload: bytes) -> bool:
    """Whether an application segment says how to decode, and nothing else."""
    return (
        (marker == 0xE0 and len(payload) == 14 and payload[:5] == b"JFIF\0" and payload[12:] == b"\0\0")
        or (marker == 0xEE and len(payload) <= 12 and payload[:5] == b"Adobe")
        or (marker == 0xE8 and len(payload) == 5 and payload[:4] == b"mrfx")
        or (marker == 0xE8 and len(payload) == 30 and payload[:6] == b"SPIFF\0")
        or (marker == 0xE8 and payload == _SPIFF_END)
    )


def _length(stream: bytes, at: int) -> int:
    if at + 2 > len(stream):
        raise MalformedStream
    (length,) = struct.unpack_from(">H", stream, at)
    if length < 2 or at + length > len(stream):
        raise MalformedStream
    return int(length)


def _after_scan(stream: bytes, at: int) -> int:
    """The marker that ends entropy-coded data: not FF00 (or FF below 80, JPEG-LS stuffing), not RSTn."""
    while True:
        at = stream.find(b"\xff", at)
        if at < 0 or at + 1 >= len(stream):
            raise MalformedStream
        following = stream[at + 1]
        if following >= 0x80 and following != 0xFF and following not in _STANDALONE:
            return at
        at += 1 if following == 0xFF else 2


def _tail(stream: bytes, at: int) -> list[Segment]:
    """What follows the end of the image, padding excepted: zeros, or one byte of any kind."""
    rest = stream[at:]
    return [Segment(at, len(stream), rest)] if len(rest) > 1 and rest.strip(b"\0") else []


def _jpeg_2000(stream: bytes) -> list[tuple[Segment, int | None]]:
    """(2) Segments, each with where its tile-part's SOT stands, if it is in one."""
    if stream[:2] != b"\xff\x4f":
        raise MalformedStream
    found: list[tuple[Segment, int | None]] = []
    at, tile = 2, None
    for _count in range(MAX_SEGMENTS):
        if at + 2 > len(stream):
            raise MalformedStream
        (marker,) = struct.unpack_from(">H", stream, at)
        if marker == _EOC:
            return [*found, *((segment, None) for segment in _tail(stream, at + 2))]
        if marker == _SOD:
            at, tile = _after_tile(stream, tile), None
            continue
        if marker < 0xFF30:
            raise MalformedStream
        end = at + 2 + _length(stream, at + 2)
        if marker == _SOT:
            tile = at
        elif marker == _J2K_COM and not _NOTICE.fullmatch(stream[at + 4 : end]):  # (4)
            found.append((Segment(at, end, stream[at + 4 : end]), tile))
        at = end
    raise MalformedStream


def _after_tile(stream: bytes, tile: int | None) -> int:
    """Where the tile-part that began at `tile` ends."""
    if tile is None or tile + 10 > len(stream):
        raise MalformedStream
    (length,) = struct.unpack_from(">L", stream, tile + 6)
    if length == 0:  # the last one: to the end of the codestream
        end = stream.rfind(b"\xff\xd9")
    else:
        end = tile + length
    if end <= tile or end > len(stream):
        raise MalformedStream
    return int(end)


def _boxes(stream: bytes) -> list[tuple[bytes, int, int, int]]:
    """(type, start, start of the contents, end) of the boxes of a JP2 file (ITU-T T.800 I.4)."""
    found: list[tuple[bytes, int, int, int]] = []
    at, stop = 0, len(stream.rstrip(b"\0"))
    while at < stop:
        if at + 8 > len(stream) or len(found) >= MAX_SEGMENTS:
            raise MalformedStream
        length, kind = struct.unpack_from(">L4s", stream, at)
        inside, end = at + 8, at + length if length else len(stream)
        if length == 1:
            if at + 16 > len(stream):
                raise MalformedStream
            inside, end = at + 16, at + struct.unpack_from(">Q", stream, at + 8)[0]
        if not inside <= end <= len(stream):
            raise MalformedStream
        found.append((kind, at, inside, end))
        at = end
    if [kind for kind, *_places in found].count(b"jp2c") != 1:
        raise MalformedStream
    return found


def _jp2_without_words(syntax: str, stream: bytes) -> bytes:
    parts: list[bytes] = []
    for kind, start, inside, end in _boxes(stream):
        if kind == b"jp2c":
            kept = without_words(syntax, stream[inside:end])
            parts.append(struct.pack(">L4s", 8 + len(kept), kind) + kept)
        elif kind in _JP2_BOXES:
            parts.append(stream[start:end])
    whole = b"".join(parts)
    return whole + b"\0" * (len(whole) % 2)
