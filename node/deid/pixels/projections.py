"""A few pictures that stand for many frames: text on any one of them stands out in at least one.

Bright text shows in the maximum, dark text in the minimum; text on bright anatomy that moves shows where the maximum
rises above what is usually there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from node.deid.pixels.ocr import Picture

# In more frames than that, what moves paints over what stands still.
CHUNK_FRAMES = 32
# So many frames are as quickly read one by one.
FEW_FRAMES = 6


def chunks(count: int) -> list[range]:
    """Frames 0 to `count` in runs of at most `CHUNK_FRAMES`, of nearly equal length."""
    parts = -(-count // CHUNK_FRAMES)
    bounds = [count * part // parts for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]


def runs_alike(
    spots: Iterable[tuple[int, int]], shape: Callable[[tuple[int, int]], tuple[int, ...]], most_pixels: int
) -> Iterator[list[tuple[int, int]]]:
    """Frames (file, frame) of one shape (rows, columns, …) in chunks, of at most `most_pixels` together."""
    for (rows, columns, *_rest), same in groupby(sorted(spots, key=lambda spot: (shape(spot), spot)), key=shape):
        alike, most = list(same), max(1, most_pixels // (rows * columns))
        for run in chunks(len(alike)):
            for start in range(run.start, run.stop, most):
                yield alike[start : min(start + most, run.stop)]


def projections(pictures: Sequence[Picture]) -> list[Picture]:
    """Maximum, minimum, and maximum less median (stretched) of pictures of one shape."""
    stack = np.stack(pictures)
    highest, lowest = stack.max(axis=0), stack.min(axis=0)
    middle = len(pictures) // 2
    median = np.partition(stack, middle, axis=0)[middle]
    above = highest - np.minimum(highest, median)
    most = int(above.max())
    if most:
        above = (above.astype(np.uint16) * 255 // most).astype(np.uint8)
    return [highest, lowest, above]


def landmarks(count: int) -> tuple[int, ...]:
    """First, middle and last frame."""
    return tuple(sorted({0, count // 2, count - 1}))
