"""RLE streams (PS3.5 Annex G): taken apart and put together from what decoders read and nothing else. Pure, on bytes.

A frame is a header of sixteen numbers, then a segment of PackBits runs for each byte of each sample. Decoders ignore

1. offsets and segments beyond those the pixels have, and what lies between header and segments,
2. what follows the run that completes a segment, and what that run has too much,
3. runs that say "no operation".

There words can hide (a modality wrote patient data behind its last segment: fo-dicom PR 1589). None of it is written
again. Runs stay as they are, so decoded pixels do, and a frame that has nothing but its parts stays byte for byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from node.deid.pixels.segments import MalformedStream

RLE = "1.2.840.10008.1.2.5"
_HEADER = struct.Struct("<16L")
_MOST_SEGMENTS = 15
_NO_OPERATION = 128


class Incomplete(MalformedStream):
    """The last segment ends before its pixels do: another fragment may hold the rest."""


@dataclass(frozen=True)
class Layout:
    """What a header says of encapsulated pixels: `segments` a frame, `size` bytes that each of them decodes to.

    `extended_offsets` is the value of (7FE0,0001), which decoders prefer to the offset table.
    """

    frames: int
    segments: int
    size: int
    extended_offsets: bytes = b""


def rebuilt(frame: bytes, layout: Layout) -> bytes:
    """One frame from its parts; the same object when it holds nothing else. Raises `MalformedStream`."""
    if len(frame) < _HEADER.size or not 0 < layout.segments <= _MOST_SEGMENTS:
        raise MalformedStream
    declared, *offsets = _HEADER.unpack_from(frame)
    if not layout.segments <= declared <= _MOST_SEGMENTS:
        raise MalformedStream
    starts = offsets[: layout.segments]
    ends = [*offsets[1:declared], len(frame)][: layout.segments]
    at, clean = _HEADER.size, declared == layout.segments and not any(offsets[declared:])
    for start, end in zip(starts, ends, strict=True):
        if not _HEADER.size <= start <= end <= len(frame):
            raise MalformedStream
        stop, left, plain = _walk(frame, start, end, layout.size)
        if left > 0 or stop > end:
            raise Incomplete if end == len(frame) else MalformedStream
        padding = frame[stop:end]
        clean = clean and plain and left == 0 and start == at and padding == b"\0" * ((stop - start) % 2)
        at = end
    if clean:
        return frame
    parts = [_runs(frame, start, end, layout.size) for start, end in zip(starts, ends, strict=True)]
    places, place = [], _HEADER.size
    for part in parts:
        places.append(place)
        place += len(part)
    unused = [0] * (_MOST_SEGMENTS - len(parts))
    return b"".join((_HEADER.pack(len(parts), *places, *unused), *parts))


def _walk(frame: bytes, at: int, end: int, left: int) -> tuple[int, int, bool]:
    """(where the run that completes a segment ends, how much less than wanted it decodes to, no run is empty)."""
    plain = True
    while left > 0 and at < end:
        number = frame[at]
        if number < _NO_OPERATION:
            at += number + 2
            left -= number + 1
        elif number > _NO_OPERATION:
            at += 2
            left += number - 257
        else:
            at += 1
            plain = False
    return at, left, plain


def _runs(frame: bytes, at: int, end: int, left: int) -> bytes:
    """The runs that decode to `left` bytes, the last cut to what is needed, padded to even length. (2) (3)"""
    kept = bytearray()
    while left > 0 and at < end:
        number = frame[at]
        if number == _NO_OPERATION:
            at += 1
            continue
        literal = number < _NO_OPERATION
        count = number + 1 if literal else 257 - number
        taken = min(count, left)
        if literal or taken == 1:
            kept.append(taken - 1)
            kept += frame[at + 1 : at + 1 + taken]
        else:
            kept.append(257 - taken)
            kept.append(frame[at + 1])
        at += count + 1 if literal else 2
        left -= taken
    return bytes(kept) + b"\0" * (len(kept) % 2)
