"""JPEG 2000 and HTJ2K codestreams (ITU-T T.800, T.814): put together from the segments that a decoder needs.

1. SIZ as large, and with as many components, as the file's header says; coding and quantisation for those components,
   of exactly their length (what a segment has too much is cut); regions of interest, progression changes; packed
   packet headers and component transforms of part 2, of which only a decoder can say that they hold no more.
2. Comments go, but for an encoder's notice of itself and its version; so do packet lengths and registration, and what
   no part of the standard names. Tile-part lengths (TLM) are written anew where they are not those of the tile-parts.
3. Tile-parts are in order, of tiles that the picture has; their bytes hold no beginning of another. What stands
   between the last one and the end of the codestream, and behind it, goes.
4. Of a JP2 file, which PS3.5 A.4.4 forbids and some write, the codestream remains.

Packets stay byte for byte, so decoded pixels stay the same. Whether the last packet ends where its tile-part does is
not known without decoding: a tile-part that ends in sixteen printable characters is none.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from node.deid.pixels.layout import FILL, Layout, MalformedStream

_SYNTAX = "1.2.840.10008.1.2.4."
PART_2 = frozenset({_SYNTAX + "92", _SYNTAX + "93"})
JPEG_2000 = frozenset(_SYNTAX + tail for tail in ("90", "91", "201", "202", "203")) | PART_2
# A JP2 file's first box (ITU-T T.800 I.5.1).
JP2 = b"\0\0\0\x0cjP  "
MAX_SEGMENTS = 10_000

_SOC, _CAP, _SIZ, _COD, _COC, _TLM, _CPF = 0xFF4F, 0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF59
_QCD, _QCC, _RGN, _POC, _PPM, _PPT = 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61
_SOT, _SOD, _EOC, _COM = 0xFF90, 0xFF93, 0xFFD9, 0xFF64
# Of part 2 what decoders read whatever the syntax says (MCT, MCC, MCO, CBD), and what changes pixels and few read (NLT,
# ATK).
_TRANSFORMS, _NOT_TAKEN = frozenset({0xFF74, 0xFF75, 0xFF77, 0xFF78}), frozenset({0xFF76, 0xFF79})
# Whether all of such a segment is needed, only a decoder can say.
_UNCOUNTED = _TRANSFORMS | {_PPM, _PPT}
_HIGH_THROUGHPUT = 0x00020000  # the one capability of which anything is known here (A.5.2)
_NO_LENGTH = range(0xFF30, 0xFF40)
# What would begin another tile-part, or end the codestream, inside packets: in none that an encoder wrote.
_STRAY = re.compile(rb"\xff[\x90\xd9]")
_TEXT = re.compile(rb"[\x20-\x7e]{16}")
_VERSION = rb"v?\d{1,3}(\.\d{1,3}){0,3}\.?"
_NOTICE = re.compile(
    rb"\x00\x01(Created by (GDCM/)?(OpenJPEG|Grok) +version |Kakadu-|OpenJPH Ver |Creator: JasPer Version )"
    + _VERSION
    + rb"\x00*"
)


def rebuilt(syntax: str, stream: bytes, layout: Layout | None = None) -> bytes:
    """One frame from its parts; the same object when it holds nothing else. Raises `MalformedStream`."""
    inner = _codestream(stream) if stream.startswith(JP2) else stream
    if inner[:2] != b"\xff\x4f":
        raise MalformedStream
    builder = _Builder(syntax, inner, layout)
    builder.walk()
    return stream if builder.clean and inner is stream else builder.written()


@dataclass
class _TilePart:
    tile: int
    number: int
    count: int
    header: bytes = b""
    packets: bytes = b""

    @property
    def length(self) -> int:
        return 14 + len(self.header) + len(self.packets)


@dataclass
class _Builder:
    """One walk over a codestream: what is kept, and whether anything is not."""

    syntax: str
    stream: bytes
    layout: Layout | None
    clean: bool = True
    main: list[bytes] = field(default_factory=list)
    parts: list[_TilePart] = field(default_factory=list)
    parts_of: dict[int, int] = field(default_factory=dict)  # by tile, how many
    components: int = 0
    tiles: int = 0
    levels: int = 0
    own_levels: dict[int, int] = field(default_factory=dict)
    cut_at: int = 32  # the resolution levels for which steps are left where a segment had too many
    lengths: bytes | None = None  # TLM, as it stands

    def written(self) -> bytes:
        found = [b"\xff\x4f", *self.main]
        if self.lengths is not None:
            found.append(self._tile_lengths())
        for part in self.parts:
            found += [struct.pack(">HHHLBB", _SOT, 10, part.tile, part.length, part.number, part.count)]
            found += [part.header, b"\xff\x93", part.packets]
        whole = b"".join([*found, b"\xff\xd9"])
        return whole + b"\0" * (len(whole) % 2)

    def walk(self) -> None:
        stream, at = self.stream, 2
        self.levels = _levels(stream)
        for _count in range(MAX_SEGMENTS):
            if at + 2 > len(stream):
                raise MalformedStream
            (marker,) = struct.unpack_from(">H", stream, at)
            if marker == _EOC:
                self._end(at)
                return
            if marker == _SOT:
                at = self._tile_part(at)
                continue
            if self.parts:
                at = self._gap(at)
                continue
            at = self._header(at, self.main, tile=False)
        raise MalformedStream

    def _end(self, at: int) -> None:
        if not self.parts:
            raise MalformedStream
        self.clean = self.clean and not self.stream[at + 2 :].strip(b"\0")
        if self.lengths is not None and self.clean:
            self.clean = _said(self.lengths) == [(part.tile, part.length) for part in self.parts]

    def _gap(self, at: int) -> int:
        """Whatever stands between two tile-parts, or the last one and the end. (3)"""
        following = _STRAY.search(self.stream, at)
        if following is None:
            raise MalformedStream
        self.clean = False
        return following.start()

    def _header(self, at: int, kept: list[bytes], *, tile: bool) -> int:
        """One marker segment of the main header or of a tile-part's; where it ends."""
        (marker,) = struct.unpack_from(">H", self.stream, at)
        if marker in _NO_LENGTH:
            self.clean = False
            return at + 2
        if marker < 0xFF50:
            raise MalformedStream
        if at + 4 > len(self.stream):
            raise MalformedStream
        (length,) = struct.unpack_from(">H", self.stream, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(self.stream):
            raise MalformedStream
        payload = self.stream[at + 4 : end]
        if marker == _TLM and not tile and self.components:
            self.clean = self.clean and self.lengths is None
            self.lengths = payload
            return int(end)
        wanted = self._segment(marker, payload, tile)
        if wanted is None:
            self.clean = False
        else:
            self.clean = self.clean and wanted == payload
            kept.append(struct.pack(">HH", marker, len(wanted) + 2) + wanted)
        return int(end)

    def _segment(self, marker: int, payload: bytes, tile: bool) -> bytes | None:
        """What is kept of a segment; None: nothing. (1) (2)"""
        if marker == _SIZ and not tile and not self.components:
            return self._size(payload)
        if not self.components:
            raise MalformedStream  # SIZ comes first (A.5.1)
        if marker in (_COD, _COC):
            return self._coding(marker, payload)
        if marker in (_QCD, _QCC):
            return self._quantisation(marker, payload)
        if marker == _RGN:
            wide = 1 if self.components < 257 else 2
            return payload if len(payload) == wide + 2 and payload[wide] == 0 else None
        if marker == _POC:
            if not _are_progressions(payload, ">BBHBBB" if self.components < 257 else ">BHHBHB"):
                raise MalformedStream
            return payload
        if marker in (_PPM, _PPT):
            return payload if (marker == _PPT) == tile else None
        if marker in (_CAP, _CPF) and not tile:
            return self._capabilities(marker, payload)
        if marker in _TRANSFORMS:
            return payload
        if marker in _NOT_TAKEN:
            raise MalformedStream
        return payload if marker == _COM and _NOTICE.fullmatch(payload) else None

    def _size(self, payload: bytes) -> bytes:
        if len(payload) < 36:
            raise MalformedStream
        columns, rows, left, top, wide, high, tile_left, tile_top, count = struct.unpack_from(">2x8LH", payload)
        if not 0 < count <= 16384 or len(payload) != 36 + 3 * count or not (wide and high):
            raise MalformedStream
        if not (tile_left <= left < columns and tile_top <= top < rows):
            raise MalformedStream
        self.components = count
        self.tiles = math.ceil((columns - tile_left) / wide) * math.ceil((rows - tile_top) / high)
        layout = self.layout
        if layout is not None:
            deepest = max((depth & 0x7F) + 1 for depth in payload[36::3])
            if (rows - top, columns - left, count) != (layout.rows, layout.columns, layout.samples):
                raise MalformedStream
            if deepest > layout.bits_allocated:
                raise MalformedStream
        return payload

    def _component(self, payload: bytes) -> tuple[int, int]:
        """(component, bytes its number takes); -1 for one that the picture does not have."""
        wide = 1 if self.components < 257 else 2
        number = int.from_bytes(payload[:wide], "big")
        return (number if number < self.components else -1), wide

    def _coding(self, marker: int, payload: bytes) -> bytes | None:
        """Precinct sizes for each resolution, and no byte more (A.6.1, A.6.2)."""
        at, number = (5, None) if marker == _COD else (0, 0)
        if marker == _COC:
            number, wide = self._component(payload)
            if number == -1:
                return None
            at = wide + 1
        if len(payload) < at + 5:
            raise MalformedStream
        style, levels = payload[0 if marker == _COD else at - 1], payload[at]
        if levels > min(32, self.cut_at):
            raise MalformedStream
        if number is None:
            self.levels = levels
        else:
            self.own_levels[number] = levels
        size = at + 5 + (levels + 1 if style & 1 else 0)
        if len(payload) < size:
            raise MalformedStream
        return payload[:size]

    def _quantisation(self, marker: int, payload: bytes) -> bytes | None:
        """A step for each subband, and no byte more (A.6.4, A.6.5)."""
        at, levels = 0, max([self.levels, *self.own_levels.values()])
        if marker == _QCC:
            number, at = self._component(payload)
            if number == -1:
                return None
            levels = self.own_levels.get(number, self.levels)
        if len(payload) <= at:
            raise MalformedStream
        bands = {0: 3 * levels + 1, 1: 2, 2: 2 * (3 * levels + 1)}.get(payload[at] & 0x1F)
        if bands is None:
            raise MalformedStream
        if len(payload) > at + 1 + bands:
            self.cut_at = min(self.cut_at, levels)
        return payload[: at + 1 + bands]

    @staticmethod
    def _capabilities(marker: int, payload: bytes) -> bytes | None:
        """CAP: 32 bits, and two bytes for the one that HTJ2K sets (A.5.2); CPF: a profile's number (T.814)."""
        if marker == _CPF:
            return payload if len(payload) in (2, 4) else None
        if len(payload) < 6:
            raise MalformedStream
        return payload[:6] if int.from_bytes(payload[:4], "big") == _HIGH_THROUGHPUT else None

    def _tile_part(self, at: int) -> int:
        """(3)"""
        if at + 12 > len(self.stream) or not self.components:
            raise MalformedStream
        length, tile, whole, number, count = struct.unpack_from(">HHLBB", self.stream, at + 2)
        if length != 10 or tile >= self.tiles or number != self.parts_of.get(tile, 0):
            raise MalformedStream
        self.parts_of[tile] = number + 1
        part, header = _TilePart(tile, number, count), list[bytes]()
        inside, levels, own_levels = at + 12, self.levels, dict(self.own_levels)
        while self.stream[inside : inside + 2] != b"\xff\x93":
            if inside + 4 > len(self.stream) or len(header) > MAX_SEGMENTS:
                raise MalformedStream
            inside = self._header(inside, header, tile=True)
        self.levels, self.own_levels = levels, own_levels
        end = at + whole if whole else self.stream.find(b"\xff\xd9", inside)
        if not inside + 2 <= end <= len(self.stream):
            raise MalformedStream
        part.header, part.packets = b"".join(header), self.stream[inside + 2 : end]
        if _STRAY.search(part.packets) or _TEXT.fullmatch(part.packets.rstrip(FILL)[-16:]):
            raise MalformedStream
        self.parts.append(part)
        return end

    def _tile_lengths(self) -> bytes:
        """TLM (A.7.1) with the tile-parts as they are written; in several segments where one does not hold them."""
        entries = [struct.pack(">HL", part.tile, part.length) for part in self.parts]
        found = b""
        for number, first in enumerate(range(0, len(entries), 10_000)):
            if number > 255:
                raise MalformedStream
            payload = bytes([number, 0x60]) + b"".join(entries[first : first + 10_000])
            found += struct.pack(">HH", _TLM, len(payload) + 2) + payload
        return found


def tile_part_ends(stream: bytes) -> list[int]:
    """Where each tile-part ends, of a codestream that was built anew."""
    return [end for _at, end in _tile_parts(stream)]


def is_uncounted(stream: bytes) -> bool:
    """Whether a codestream that was built anew has segments of which only a decoder can say that all is needed."""
    headers = [2, *(at + 12 for at, _end in _tile_parts(stream))]
    return any(marker in _UNCOUNTED for at in headers for marker, _at in _segments(stream, at))


def _segments(stream: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(marker, where it stands) of a header that was built anew, up to what ends it."""
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        yield marker, at
        if marker in (_SOT, _SOD):
            return
        at += 2 + length


def _tile_parts(stream: bytes) -> Iterator[tuple[int, int]]:
    """Where each tile-part begins and ends."""
    at = next(at for marker, at in _segments(stream, 2) if marker == _SOT)
    while stream.startswith(b"\xff\x90", at):
        (length,) = struct.unpack_from(">L", stream, at + 6)
        end = at + length if length else stream.rindex(b"\xff\xd9")
        yield at, end
        at = end


def _levels(stream: bytes) -> int:
    """The resolution levels that COD says: it may stand behind the quantisation, whose steps they count (A.3)."""
    at = 2
    while at + 10 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _COD:
            return stream[at + 9]
        if marker in (_SOT, _EOC) or length < 2:
            break
        at += 2 if marker in _NO_LENGTH else 2 + length
    return 0


def _are_progressions(payload: bytes, form: str) -> bool:
    """Whether each change of progression is one (A.6.6): no other numbers stand there."""
    if not payload or len(payload) % struct.calcsize(form):
        return False
    return all(
        low < high <= 33 and layers and (first < last or not last) and order <= 4
        for low, first, layers, high, last, order in struct.iter_unpack(form, payload)
    )


def _said(payload: bytes) -> list[tuple[int, int]] | None:
    """(tile, length) of each tile-part that a TLM segment names; None where it is none."""
    if len(payload) < 2:
        return None
    wide, long = payload[1] >> 4 & 3, 4 if payload[1] & 0x40 else 2
    if wide > 2 or (len(payload) - 2) % (wide + long) or payload[0]:
        return None
    found: list[tuple[int, int]] = []
    for at in range(2, len(payload), wide + long):
        tile = int.from_bytes(payload[at : at + wide], "big") if wide else len(found)
        found.append((tile, int.from_bytes(payload[at + wide : at + wide + long], "big")))
    return found


def _codestream(stream: bytes) -> bytes:
    """The one codestream in a JP2 file (I.4). A palette would change what it decodes to. (4)"""
    found: list[bytes] = []
    at, stop, boxes = 0, len(stream.rstrip(b"\0")), 0
    while at < stop:
        if at + 8 > len(stream) or boxes >= MAX_SEGMENTS:
            raise MalformedStream
        boxes += 1
        length, kind = struct.unpack_from(">L4s", stream, at)
        inside, end = at + 8, at + length if length else len(stream)
        if length == 1:
            if at + 16 > len(stream):
                raise MalformedStream
            inside, end = at + 16, at + struct.unpack_from(">Q", stream, at + 8)[0]
        if not inside <= end <= len(stream) or (kind == b"jp2h" and b"pclr" in stream[inside:end]):
            raise MalformedStream
        if kind == b"jp2c":
            found.append(stream[inside:end])
        at = end
    if len(found) != 1:
        raise MalformedStream
    return found[0]
