"""What a header says of its pixels, as far as their containers are checked against it. A number that is none is 0."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# What may stand behind a word to the end of a scan: blanks, zeros, fill bytes.
FILL = b"\0\t\n\v\f\r \xff"


class MalformedStream(Exception):
    """The stream is not what its syntax and its header say it is."""


@dataclass
class Counting:
    """How many bytes of coded data may still be counted symbol by symbol, which takes a second or two a megabyte."""

    left: int = 1 << 25

    def spend(self, size: int) -> None:
        """Raises `MalformedStream`."""
        self.left -= size
        if self.left < 0:
            raise MalformedStream

    def begin(self, value_bytes: int) -> None:
        """For a pixel value of this size: four times as much as ends in text by chance, or what a minute does."""
        self.left = max(1 << 25, value_bytes // 4)


@dataclass(frozen=True)
class Layout:
    """Frames of `rows` by `columns` cells of `samples`; `extended_offsets` is the value of (7FE0,0001), which decoders
    prefer to the offset table."""

    frames: int
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool = False
    high_bit: int = -1  # -1: the last of the stored ones
    extended_offsets: bytes = b""
    counting: Counting = field(default_factory=Counting, compare=False, repr=False)

    @property
    def segments(self) -> int:
        """Of one RLE frame: one for each byte of each sample (PS3.5 G.2)."""
        return self.samples * math.ceil(self.bits_allocated / 8)

    @property
    def segment_bytes(self) -> int:
        """What each of them decodes to."""
        return math.ceil(self.rows * self.columns * min(self.bits_allocated, 8) / 8)
