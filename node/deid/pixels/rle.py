"""RLE streams (PS3.5 Annex G): taken apart and put together from what decoders read and nothing else. Pure, on bytes.

A frame is a header of sixteen numbers, then a segment of PackBits runs for each byte of each sample. Decoders ignore

1. offsets and segments beyond those the pixels have, and what lies between header and segments,
2. what follows the run that completes a segment, and what that run has too much,
3. runs that say "no operation",
4. bits above those stored, which get zeros, or the sign.

There words can hide (a modality wrote patient data behind its last segment: fo-dicom PR 1589). None of it is written
again. Runs stay as they are, so decoded pixels do, and a frame that has nothing but its parts stays byte for byte.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from node.deid.pixels.layout import Layout, MalformedStream

RLE = "1.2.840.10008.1.2.5"
_HEADER = struct.Struct("<16L")
_MOST_SEGMENTS = 15
_NO_OPERATION = 128
_FAR = 1 << 40
# By a run's first byte: how long it is, and how many bytes it decodes to.
_STEPS = [number + 2 if number < _NO_OPERATION else 2 for number in range(256)]
_COUNTS = [number + 1 if number < _NO_OPERATION else 257 - number for number in range(256)]
_COUNTS[_NO_OPERATION] = _FAR


class Incomplete(MalformedStream):
    """The last segment ends before its pixels do: another fragment may hold the rest."""


def rebuilt(frame: bytes, layout: Layout) -> bytes:
    """One frame from its parts; the same object when it holds nothing else. Raises `MalformedStream`."""
    if len(frame) < _HEADER.size or not 0 < layout.segments <= _MOST_SEGMENTS:
        raise MalformedStream
    declared, *offsets = _HEADER.unpack_from(frame)
    if not layout.segments <= declared <= _MOST_SEGMENTS:
        raise MalformedStream
    size, planes = layout.segment_bytes, _planes(layout)
    starts = offsets[: layout.segments]
    ends = [*offsets[1:declared], len(frame)][: layout.segments]
    at, clean = _HEADER.size, declared == layout.segments and not any(offsets[declared:])
    for start, end, plane in zip(starts, ends, planes, strict=True):
        if not _HEADER.size <= start <= end <= len(frame):
            raise MalformedStream
        stop, left = _walk(frame, start, size)
        clean = clean and left == 0 and start == at and stop <= end
        clean = clean and frame[stop:end] == b"\0" * ((stop - start) % 2)
        clean = clean and (plane is None or not _strays(frame, start, stop, plane))
        at = end
    if clean:
        return frame
    parts = [_runs(frame, *place, size) for place in zip(starts, ends, planes, strict=True)]
    places, place = [], _HEADER.size
    for part in parts:
        places.append(place)
        place += len(part)
    unused = [0] * (_MOST_SEGMENTS - len(parts))
    return b"".join((_HEADER.pack(len(parts), *places, *unused), *parts))


def one_bit(frame: bytes, size: int) -> bytes:
    """What a frame's only segment decodes to, `size` bytes: for cells of one bit, eight to a byte, which no library
    decodes. Raises `MalformedStream`."""
    if len(frame) < _HEADER.size:
        raise MalformedStream
    declared, at, *_ = _HEADER.unpack_from(frame)
    if declared != 1 or at < _HEADER.size:
        raise MalformedStream
    found = bytearray()
    while len(found) < size:
        if at + 1 >= len(frame):
            raise MalformedStream
        number = frame[at]
        if number < _NO_OPERATION:
            found += frame[at + 1 : at + 2 + number]
        elif number > _NO_OPERATION:
            found += frame[at + 1 : at + 2] * _COUNTS[number]
        at += _STEPS[number] if number != _NO_OPERATION else 1
    return bytes(found[:size])


def masks(layout: Layout) -> bool:
    """Whether the bits that are not stored can be taken away: those above, where a byte has some of each or the cell
    has no sign."""
    above = layout.high_bit in (-1, layout.bits_stored - 1)
    return above and (not layout.signed or layout.bits_stored % 8 != 0 or layout.bits_stored == layout.bits_allocated)


@lru_cache(maxsize=16)
def _planes(layout: Layout) -> tuple[bytes | None, ...]:
    """For each segment, what its bytes become, by value; None where they stay. The most significant byte is first."""
    if layout.bits_allocated % 8 or layout.bits_stored == layout.bits_allocated or not masks(layout):
        return (None,) * layout.segments
    planes: list[bytes | None] = []
    for place in reversed(range(layout.bits_allocated // 8)):
        bits = min(max(layout.bits_stored - 8 * place, 0), 8)
        sign = 1 << bits - 1 if layout.signed and bits else 0
        table = bytes(((byte & (1 << bits) - 1) ^ sign) - sign & 0xFF for byte in range(256))
        planes.append(table if bits < 8 else None)
    return tuple(planes) * layout.samples


def _strays(frame: bytes, at: int, stop: int, plane: bytes) -> bool:
    """Whether a run decodes to a byte that must become another."""
    allowed = bytes(byte for byte in range(256) if plane[byte] == byte)
    while at < stop:
        number = frame[at]
        if frame[at + 1 : at + (number + 2 if number < _NO_OPERATION else 2)].translate(None, allowed):
            return True
        at += _STEPS[number]
    return False


def _walk(frame: bytes, at: int, left: int) -> tuple[int, int]:
    """(where the run that completes a segment ends, how many bytes less than wanted the runs until there decode to).

    A run that says "no operation" ends the walk with what no segment decodes to. Three steps a run, and most of what a
    frame costs.
    """
    steps, counts = _STEPS, _COUNTS
    try:
        while left > 0:
            number = frame[at]
            at += steps[number]
            left -= counts[number]
    except IndexError:
        return len(frame) + 1, left
    return at, left


def _runs(frame: bytes, at: int, end: int, plane: bytes | None, left: int) -> bytes:
    """The runs that decode to `left` bytes, the last cut to what is needed, padded to even length. (2) (3) (4)"""
    kept = bytearray()
    while left > 0:
        if at >= end:
            raise Incomplete if end == len(frame) else MalformedStream
        number = frame[at]
        if number == _NO_OPERATION:
            at += 1
            continue
        literal, count = number < _NO_OPERATION, _COUNTS[number]
        taken = min(count, left)
        if at + (1 + taken if literal else 2) > end:
            raise Incomplete if end == len(frame) else MalformedStream
        if literal or taken == 1:
            kept.append(taken - 1)
            kept += frame[at + 1 : at + 1 + taken].translate(plane)
        else:
            kept.append(257 - taken)
            kept += frame[at + 1 : at + 2].translate(plane)
        at += _STEPS[number]
        left -= taken
    return bytes(kept) + b"\0" * (len(kept) % 2)
