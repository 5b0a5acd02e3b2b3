"""The value of an encapsulated pixel element, item by item: are there words in it, and the same value without them.

A frame begins with a fragment that begins an image; what follows without one belongs to it (PS3.5 A.4). A frame of RLE
has nothing at its beginning to know it by: it is one fragment, or those from its place in the offset table to the next
one's, or as many as its last segment needs. One frame is all that is in memory. An offset table that holds anything but
places of fragments is words, too. Without words the value is copied verbatim by whoever asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from node.deid.pixels.rle import RLE, Incomplete, Layout, rebuilt
from node.deid.pixels.segments import JP2, JPEG, JPEG_2000, MalformedStream, without_words, words

COMPRESSED = JPEG | JPEG_2000
# A frame of 16 bits and 8,000 x 8,000 that did not compress at all.
MAX_FRAME_BYTES = 1 << 27
# Fragments that one frame of RLE may be in where no offset table says so; each is tried with all before it.
MAX_FRAGMENTS_OF_RLE = 64
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_IMAGES = (b"\xff\xd8", b"\xff\x4f", JP2)


class Bytes(Protocol):
    """Random access, as `node.deid.stream.Stream` gives it."""

    def read(self, at: int, length: int) -> bytes: ...


def has_words(syntax: str, stream: Bytes, start: int, end: int, layout: Layout | None = None) -> bool:
    """Whether the value between `start` and `end` (offset table first) has any. Raises `MalformedStream`.

    `layout`: of RLE, what the header says of it.
    """
    if syntax not in COMPRESSED and (syntax != RLE or layout is None):
        return False
    places = list(_items(stream, start, end))
    if not _is_offset_table(stream, places):
        return True
    if layout is None or syntax != RLE:
        return any(words(syntax, frame) for frame in _frames(stream, start, end))
    if len(places) - 1 != layout.frames:
        return True
    return any(rebuilt(frame := stream.read(*place), layout) is not frame for place in places[1:])


def value_without_words(
    syntax: str, stream: Bytes, start: int, end: int, layout: Layout | None = None
) -> Iterator[bytes]:
    """The value again in parts: an empty offset table, then each frame in one fragment. Raises `MalformedStream`."""
    yield _ITEM + struct.pack("<L", 0)
    if syntax == RLE and layout is not None:
        frames = _frames_of_rle(stream, list(_items(stream, start, end)), layout)
    else:
        frames = (without_words(syntax, frame) for frame in _frames(stream, start, end))
    for kept in frames:
        kept += b"\0" * (len(kept) % 2)
        yield _ITEM + struct.pack("<L", len(kept)) + kept


def _is_offset_table(stream: Bytes, places: Sequence[tuple[int, int]]) -> bool:
    """Whether the first item is empty, or says where fragments begin and nothing else (PS3.5 A.4)."""
    if not places or not places[0][1]:
        return True
    return _offsets(stream.read(*places[0]), places, "L") is not None


def _offsets(table: bytes, places: Sequence[tuple[int, int]], form: str) -> list[int] | None:
    """The numbers of the fragments (the first is 1) that a table of offsets points to; None when it is none."""
    size = struct.calcsize(f"<{form}")
    if len(places) < 2 or not table or len(table) % size:
        return None
    number_at = {at - places[1][0]: number for number, (at, _length) in enumerate(places[1:], start=1)}
    found = [number_at.get(offset, 0) for (offset,) in struct.iter_unpack(f"<{form}", table)]
    ascending = all(one < after for one, after in pairwise(found))
    return found if ascending and found[0] else None


def _frames_of_rle(stream: Bytes, places: Sequence[tuple[int, int]], layout: Layout) -> Iterator[bytes]:
    """Each frame, rebuilt. Fragments that belong to none stay behind."""
    fragments = len(places) - 1
    if fragments < layout.frames:
        raise MalformedStream
    firsts = list(range(1, fragments + 1)) if fragments == layout.frames else _firsts(stream, places, layout)
    if firsts is None:
        yield from _greedily(stream, places[1:], layout)
        return
    for first, following in zip(firsts, [*firsts[1:], fragments + 1], strict=True):
        if sum(length for _at, length in places[first:following]) > MAX_FRAME_BYTES:
            raise MalformedStream
        yield rebuilt(b"".join([stream.read(*place) for place in places[first:following]]), layout)


def _firsts(stream: Bytes, places: Sequence[tuple[int, int]], layout: Layout) -> list[int] | None:
    """The fragments that frames begin with, by whichever table decoders go by; None where there is none."""
    if layout.extended_offsets:
        found = _offsets(layout.extended_offsets, places, "Q")
    else:
        found = _offsets(stream.read(*places[0]), places, "L")
    if found is not None and len(found) == layout.frames:
        return found
    return [1] if layout.frames == 1 else None


def _greedily(stream: Bytes, places: Sequence[tuple[int, int]], layout: Layout) -> Iterator[bytes]:
    """Frames of as many fragments as their last segments need."""
    rest = iter(places)
    for _frame in range(layout.frames):
        parts: list[bytes] = []
        for _fragment, place in zip(range(MAX_FRAGMENTS_OF_RLE), rest, strict=False):
            parts.append(stream.read(*place))
            try:
                yield rebuilt(b"".join(parts), layout)
            except Incomplete:
                continue
            break
        else:
            raise MalformedStream


def _frames(stream: Bytes, start: int, end: int) -> Iterator[bytes]:
    parts: list[bytes] = []  # joined once: a frame may come in a hundred thousand fragments
    size = 0
    for number, (at, length) in enumerate(_items(stream, start, end)):
        if number == 0:
            continue  # the offset table
        begins = stream.read(at, min(length, len(JP2))).startswith(_IMAGES)
        if begins and parts:
            yield b"".join(parts)
            parts, size = [], 0
        elif not begins and not parts:
            raise MalformedStream
        size += length
        if size > MAX_FRAME_BYTES:
            raise MalformedStream
        parts.append(stream.read(at, length))
    if parts:
        yield b"".join(parts)


def _items(stream: Bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
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
