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
    starts = offsets[: layout.segments]
    ends = [*offsets[1:declared], len(frame)][: layout.segments]
    at, clean = _HEADER.size, declared == layout.segments and not any(offsets[declared:])
    for start, end in zip(starts, ends, strict=True):
        if not _HEADER.size <= start <= end <= len(frame):
            raise MalformedStream
        stop, left = _walk(frame, start, layout.segment_bytes)
        clean = clean and left == 0 and start == at and stop <= end
        clean = clean and frame[stop:end] == b"\0" * ((stop - start) % 2)
        at = end
    if clean:
        return frame
    parts = [_runs(frame, start, end, layout.segment_bytes) for start, end in zip(starts, ends, strict=True)]
    places, place = [], _HEADER.size
    for part in parts:
        places.append(place)
        place += len(part)
    unused = [0] * (_MOST_SEGMENTS - len(parts))
    return b"".join((_HEADER.pack(len(parts), *places, *unused), *parts))


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


def _runs(frame: bytes, at: int, end: int, left: int) -> bytes:
    """The runs that decode to `left` bytes, the last cut to what is needed, padded to even length. (2) (3)"""
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
            kept += frame[at + 1 : at + 1 + taken]
        else:
            kept.append(257 - taken)
            kept.append(frame[at + 1])
        at += _STEPS[number]
        left -= taken
    return bytes(kept) + b"\0" * (len(kept) % 2)
