"""What a header says of its pixels, as far as their containers are checked against it. A number that is none is 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

# What may stand behind a word to the end of a scan: blanks, zeros, fill bytes.
FILL = b"\0\t\n\v\f\r \xff"


class MalformedStream(Exception):
    """The stream is not what its syntax and its header say it is."""


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

    @property
    def segments(self) -> int:
        """Of one RLE frame: one for each byte of each sample (PS3.5 G.2)."""
        return self.samples * math.ceil(self.bits_allocated / 8)

    @property
    def segment_bytes(self) -> int:
        """What each of them decodes to."""
        return math.ceil(self.rows * self.columns * min(self.bits_allocated, 8) / 8)
