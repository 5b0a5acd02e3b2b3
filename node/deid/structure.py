"""A DICOM file taken apart, strictly: every declared length is checked before it is believed (PS3.5 7, PS3.10 7).

1. Preamble, `DICM`, file meta in explicit VR little endian, a transfer syntax we know.
2. A deflated dataset inflates to at most `MAX_INFLATED_BYTES`.
3. Every element lies inside its file, item or sequence; tags ascend, so no element comes twice.
4. Sequences nest at most `MAX_DEPTH` deep; at most `MAX_ELEMENTS` elements in all.
5. Pixel data ends inside the file; encapsulated fragments are whole and end with their delimiter.

What breaks a rule raises `Unreadable` with a closed finding. Nothing here looks at what a value means.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from mediator.deid.screening import Exclusion

# An enhanced multi-frame header is a few MB and inflates some tenfold; a bomb of 1 MB asks for 2 GB.
MAX_INFLATED_BYTES = 1 << 28
# Structured reports nest about 10 deep; parsers that recurse break in the hundreds.
MAX_DEPTH = 16
# A thousand frames with fifty elements each, and room.
MAX_ELEMENTS = 200_000
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # PS3.5 7.1.2: two bytes of length

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
# JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE. Not video, and not JPIP, whose pixels are an address.
ENCAPSULATED = frozenset(
    f"1.2.840.10008.1.2.{tail}"
    for tail in (
        "5", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.92", "4.93", "4.201", "4.202", "4.203",
    )
)  # fmt: skip


class Unreadable(Exception):
    """The file is not what it should be; `finding` says how, and nothing else is known for sure."""

    def __init__(self, finding: Exclusion) -> None:
        super().__init__(finding.value)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Node:
    """One element: value bytes as they stand in the file, or the items of a sequence."""

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[tuple[Node, ...], ...] | None = None


@dataclass(frozen=True)
class Pixels:
    """The pixel element: its tag and VR, where its value lies in `Parsed.body`, and the number of fragments."""

    tag: int
    vr: str
    start: int
    end: int
    fragments: int | None  # None: native


@dataclass(frozen=True)
class Parsed:
    """A file taken apart. `body` is the dataset's bytes (inflated), `nodes` the elements before the pixels."""

    syntax: str
    body: bytes = field(repr=False)
    nodes: tuple[Node, ...] = field(repr=False)
    pixels: Pixels | None
    finding: Exclusion | None = None  # the header is whole, the pixels are not

    @property
    def implicit(self) -> bool:
        return self.syntax == IMPLICIT

    @property
    def little(self) -> bool:
        return self.syntax != BIG_ENDIAN


def parse(content: bytes, vr_of: Callable[[int], str]) -> Parsed:
    """A DICOM file taken apart. `vr_of`: a tag's VR by the standard, "UN" where it has none. Raises `Unreadable`."""
    syntax, start = _file_meta(content)  # (1)
    body = content[start:]
    if syntax == DEFLATED:
        body, syntax = _inflate(body), EXPLICIT
    walk = _Walk(body, "<" if syntax != BIG_ENDIAN else ">", vr_of)
    nodes, at = walk.elements(0, len(body), 0, implicit=syntax == IMPLICIT, top=True)
    if at == len(body):
        return Parsed(syntax, body, nodes, None)
    try:
        pixels = walk.pixels(at, implicit=syntax == IMPLICIT, encapsulated=syntax in ENCAPSULATED)
    except Unreadable as problem:
        return Parsed(syntax, body, nodes, None, problem.finding)
    return Parsed(syntax, body, nodes, pixels)


def _file_meta(content: bytes) -> tuple[str, int]:
    """The transfer syntax, and where the dataset begins."""
    if len(content) < 132 or content[128:132] != b"DICM":
        raise Unreadable(Exclusion.NOT_DICOM)
    walk = _Walk(content, "<", lambda tag: "UN")
    at, syntax = 132, ""
    while at + 8 <= len(content) and content[at : at + 2] == b"\x02\x00":
        tag, _vr, length, start = walk.header(at, len(content), implicit=False)
        at = walk.bounded(start, length, len(content))
        if tag == 0x00020010:
            syntax = content[start:at].rstrip(b" \0").decode("latin-1")
    if syntax not in ENCAPSULATED | {IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN}:
        raise Unreadable(Exclusion.SYNTAX_NOT_SUPPORTED)
    return syntax, at


def _inflate(body: bytes) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = machine.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise Unreadable(Exclusion.MALFORMED) from error
    if machine.unconsumed_tail:
        raise Unreadable(Exclusion.INFLATE_LIMIT)  # (2)
    if not machine.eof:
        raise Unreadable(Exclusion.TRUNCATED)
    return plain


class _Walk:
    """One pass over a dataset's bytes."""

    def __init__(self, data: bytes, order: str, vr_of: Callable[[int], str]) -> None:
        self._data = data
        self._order = order
        self._vr_of = vr_of
        self._seen = 0
        self._tag = struct.Struct(order + "HH").unpack_from
        self._short = struct.Struct(order + "H").unpack_from
        self._long = struct.Struct(order + "L").unpack_from

    def header(self, at: int, end: int, *, implicit: bool) -> tuple[int, str, int, int]:
        """(tag, VR, length, where the value begins) of the element at `at`."""
        if at + 8 > end:
            raise Unreadable(Exclusion.TRUNCATED)
        group, element = self._tag(self._data, at)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, self._vr_of(tag), self._long(self._data, at + 4)[0], at + 8
        vr = self._data[at + 4 : at + 6]
        if vr in SHORT_VRS:
            return tag, vr.decode(), self._short(self._data, at + 6)[0], at + 8
        if vr not in LONG_VRS:
            raise Unreadable(Exclusion.MALFORMED)
        if at + 12 > end:
            raise Unreadable(Exclusion.TRUNCATED)
        return tag, vr.decode(), self._long(self._data, at + 8)[0], at + 12

    def bounded(self, start: int, length: int, end: int) -> int:
        """Where a value of `length` bytes ends. (3)"""
        if length > end - start:
            raise Unreadable(Exclusion.TRUNCATED if end == len(self._data) else Exclusion.MALFORMED)
        return start + length

    def elements(
        self, at: int, end: int, depth: int, *, implicit: bool, top: bool = False, delimited: bool = False
    ) -> tuple[tuple[Node, ...], int]:
        """The elements from `at` to `end`, to an item delimiter, or (`top`) to the pixel data."""
        if depth > MAX_DEPTH:
            raise Unreadable(Exclusion.TOO_DEEP)  # (4)
        nodes: list[Node] = []
        last = -1
        while at < end:
            tag, vr, length, start = self.header(at, end, implicit=implicit)
            if delimited and tag == ITEM_END:
                return tuple(nodes), self._zero(length, start)
            if top and tag in PIXEL_TAGS:
                return tuple(nodes), at
            self._seen += 1
            if self._seen > MAX_ELEMENTS:
                raise Unreadable(Exclusion.TOO_MANY_ELEMENTS)
            if tag <= last or tag >> 16 == 0xFFFE:
                raise Unreadable(Exclusion.MALFORMED)
            last = tag
            node, at = self._node(tag, vr, length, start, end, depth, implicit)
            nodes.append(node)
        if delimited:
            raise Unreadable(Exclusion.TRUNCATED if end == len(self._data) else Exclusion.MALFORMED)
        return tuple(nodes), at

    def _node(
        self, tag: int, vr: str, length: int, start: int, end: int, depth: int, implicit: bool
    ) -> tuple[Node, int]:
        if length == UNDEFINED:
            # PS3.5 6.2.2: UN of undefined length is a sequence in implicit VR little endian
            items, at = self._items(start, end, depth, implicit or vr == "UN", open_ended=True)
            return Node(tag, "SQ", items=items), at
        at = self.bounded(start, length, end)
        if vr == "SQ":
            items, _ = self._items(start, at, depth, implicit, open_ended=False)
            return Node(tag, "SQ", items=items), at
        return Node(tag, vr, self._data[start:at]), at

    def _items(
        self, at: int, end: int, depth: int, implicit: bool, *, open_ended: bool
    ) -> tuple[tuple[tuple[Node, ...], ...], int]:
        if implicit and self._order == ">":
            raise Unreadable(Exclusion.MALFORMED)  # UN inside big endian: two byte orders in one dataset
        items: list[tuple[Node, ...]] = []
        while at < end:
            tag, _vr, length, start = self.header(at, end, implicit=True)
            if tag == SEQUENCE_END and open_ended:
                return tuple(items), self._zero(length, start)
            if tag != ITEM:
                raise Unreadable(Exclusion.MALFORMED)
            if length == UNDEFINED:
                nodes, at = self.elements(start, end, depth + 1, implicit=implicit, delimited=True)
            else:
                nodes, at = self.elements(start, self.bounded(start, length, end), depth + 1, implicit=implicit)
            items.append(nodes)
            self._seen += 1
            if self._seen > MAX_ELEMENTS:
                raise Unreadable(Exclusion.TOO_MANY_ELEMENTS)
        if open_ended:
            raise Unreadable(Exclusion.TRUNCATED if end == len(self._data) else Exclusion.MALFORMED)
        return tuple(items), at

    @staticmethod
    def _zero(length: int, start: int) -> int:
        if length:
            raise Unreadable(Exclusion.MALFORMED)  # a delimiter with a length could carry anything
        return start

    def pixels(self, at: int, *, implicit: bool, encapsulated: bool) -> Pixels:
        """The pixel element at `at`; what follows it in the file is never looked at. (5)"""
        tag, vr, length, start = self.header(at, len(self._data), implicit=implicit)
        if vr not in ("OB", "OW", "OF", "OD") or encapsulated != (length == UNDEFINED):
            raise Unreadable(Exclusion.PIXELS_INCONSISTENT)
        if length != UNDEFINED:
            return Pixels(tag, vr, start, self.bounded(start, length, len(self._data)), None)
        position, fragments = start, -1  # the first item is the offset table
        while True:
            item, _vr, size, inside = self.header(position, len(self._data), implicit=True)
            if item == SEQUENCE_END:
                self._zero(size, inside)
                return Pixels(tag, vr, start, position, max(fragments, 0))
            if item != ITEM or size == UNDEFINED:
                raise Unreadable(Exclusion.PIXELS_INCONSISTENT)
            position = self.bounded(inside, size, len(self._data))
            fragments += 1
