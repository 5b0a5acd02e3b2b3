"""A DICOM file taken apart, strictly: every declared length is checked before it is believed (PS3.5 7, PS3.10 7).

1. Preamble, `DICM`, file meta in explicit VR little endian, a transfer syntax we know (`node.deid.file_start`).
2. A deflated dataset inflates to at most `MAX_INFLATED_BYTES`; a header is at most `MAX_HEADER_BYTES`.
3. Every element lies inside its file, item or sequence; tags ascend, so no element comes twice.
4. Sequences nest at most `MAX_DEPTH` deep; at most `MAX_ELEMENTS` elements in one item of a sequence of the dataset,
   `MAX_ALL` in all.
5. Pixel data ends inside the file; encapsulated fragments are whole, and end with their delimiter or with the file.

What breaks a rule raises `Unreadable` with a closed finding. Nothing here looks at what a value means. Only the header
is held in memory, in a window that grows until the pixel data begins; the pixels are a place in the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mediator.deid.screening import Exclusion, Note
from node.deid.stream import Stream

# The process that reads headers stays below 300 MB: it holds a header up to three times (elements, what is written of
# them, the output), and an inflated dataset twice. Items of large sequences are taken apart one by one.
MAX_HEADER_BYTES = 56 << 20
MAX_INFLATED_BYTES = 1 << 26
# Structured reports nest about 10 deep; parsers that recurse break in the hundreds.
MAX_DEPTH = 16
# An organ's contours on every slice, and room.
MAX_ELEMENTS = 200_000
# 98 organs on 643 slices, a frame for each, have 1.6 million elements and items.
MAX_ALL = 1_900_000
# A fragment may be one frame of a long film; a file made of empty fragments would keep us for hours.
MAX_FRAGMENTS = 1 << 18
# Zeros that some systems leave behind the last fragment: a block of a disk or tape.
_BLANK_BYTES = 1 << 16
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # PS3.5 7.1.2: two bytes of length
_SHORT_NAMES, _LONG_NAMES = ({vr: vr.decode() for vr in vrs} for vrs in (SHORT_VRS, LONG_VRS))

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
# JPEG, JPEG-LS, JPEG 2000, HTJ2K, JPEG XL, RLE, deflated frames. Not video, and not JPIP, whose pixels are an address.
ENCAPSULATED = frozenset(
    f"1.2.840.10008.1.2.{tail}"
    for tail in (
        "5", "4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.92", "4.93", "4.110", "4.111", "4.112",
        "4.201", "4.202", "4.203", "8.1",
    )
)  # fmt: skip
SYNTAXES = ENCAPSULATED | {IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN}

VrOf = Callable[[int], str]


class Unreadable(Exception):
    """The file is not what it should be; `finding` says how, and nothing else is known for sure."""

    def __init__(self, finding: Exclusion) -> None:
        super().__init__(finding.value)
        self.finding = finding


class MoreNeeded(Exception):
    """The window ends before the header does."""


@dataclass(frozen=True, slots=True)
class ElementNode:
    """One element: value bytes as they stand in the file, or the items of a sequence."""

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[tuple[ElementNode, ...], ...] | None = None


@dataclass(frozen=True)
class Pixels:
    """The pixel element: its tag and VR, where its value lies in `Parsed.stream`, and the number of fragments."""

    tag: int
    vr: str
    start: int
    end: int
    fragments: int | None  # None: native
    note: Note | None = None  # how it was read


_UNBUILT = ElementNode(0, "UN")
_HEADERS, _LONGS = ({order: struct.Struct(order + form).unpack_from for order in "<>"} for form in ("HH2sH", "L"))


class Walk:
    """One pass over the first bytes of a dataset that is `size` bytes long.

    `build` false: all is checked, and nodes have neither values nor items (of a sequence: none).
    """

    def __init__(self, data: bytes, size: int, order: str, vr_of: VrOf, *, build: bool = True) -> None:
        self._data = data
        self._size = size
        self._order = order
        self._vr_of = vr_of
        self._build = build
        self._seen = 0  # in the item of a sequence of the dataset that is being read
        self._seen_before = 0
        self._start = _HEADERS[order]
        self._long = _LONGS[order]

    def _cut(self, end: int) -> Exception:
        """Why something does not fit before `end`."""
        if end != len(self._data):
            return Unreadable(Exclusion.MALFORMED)
        return Unreadable(Exclusion.TRUNCATED) if end == self._size else MoreNeeded()

    def header(self, at: int, end: int, *, implicit: bool) -> tuple[int, str, int, int]:
        """(tag, VR, length, where the value begins) of the element at `at`."""
        if at + 8 > end:
            raise self._cut(end)
        group, element, vr, length = self._start(self._data, at)
        tag = group << 16 | element
        if implicit or group == 0xFFFE:
            return tag, self._vr_of(tag), self._long(self._data, at + 4)[0], at + 8
        if (name := _SHORT_NAMES.get(vr)) is not None:
            return tag, name, length, at + 8
        if (name := _LONG_NAMES.get(vr)) is None:
            raise Unreadable(Exclusion.MALFORMED)
        if at + 12 > end:
            raise self._cut(end)
        return tag, name, self._long(self._data, at + 8)[0], at + 12

    def bounded(self, start: int, length: int, end: int) -> int:
        """Where a value of `length` bytes ends. (3)"""
        if length > end - start:
            if end == len(self._data) and length > self._size - start:
                raise Unreadable(Exclusion.TRUNCATED)
            raise self._cut(end)
        return start + length

    def element(self, at: int, end: int, *, implicit: bool) -> tuple[int, str, int, int]:
        """(tag, VR, where its value begins, where it ends) of a top-level element; a sequence is walked through.

        The end of what begins pixel data is where it begins.
        """
        tag, vr, length, start = self.header(at, end, implicit=implicit)
        if tag in PIXEL_TAGS:
            return tag, vr, start, at
        if tag >> 16 == 0xFFFE:
            raise Unreadable(Exclusion.MALFORMED)
        if vr == "SQ" or length == UNDEFINED:
            return tag, "SQ", at, self.sequence(at, end, implicit=implicit)[1]
        stop = self.bounded(start, length, end)
        if vr == "UN" and self._order == "<" and (vr := self._vr_of(tag)) == "SQ":
            node, _ = self.sequence(at, end, implicit=implicit)
            return (tag, "SQ", at, stop) if node.items is not None else (tag, "UN", start, stop)
        return tag, vr, start, stop

    def sequence(self, at: int, end: int, *, implicit: bool) -> tuple[ElementNode, int]:
        """The sequence at `at` taken apart, and where it ends."""
        tag, vr, length, start = self.header(at, end, implicit=implicit)
        return self._node(tag, vr, length, start, end, 0, implicit)

    def elements(
        self, at: int, end: int, depth: int, *, implicit: bool, delimited: bool = False
    ) -> tuple[tuple[ElementNode, ...], int]:
        """The elements of an item, from `at` to `end` or to an item delimiter."""
        if depth > MAX_DEPTH:
            raise Unreadable(Exclusion.TOO_DEEP)  # (4)
        nodes: list[ElementNode] = []
        last = -1
        while at < end:
            tag, vr, length, start = self.header(at, end, implicit=implicit)
            if delimited and tag == ITEM_END:
                return tuple(nodes), self._zero(length, start)
            self._count()
            if tag <= last or tag >> 16 == 0xFFFE:
                raise Unreadable(Exclusion.MALFORMED)
            last = tag
            node, at = self._node(tag, vr, length, start, end, depth, implicit)
            if self._build:
                nodes.append(node)
        if delimited:
            raise self._cut(end)
        return tuple(nodes), at

    def _node(
        self, tag: int, vr: str, length: int, start: int, end: int, depth: int, implicit: bool
    ) -> tuple[ElementNode, int]:
        if length == UNDEFINED and tag in PIXEL_TAGS and vr in ("OB", "OW"):
            at = self._icon(start, end)
            return (ElementNode(tag, vr, self._data[start:at]) if self._build else _UNBUILT), at
        if length == UNDEFINED:
            # PS3.5 6.2.2: UN of undefined length is a sequence in implicit VR little endian
            items, at = self._items(start, end, depth, implicit or vr == "UN", open_ended=True)
            return ElementNode(tag, "SQ", items=items), at
        at = self.bounded(start, length, end)
        if vr == "UN" and self._order == "<":
            return self._unknown(tag, start, at, depth), at
        if vr == "SQ":
            items, _ = self._items(start, at, depth, implicit, open_ended=False)
            return ElementNode(tag, "SQ", items=items), at
        return (ElementNode(tag, vr, self._data[start:at]) if self._build else _UNBUILT), at

    def _icon(self, at: int, end: int) -> int:
        """Where encapsulated pixels in an item end: an icon compressed as its picture is (PS3.5 A.4)."""
        while True:
            tag, _vr, length, start = self.header(at, end, implicit=True)
            if tag == SEQUENCE_END:
                return self._zero(length, start)
            if tag != ITEM or length == UNDEFINED:
                raise Unreadable(Exclusion.PIXELS_INCONSISTENT)
            self._count()
            at = self.bounded(start, length, end)

    def _unknown(self, tag: int, start: int, end: int, depth: int) -> ElementNode:
        """UN for an element the standard knows: its own VR, written as in implicit VR little endian (PS3.5 6.2.2)."""
        vr = self._vr_of(tag)
        if vr == "SQ":
            try:
                return ElementNode(tag, "SQ", items=self._items(start, end, depth, True, open_ended=False)[0])
            except Unreadable as problem:
                if problem.finding in (Exclusion.TOO_DEEP, Exclusion.TOO_MANY_ELEMENTS):
                    raise
                vr = "UN"
        return ElementNode(tag, vr, self._data[start:end]) if self._build else _UNBUILT

    def items(self, at: int, end: int) -> tuple[tuple[tuple[ElementNode, ...], ...], int]:
        """The items of a sequence's value in implicit VR, and where they end."""
        return self._items(at, end, 0, True, open_ended=False)

    def _items(
        self, at: int, end: int, depth: int, implicit: bool, *, open_ended: bool
    ) -> tuple[tuple[tuple[ElementNode, ...], ...], int]:
        if implicit and self._order == ">":
            raise Unreadable(Exclusion.MALFORMED)  # UN inside big endian: two byte orders in one dataset
        items: list[tuple[ElementNode, ...]] = []
        for nodes, at in self._each_item(at, end, depth, implicit, open_ended=open_ended):  # noqa: B007, B020
            if nodes is not None and self._build:
                items.append(nodes)
        return tuple(items), at

    def _each_item(
        self, at: int, end: int, depth: int, implicit: bool, *, open_ended: bool
    ) -> Iterator[tuple[tuple[ElementNode, ...] | None, int]]:
        """Each item and where it ends; a last one that is None, where the delimiter does."""
        while at < end:
            tag, _vr, length, start = self.header(at, end, implicit=True)
            if tag == SEQUENCE_END and open_ended:
                yield None, self._zero(length, start)
                return
            if tag != ITEM:
                raise Unreadable(Exclusion.MALFORMED)
            if depth == 0:
                self._seen_before += self._seen
                self._seen = 0
            if length == UNDEFINED:
                nodes, at = self.elements(start, end, depth + 1, implicit=implicit, delimited=True)
            else:
                nodes, at = self.elements(start, self.bounded(start, length, end), depth + 1, implicit=implicit)
            self._count()
            yield nodes, at
        if open_ended:
            raise self._cut(end)

    def _count(self) -> None:
        """(4)"""
        self._seen += 1
        if self._seen > MAX_ELEMENTS or self._seen + self._seen_before > MAX_ALL:
            raise Unreadable(Exclusion.TOO_MANY_ELEMENTS)

    def items_of(self, *, implicit: bool) -> Iterator[tuple[ElementNode, ...]]:
        """The items of the sequence that the data are, one after the other."""
        _tag, vr, length, start = self.header(0, len(self._data), implicit=implicit)
        if length == UNDEFINED:
            found = self._each_item(start, len(self._data), 0, implicit or vr == "UN", open_ended=True)
        else:
            inside = implicit or vr == "UN"
            found = self._each_item(start, self.bounded(start, length, len(self._data)), 0, inside, open_ended=False)
        for nodes, _at in found:
            if nodes is not None:
                yield nodes

    @staticmethod
    def _zero(length: int, start: int) -> int:
        if length:
            raise Unreadable(Exclusion.MALFORMED)  # a delimiter with a length could carry anything
        return start


def taken_apart(node: ElementNode, vr_of: VrOf) -> ElementNode:
    """Bytes of no stated kind as the sequence they are, in implicit VR little endian; unchanged when they are none."""
    try:
        items, _ = Walk(node.value, len(node.value), "<", vr_of).items(0, len(node.value))
    except (Unreadable, MoreNeeded):
        return node
    return ElementNode(node.tag, "SQ", items=items)


def pixels_at(
    stream: Stream, at: int, implicit: bool, little: bool, encapsulated: bool, vr_of: VrOf, known: bytes = b""
) -> Pixels:
    """The pixel element at `at`; what follows it in the file is never looked at. `known`: its first bytes. (5)"""
    head = known if len(known) == 12 else stream.read(at, 12)
    walk = Walk(head, stream.size - at, "<" if little else ">", vr_of)
    try:
        tag, vr, length, inside = walk.header(0, len(head), implicit=implicit)
    except MoreNeeded:
        raise Unreadable(Exclusion.TRUNCATED) from None
    note = None
    if vr == "UN" and little and not encapsulated and tag == 0x7FE00010:
        vr, note = "OW", Note.PIXELS_AS_UN
    if vr not in ("OB", "OW", "OF", "OD") or encapsulated != (length == UNDEFINED):
        raise Unreadable(Exclusion.PIXELS_INCONSISTENT)
    start = at + inside
    if length != UNDEFINED:
        if length > stream.size - start:
            raise Unreadable(Exclusion.TRUNCATED)
        return Pixels(tag, vr, start, start + length, None, note)
    return _fragments(stream, tag, vr, start)


def _fragments(stream: Stream, tag: int, vr: str, start: int) -> Pixels:
    """Encapsulated pixels whose value begins at `start`. Without a delimiter the file, or zeros to its end, ends them:
    whether the last frame is whole is seen when it is built anew."""
    position, fragments = start, -1  # the first item is the offset table
    header = struct.Struct("<HHL").unpack
    while True:
        head = stream.read(position, 8)
        if fragments >= 0 and (len(head) < 8 or not head.strip(b"\0")) and is_blank(stream, position):
            return Pixels(tag, vr, start, position, fragments, Note.DELIMITER_MISSING)
        if len(head) < 8:
            raise Unreadable(Exclusion.TRUNCATED)
        group, element, size = header(head)
        item = group << 16 | element
        if item == SEQUENCE_END:  # what a length it has belongs to is not looked at
            return Pixels(tag, vr, start, position, max(fragments, 0))
        if item != ITEM or size == UNDEFINED or fragments >= MAX_FRAGMENTS:
            raise Unreadable(Exclusion.PIXELS_INCONSISTENT)
        position += 8 + size
        if position > stream.size:
            raise Unreadable(Exclusion.TRUNCATED)
        fragments += 1


def is_blank(stream: Stream, at: int) -> bool:
    """Whether the rest of a file is nothing, or zeros."""
    return stream.size - at <= _BLANK_BYTES and not stream.read(at, _BLANK_BYTES).strip(b"\0")
