"""The value of an encapsulated pixel element, item by item: are there words in it, and the same value without them.

A frame begins with a fragment that begins an image; what follows without one belongs to it (PS3.5 A.4). One frame is
all that is in memory. Without words the value is copied verbatim by whoever asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from node.deid.pixels.segments import JP2, JPEG, JPEG_2000, MalformedStream, without_words, words

COMPRESSED = JPEG | JPEG_2000
# A frame of 16 bits and 8,000 x 8,000 that did not compress at all.
MAX_FRAME_BYTES = 1 << 27
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_IMAGES = (b"\xff\xd8", b"\xff\x4f", JP2)


class Bytes(Protocol):
    """Random access, as `node.deid.stream.Stream` gives it."""

    def read(self, at: int, length: int) -> bytes: ...


def has_words(syntax: str, stream: Bytes, start: int, end: int) -> bool:
    """Whether any frame between `start` and `end` (the value, offset table first) has. Raises `MalformedStream`."""
    return syntax in COMPRESSED and any(words(syntax, frame) for frame in _frames(stream, start, end))


def value_without_words(syntax: str, stream: Bytes, start: int, end: int) -> Iterator[bytes]:
    """The value again in parts: an empty offset table, then each frame in one fragment. Raises `MalformedStream`."""
    yield _ITEM + struct.pack("<L", 0)
    for frame in _frames(stream, start, end):
        kept = without_words(syntax, frame)
        kept += b"\0" * (len(kept) % 2)
        yield _ITEM + struct.pack("<L", len(kept)) + kept


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
