"""JPEG and JPEG-LS streams (ITU-T T.81, T.87): put together from the segments that a decoder needs, and nothing else.

1. Quantisation and Huffman tables that a component or scan names, as they stand before it; the rest is not written.
2. One frame header of exactly its components, as large as the header of the file says; scans that hold each component
   once, of exactly their parameters; restart intervals; a number of lines where the frame header leaves it open.
3. Of application segments what says how to decode: JFIF, Adobe's and HP's colour transforms, with their free fields at
   fixed values. Comments go.
4. Fill bytes, and whatever stands before the first marker after a scan, between segments or behind the end, go.

Entropy-coded data stay byte for byte, so decoded pixels stay the same; where a Huffman scan ends in what may be text,
`node.deid.pixels.scans` counts where its picture ends. A stream that has nothing but these parts stays as it is.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from node.deid.pixels.layout import FILL, Counting, Layout, MalformedStream
from node.deid.pixels.scans import Component, ScanHeader, Tables, picture_end

_SYNTAX = "1.2.840.10008.1.2.4."
BASELINE, EXTENDED, LOSSLESS, FIRST_ORDER, LS, NEAR_LS = (
    _SYNTAX + tail for tail in ("50", "51", "57", "70", "80", "81")
)
JPEG_LS = frozenset({LS, NEAR_LS})
JPEG = frozenset({BASELINE, EXTENDED, LOSSLESS, FIRST_ORDER}) | JPEG_LS
# A header of a hundred segments is unusual; more are an attack on whoever walks them.
MAX_SEGMENTS = 10_000
# Frame headers by syntax: baseline and extended sequential DCT, lossless, JPEG-LS.
_FRAMES = {
    BASELINE: {0xC0, 0xC1}, EXTENDED: {0xC0, 0xC1}, LOSSLESS: {0xC3}, FIRST_ORDER: {0xC3}, LS: {0xF7}, NEAR_LS: {0xF7},
}  # fmt: skip
_HEADERS = frozenset({0xC0, 0xC1, 0xC3, 0xF7})
_TEXT = re.compile(rb"[\x20-\x7e]{16}")
_SOI, _EOI, _SOS, _DQT, _DNL, _DRI, _DHT, _LSE = 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xC4, 0xF8
_APP0, _APP8, _APP14 = 0xE0, 0xE8, 0xEE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RSTn have no length
_PRESET = 13  # the payload of LSE type 1: five numbers of two bytes and the type is 11, with its length 13


def rebuilt(syntax: str, stream: bytes, layout: Layout | None = None) -> bytes:
    """One frame from its parts; the same object when it holds nothing else. Raises `MalformedStream`."""
    if stream[:2] != b"\xff\xd8":
        raise MalformedStream
    builder = _Builder(syntax, stream, layout)
    builder.walk()
    return stream if builder.clean else builder.written()


class _TableSegment:
    """The tables of one segment, each with whether something names it."""

    def __init__(self, marker: int) -> None:
        self.marker = marker
        self.tables: list[bytes] = []
        self.named: set[int] = set()

    def written(self) -> bytes:
        payload = b"".join(raw for place, raw in enumerate(self.tables) if place in self.named)
        return _segment(self.marker, payload) if payload else b""


def precision(stream: bytes) -> int:
    """The bits of a sample, as the frame header of a stream says that was built anew."""
    at = 2
    while stream[at + 1] not in _HEADERS:
        at += 2 + _length(stream, at + 2)
    return stream[at + 4]


@dataclass
class _Builder:
    """One walk over a stream: what is kept, and whether anything is not."""

    syntax: str
    stream: bytes
    layout: Layout | None
    clean: bool = True
    parts: list[bytes | _TableSegment] = field(default_factory=lambda: [b"\xff\xd8"])
    # tables nobody named yet, by marker and number: the segment they stand in, and which of its they are
    pending: dict[tuple[int, int], tuple[_TableSegment, int]] = field(default_factory=dict)
    tables: Tables = field(default_factory=Tables)
    components: dict[int, Component] = field(default_factory=dict)
    scanned: set[int] = field(default_factory=set)
    lossless: bool = False
    interval: int = 0
    precision: int = 0
    size: tuple[int, int] = (0, 0)

    def written(self) -> bytes:
        parts = [part if isinstance(part, bytes) else part.written() for part in self.parts]
        whole = b"".join([*parts, b"\xff\xd9"])
        return whole + b"\0" * (len(whole) % 2)

    def walk(self) -> None:
        stream, at = self.stream, 2
        for _count in range(MAX_SEGMENTS):
            while stream[at : at + 2] == b"\xff\xff":
                at += 1
                self.clean = False  # (4)
            if at + 2 > len(stream) or stream[at] != 0xFF:
                raise MalformedStream
            marker = stream[at + 1]
            if marker == _EOI:
                if not self.components or self.scanned != self.components.keys():
                    raise MalformedStream
                self.clean = self.clean and not self.pending and not stream[at + 2 :].strip(b"\0")
                return
            if marker in _STANDALONE:
                at += 2
                self.clean = False
                continue
            end = at + 2 + _length(stream, at + 2)
            payload = stream[at + 4 : end]
            at = self._scan(payload, end) if marker == _SOS else end
            if marker != _SOS:
                self._one(marker, payload)
        raise MalformedStream

    def _one(self, marker: int, payload: bytes) -> None:
        if marker == _DQT and self.syntax not in JPEG_LS:
            self._quantisers(payload)
        elif marker == _DHT and self.syntax not in JPEG_LS:
            self._huffman(payload)
        elif marker == _DRI and len(payload) in (2, 3, 4):
            self.interval = int.from_bytes(payload, "big")
            self._emit(marker, payload)
        elif marker == _DNL and len(self.scanned) and len(payload) == 2:
            self._lines(payload)
        elif marker == _LSE and self.syntax in JPEG_LS and payload[:1] == b"\1" and len(payload) == _PRESET - 2:
            self._emit(marker, payload)
        elif marker in _FRAMES.get(self.syntax, ()):
            self._frame(marker, payload)
        elif 0xC0 <= marker <= 0xCF or marker in (0xF7, _LSE):
            if marker != _LSE or payload[:1] == b"\4":
                raise MalformedStream  # another process than the syntax says; sizes that no DICOM picture has
            self.clean = False
        else:
            self._application(marker, payload)

    def _emit(self, marker: int, payload: bytes) -> None:
        self.parts.append(_segment(marker, payload))

    def _application(self, marker: int, payload: bytes) -> None:
        """(3)"""
        kept = b""
        if marker == _APP0 and payload[:5] == b"JFIF\0" and len(payload) >= 14:
            kept = b"JFIF\0\1\1\0\0\1\0\1\0\0"
        elif marker == _APP14 and payload[:5] == b"Adobe" and len(payload) >= 12 and payload[11] <= 2:
            kept = b"Adobe\0\x64\0\0\0\0" + payload[11:12]
        elif marker == _APP8 and payload[:4] == b"mrfx" and len(payload) == 5 and payload[4] <= 3:
            kept = payload
        self.clean = self.clean and kept == payload
        if kept:
            self._emit(marker, kept)

    def _quantisers(self, payload: bytes) -> None:
        at, segment = 0, _TableSegment(_DQT)
        self.parts.append(segment)
        while at < len(payload):
            precision, number = payload[at] >> 4, payload[at] & 15
            end = at + 1 + 64 * (precision + 1)
            if precision > 1 or number > 3 or end > len(payload):
                raise MalformedStream
            self._table(segment, number, payload[at:end])
            at = end

    def _huffman(self, payload: bytes) -> None:
        at, segment = 0, _TableSegment(_DHT)
        self.parts.append(segment)
        while at < len(payload):
            end = at + 17 + sum(payload[at + 1 : at + 17])
            if payload[at] & 0xEC or end > len(payload):
                raise MalformedStream
            symbols = payload[at + 17 : end]
            if len(set(symbols)) != len(symbols) or (payload[at] < 16 and any(symbol > 16 for symbol in symbols)):
                raise MalformedStream  # a category of more than 16 bits; a symbol with two codes
            self._table(segment, payload[at], payload[at:end])
            at = end

    def _table(self, segment: _TableSegment, number: int, raw: bytes) -> None:
        self.clean = self.clean and (segment.marker, number) not in self.pending
        self.pending[segment.marker, number] = segment, len(segment.tables)
        segment.tables.append(raw)

    def _lines(self, payload: bytes) -> None:
        """The number of lines, where the frame header says none and one scan is done."""
        if self.size[0] == 0 and len(self.scanned):
            self.size = int.from_bytes(payload, "big"), self.size[1]
            self._check_size()
            self._emit(_DNL, payload)
        else:
            self.clean = False

    def _frame(self, marker: int, payload: bytes) -> None:
        """(2)"""
        if self.components or len(payload) < 9 or len(payload) != 6 + 3 * payload[5]:
            raise MalformedStream
        self.precision, rows, columns = struct.unpack_from(">BHH", payload)
        self.size, self.lossless = (rows, columns), marker == 0xC3
        for at in range(6, len(payload), 3):
            number, sampling, table = payload[at : at + 3]
            if number in self.components or not 0 < sampling >> 4 <= 4 or not 0 < sampling & 15 <= 4:
                raise MalformedStream
            self.components[number] = Component(sampling >> 4, sampling & 15, table)
        layout = self.layout
        if layout is not None and (len(self.components) != layout.samples or self.precision > layout.bits_allocated):
            raise MalformedStream
        if rows:
            self._check_size()
        self._emit(marker, payload)

    def _check_size(self) -> None:
        if self.layout is not None and self.size != (self.layout.rows, self.layout.columns):
            raise MalformedStream

    def _scan(self, payload: bytes, at: int) -> int:
        """A scan and its entropy-coded data; where that ends. (1) (2)"""
        if not self.components or not payload or len(payload) != 4 + 2 * payload[0]:
            raise MalformedStream
        numbers = payload[1 : 1 + 2 * payload[0] : 2]
        selectors = payload[2 : 2 + 2 * payload[0] : 2]
        if not numbers or set(numbers) - self.components.keys() or self.scanned & set(numbers):
            raise MalformedStream
        if self.syntax in JPEG_LS:
            if any(selectors):
                raise MalformedStream  # a mapping table: DICOM has palettes of its own
        else:
            self._name_tables(numbers, selectors)
        self._emit(_SOS, payload)
        stop = _after_scan(self.stream, at)
        data = self.stream[at:stop]
        if self.syntax in JPEG_LS:
            if _TEXT.fullmatch(data.rstrip(FILL)[-16:]):
                raise MalformedStream  # nothing counts where a JPEG-LS picture ends
        else:
            scan = ScanHeader(tuple(self.components[number] for number in numbers), tuple(selectors), self.interval)
            size = self.size if self.size[0] else (self.layout.rows if self.layout else 0, self.size[1])
            counting = self.layout.counting if self.layout else Counting()
            everyone = list(self.components.values())
            kept = picture_end(data, scan, self.tables, everyone, size, self.lossless, counting)
            self.clean = self.clean and kept is data
            data = kept
        self.parts.append(data)
        self.scanned |= set(numbers)
        return stop

    def _name_tables(self, numbers: bytes, selectors: bytes) -> None:
        """The tables that a scan names stay where they were defined."""
        wanted: list[tuple[int, int]] = []
        for number, selector in zip(numbers, selectors, strict=True):
            if not self.lossless:
                wanted += [(_DQT, self.components[number].table), (_DHT, 16 | selector & 15)]
            wanted.append((_DHT, selector >> 4))
        for key in dict.fromkeys(wanted):
            if (found := self.pending.pop(key, None)) is not None:
                segment, place = found
                segment.named.add(place)
                if key[0] == _DHT:
                    self.tables.define(key[1], segment.tables[place])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


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
