"""Frames that were deflated one by one (PS3.5 A.4.13, Deflated Image Frame Compression), as the native value they are.

Few programs read the syntax, and a deflate stream has places of its own for words; so what is written is explicit VR
little endian, as for a deflated dataset. A frame is inflated up to its length and not a byte further; what follows its
stream in the fragment is nothing. Frames of one bit whose length is no whole number of bytes are joined bit by bit.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace

import numpy as np

from mediator.deid.screening import Exclusion, Note
from node.deid.facts import layout_of
from node.deid.pixels.fragments import MAX_FRAME_BYTES, items
from node.deid.pixels.layout import MalformedStream
from node.deid.reader import Parsed
from node.deid.stream import COPY_BYTES, READ_BYTES, Hash, MemoryStream, Stream
from node.deid.structure import EXPLICIT, MAX_INFLATED_BYTES, Unreadable

# The longest value that a native element can have: its length is 32 bits, and all ones say something else.
MAX_NATIVE_BYTES = (1 << 32) - 2


def inflated(parsed: Parsed) -> Parsed:
    """The same file with native pixels. Raises `Unreadable`."""
    pixels, layout = parsed.pixels, layout_of(parsed)
    if pixels is None:
        return replace(parsed, syntax=EXPLICIT)
    bits = layout.rows * layout.columns * layout.samples * layout.bits_allocated
    try:
        places = list(items(parsed.stream, pixels.start, pixels.end))[1:]
        if len(places) != layout.frames or not bits or layout.bits_allocated not in (1, 8, 16, 32):
            raise MalformedStream
        if bits > 8 * MAX_FRAME_BYTES or bits * len(places) > 8 * MAX_NATIVE_BYTES:
            raise Unreadable(Exclusion.INFLATE_LIMIT)
        frames = Frames(parsed.stream, places, -(-bits // 8))
        stream: Stream = frames if bits % 8 == 0 else MemoryStream(_joined(frames, layout.frames, bits))
    except MalformedStream:
        raise Unreadable(Exclusion.PIXELS_INCONSISTENT) from None
    value = replace(pixels, vr="OB" if layout.bits_allocated <= 8 else "OW", start=0, end=stream.size, fragments=None)
    return replace(parsed, syntax=EXPLICIT, stream=stream, pixels=value, notes=(*parsed.notes, Note.FRAMES_INFLATED))


class Frames:
    """Implements `Stream`: the frames' plain bytes, one after the other; one frame at a time is in memory."""

    def __init__(self, stream: Stream, places: list[tuple[int, int]], length: int) -> None:
        self._stream = stream
        self._places = places
        self._length = length
        self._last: tuple[int, bytes] | None = None
        self.size = length * len(places)

    def frame(self, number: int) -> bytes:
        """Raises `MalformedStream`."""
        if self._last is None or self._last[0] != number:
            machine = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                plain = machine.decompress(self._stream.read(*self._places[number]), self._length + 1)
            except zlib.error:
                raise MalformedStream from None
            if len(plain) != self._length or not machine.eof:
                raise MalformedStream
            self._last = number, plain
        return self._last[1]

    def read(self, at: int, length: int) -> bytes:
        parts: list[bytes] = []
        end = min(at + length, self.size)
        while at < end:
            number, inside = divmod(at, self._length)
            parts.append(self.frame(number)[inside : inside + end - at])
            at += len(parts[-1])
        return b"".join(parts)

    def copy(self, at: int, length: int, target: int, machine: Hash | None = None) -> int:
        done = 0
        while done < length:
            part = memoryview(self.read(at + done, min(READ_BYTES, length - done)))
            if not part:
                break
            if machine is not None:
                machine.update(part)
            done += len(part)
            while part:
                part = part[os.write(target, part[:COPY_BYTES]) :]
        return done


def _joined(frames: Frames, count: int, bits: int) -> bytes:
    if bits * count > MAX_INFLATED_BYTES:
        raise Unreadable(Exclusion.INFLATE_LIMIT)
    plain = [
        np.unpackbits(np.frombuffer(frames.frame(number), np.uint8), count=bits, bitorder="little")
        for number in range(count)
    ]
    return np.packbits(np.concatenate(plain), bitorder="little").tobytes()
