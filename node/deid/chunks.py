"""What stands in the output for an element, or for some items of a large sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of the output, values in them that are beyond doubt, texts and numbers that were kept.

    A long value of a large sequence is a place in the bytes, so that it is not in memory twice. `missed`: (tag, private
    creator) of what the profile means to keep and nothing is left of.
    """

    raw: bytes
    trusted: tuple[bytes | memoryview, ...] = ()
    kept: tuple[bytes, ...] = ()
    numbers: tuple[bytes, ...] = ()
    missed: tuple[tuple[int, str], ...] = ()


NOTHING = Chunk(b"")


def placed(raw: bytes, value: bytes | memoryview, longest: int) -> bytes | memoryview:
    """A value that stands in `raw`: itself up to a length, else its place."""
    if len(value) <= longest or (at := raw.find(value)) < 0:
        return value
    return memoryview(raw)[at : at + len(value)]


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Neighbours as one. A place in one of them is a place in all of them."""
    several = [chunk for chunk in chunks if chunk.raw or chunk.missed]
    if len(several) < 2:
        return several[0] if several else NOTHING
    raw = b"".join(chunk.raw for chunk in several)
    whole, at = memoryview(raw), 0
    trusted: list[bytes | memoryview] = []
    for chunk in several:
        for value in chunk.trusted:
            if isinstance(value, memoryview):
                place = at + chunk.raw.find(value)
                value = whole[place : place + len(value)]
            trusted.append(value)
        at += len(chunk.raw)
    kept = tuple(text for chunk in several for text in chunk.kept)
    numbers = tuple(number for chunk in several for number in chunk.numbers)
    return Chunk(raw, tuple(trusted), kept, numbers, tuple(one for chunk in several for one in chunk.missed))
