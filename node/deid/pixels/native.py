"""The value of a native pixel element without what no decoder reads of it: bits of a cell that are not stored.

Old overlays are drawn in the bits above BitsStored (PS3.5 8.1.2 until 2004), and so may words be. Unsigned cells get
zeros there, signed ones their sign. A megabyte at a time; what has no such bits set is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from node.deid.pixels.fragments import Bytes

_STEP = 1 << 20
# Bits of cells that can be masked.
MASKABLE = frozenset({8, 16, 32, 64})
Cells = npt.NDArray[Any]


@dataclass(frozen=True)
class CellForm:
    """A cell: `allocated` bits, of which `stored` end with bit `high`."""

    allocated: int
    stored: int
    high: int
    signed: bool
    little: bool

    def __post_init__(self) -> None:
        if not self.stored - 1 <= self.high < self.allocated:
            object.__setattr__(self, "high", self.stored - 1)  # as decoders take it

    @property
    def lowest(self) -> int:
        return self.high - self.stored + 1

    @property
    def has_spare_bits(self) -> bool:
        """Whether there are bits that are not stored, in cells that can be masked."""
        return self.allocated in MASKABLE and 0 < self.stored < self.allocated

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{'<' if self.little else '>'}{'i' if self.signed else 'u'}{self.allocated // 8}")

    def masked(self, cells: Cells) -> Cells:
        """The stored bits alone: the same object when no other is set."""
        if self.lowest == 0:
            high = (1 << self.stored - self.signed) - 1
            if int(cells.max()) <= high and (not self.signed or int(cells.min()) >= -high - 1):
                return cells
        kept = cells << (self.allocated - 1 - self.high) >> (self.allocated - self.stored) << self.lowest
        return cells if np.array_equal(kept, cells) else kept.astype(cells.dtype)


def masked_blocks(stream: Bytes, start: int, end: int, form: CellForm) -> Iterator[tuple[bytes, bytes]]:
    """(the bytes as they are, the bytes as they are written), in order. A file that grew shorter gives fewer."""
    size = form.allocated // 8
    for at in range(start, end, _STEP):
        block = stream.read(at, min(_STEP, end - at))
        whole = len(block) - len(block) % size
        cells = np.frombuffer(block, form.dtype, whole // size)
        kept = form.masked(cells) if whole else cells
        yield block, block if kept is cells else kept.tobytes() + block[whole:]
