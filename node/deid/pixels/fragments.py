"""The value of an encapsulated pixel element, item by item, and the same value built anew from its frames.

A frame is the fragments from its place in the offset table to the next one's; without a table one fragment each, where
there are as many as frames; else it goes from a fragment that begins an image to the next such one (PS3.5 A.4), and of
RLE, whose frames begin with nothing to know them by, as far as its last segment needs. Fragments that belong to none
of the frames the header counts stay behind. Each frame is built from its parts (`segments.without_words`) and written
as one fragment, and the offset table is computed anew where there was one. One frame is all that is in memory.

A value that has nothing else, and whose offset table says where its frames begin, is copied verbatim by whoever asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from node.deid.pixels.layout import Layout, MalformedStream
from node.deid.pixels.rle import Incomplete, rebuilt
from node.deid.pixels.segments import BEGINNINGS, COMPRESSED, RLE, doubtful, without_words

# A frame of 16 bits and 8,000 x 8,000 that did not compress at all.
MAX_FRAME_BYTES = 1 << 27
# Fragments that one frame of RLE may be in where no offset table says so; each is tried with all before it.
MAX_FRAGMENTS_OF_RLE = 64
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_LONGEST_BEGINNING = max(map(len, BEGINNINGS))

Place = tuple[int, int]
"""Where a fragment begins in the stream, and its length."""


class Bytes(Protocol):
    """Random access, as `node.deid.stream.Stream` gives it."""

    def read(self, at: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class FramePlan:
    """How long each frame is when built anew; None: the value is nothing but its frames, and stays as it is.

    `doubtful`: only a decoder can say that a frame holds no more than its picture.
    """

    sizes: list[int] | None
    doubtful: bool


def planned(syntax: str, stream: Bytes, start: int, end: int, layout: Layout) -> FramePlan:
    """What becomes of the value between `start` and `end` (offset table first). Raises `MalformedStream`."""
    if syntax not in COMPRESSED:
        return FramePlan(None, doubtful=False)
    places = list(items(stream, start, end))
    layout.counting.begin(end - start)
    same = not layout.extended_offsets and _is_offset_table(stream, places, layout)
    sizes: list[int] = []
    seen, doubt = 0, False
    for fragments, frame, kept in _frames(syntax, stream, places, layout):
        same = same and kept is frame
        sizes.append(len(kept))
        doubt = doubt or doubtful(syntax, kept, layout)
        seen += fragments
    fragments = layout.frames if syntax == RLE else seen  # an RLE frame in two fragments is read by few
    return FramePlan(None if same and fragments == len(places) - 1 else sizes, doubt)


def new_value(
    syntax: str, stream: Bytes, start: int, end: int, layout: Layout, sizes: Sequence[int]
) -> Iterator[bytes]:
    """The value again in parts: the offset table, then each frame in one fragment of even length."""
    places = list(items(stream, start, end))
    offsets = list(accumulate([8 + size + size % 2 for size in sizes], initial=0))[:-1]
    told = (places and places[0][1]) or layout.extended_offsets
    table = struct.pack(f"<{len(offsets)}L", *offsets) if told and offsets and offsets[-1] < 1 << 32 else b""
    yield _ITEM + struct.pack("<L", len(table)) + table
    for kept in new_frames(syntax, stream, start, end, layout):
        yield _ITEM + struct.pack("<L", len(kept)) + kept


def new_frames(syntax: str, stream: Bytes, start: int, end: int, layout: Layout) -> Iterator[bytes]:
    """Each frame built anew, of even length: the same for an original and for what was made of it."""
    layout.counting.begin(end - start)
    for _fragments, _frame, kept in _frames(syntax, stream, list(items(stream, start, end)), layout):
        yield kept + b"\0" * (len(kept) % 2)


def _frames(syntax: str, stream: Bytes, places: Sequence[Place], layout: Layout) -> Iterator[tuple[int, bytes, bytes]]:
    """(its fragments, a frame as it is, the frame built anew) for as many frames as the header counts."""
    if syntax == RLE:
        groups = _told(stream, places, layout)
        if groups is None:
            yield from _greedily(stream, places[1:], layout)
            return
    else:
        groups = _told(stream, places, layout) or _by_beginnings(stream, places[1:], layout)
    for group in groups:
        if sum(length for _at, length in group) > MAX_FRAME_BYTES:
            raise MalformedStream
        frame = b"".join([stream.read(*place) for place in group])
        yield len(group), frame, without_words(syntax, frame, layout)


def _told(stream: Bytes, places: Sequence[Place], layout: Layout) -> list[Sequence[Place]] | None:
    """The fragments of each frame, where their number or whichever table decoders go by says so."""
    fragments = len(places) - 1
    if fragments < layout.frames:
        raise MalformedStream
    if fragments == layout.frames:
        return [[place] for place in places[1:]]
    if layout.extended_offsets:
        firsts = _offsets(layout.extended_offsets, places, "Q")
    else:
        firsts = _offsets(stream.read(*places[0]), places, "L")
    if firsts is None or len(firsts) != layout.frames:
        if layout.frames != 1:
            return None
        firsts = [1]
    return [places[one:after] for one, after in pairwise([*firsts, len(places)])]


def _by_beginnings(stream: Bytes, places: Sequence[Place], layout: Layout) -> list[Sequence[Place]]:
    begins = [
        number
        for number, (at, length) in enumerate(places)
        if stream.read(at, min(length, _LONGEST_BEGINNING)).startswith(BEGINNINGS)
    ]
    if len(begins) < layout.frames or begins[0] != 0:
        raise MalformedStream
    return [places[one:after] for one, after in pairwise([*begins, len(places)])][: layout.frames]


def _is_offset_table(stream: Bytes, places: Sequence[Place], layout: Layout) -> bool:
    """Whether the first item is empty, or says where each frame begins and nothing else (PS3.5 A.4)."""
    if not places or not places[0][1]:
        return True
    found = _offsets(stream.read(*places[0]), places, "L")
    return found is not None and len(found) == layout.frames


def _offsets(table: bytes, places: Sequence[Place], form: str) -> list[int] | None:
    """The numbers of the fragments (the first is 1) that a table of offsets points to; None when it is none."""
    size = struct.calcsize(f"<{form}")
    if len(places) < 2 or not table or len(table) % size:
        return None
    number_at = {at - places[1][0]: number for number, (at, _length) in enumerate(places[1:], start=1)}
    found = [number_at.get(offset, 0) for (offset,) in struct.iter_unpack(f"<{form}", table)]
    ascending = all(one < after for one, after in pairwise(found))
    return found if ascending and found[0] else None


def _greedily(stream: Bytes, places: Sequence[Place], layout: Layout) -> Iterator[tuple[int, bytes, bytes]]:
    """Frames of RLE of as many fragments as their last segments need."""
    rest = iter(places)
    for _frame in range(layout.frames):
        parts: list[bytes] = []
        for _fragment, place in zip(range(MAX_FRAGMENTS_OF_RLE), rest, strict=False):
            if sum(map(len, parts)) + place[1] > MAX_FRAME_BYTES:
                raise MalformedStream
            parts.append(stream.read(*place))
            try:
                frame = b"".join(parts)
                kept = rebuilt(frame, layout)
            except Incomplete:
                continue
            yield len(parts), frame, kept
            break
        else:
            raise MalformedStream


def items(stream: Bytes, start: int, end: int) -> Iterator[Place]:
    """Where each item of a value begins, and its length; the first is the offset table. Raises `MalformedStream`."""
    at = start
    while at < end:
        head = stream.read(at, 8)
        if len(head) < 8 or head[:4] != _ITEM:
            raise MalformedStream
        (length,) = struct.unpack_from("<L", head, 4)
        if at + 8 + length > end:
            raise MalformedStream
        yield at + 8, length
        at += 8 + length
