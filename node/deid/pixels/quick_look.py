"""A quick look at many slices of one shape: which of them may carry text, for some 3 ms a slice.

Letters are strokes: brighter or darker than what lies a few pixels to either side, and sharp. Organs are not.

1. Of each slice the strokes are taken, the bright and the dark (top-hat and black-hat, 9 px).
2. What any slice has beyond what the slices have on average, becomes one picture: text on one slice of many stands on
   an empty ground there. Text on all of them is in the average, and on the middle slice, which is looked at as it is.
3. The text detector, without the recogniser, sees both pictures small. Each box is cut out of the slice with the most
   strokes in it, stretched to its own contrast, laid beside the others, and the detector asked again.
4. What it still takes for text is suspected there: whoever asked reads that slice properly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from node.deid.pixels.frames import Values, picture
from node.deid.pixels.ocr import MIN_SIDE_PX, Picture

# The detector's cost grows with the square of it: 65 ms here, 260 ms at 960. Letters of 10 px on a slice of 512 are
# found here as often as at 768.
SIDE_PX = 512
# Strokes of letters up to some 60 px are narrower.
STROKE_PX = 9
# The ground of a picture of strokes: room for dark ones below it.
_GROUND = 64
# A slice that has half the strokes in a box has the same letters there, or others in their place.
_ALIKE = 0.5
_MOSAIC_PX = (1024, 512)
_GAP_PX = 4
_STRETCH_PERCENT = (1, 99.5)
_LEAST_RANGE = 16.0


@dataclass(frozen=True)
class Patch:
    """A rectangle of a picture, ends exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, shown: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return shown[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Suspect:
    """Where a slice may have text: its place among those looked at."""

    slice: int
    patch: Patch


class Detector(Protocol):
    """Sees where text may stand, and reads none of it."""

    def find(self, shown: Picture, side: int = SIDE_PX) -> list[Patch]:
        """In a copy whose longer side is `side`."""


class SmallDetector:
    """The text engine's detector."""

    def __init__(self, engine: Any) -> None:
        """`engine`: the detector of `RapidReader`."""
        self._engine = engine

    def find(self, shown: Picture, side: int = SIDE_PX) -> list[Patch]:
        rows, columns = shown.shape
        ratio = side / max(rows, columns)
        size = [max(32, round(length * ratio / 32) * 32) for length in (columns, rows)]  # what the network takes
        small = cv2.resize(shown, size, interpolation=cv2.INTER_CUBIC if ratio > 1 else cv2.INTER_AREA)
        cells = small.astype(np.float32) / 127.5 - 1
        seen = self._engine.infer(np.ascontiguousarray(np.broadcast_to(cells, (1, 3, *small.shape))))[0]
        corners, _scores = self._engine.postprocess_op(seen, (rows, columns))
        found = []
        for four in corners:
            (left, top), (right, bottom) = np.min(four, axis=0), np.max(four, axis=0)
            patch = Patch(max(0, int(left)), max(0, int(top)), min(columns, int(right)), min(rows, int(bottom)))
            if patch.right - patch.left > 3 and patch.bottom - patch.top > 3:  # as the engine itself has it
                found.append(patch)
        return found


class QuickLook:
    """The strokes of some slices of one shape, and what was suspected in them. `read` counts the pictures it saw."""

    def __init__(self, detector: Detector, slices: Sequence[Picture]) -> None:
        self._detector = detector
        self._slices = slices
        self.read = 0
        legible = bool(slices) and min(slices[0].shape) >= MIN_SIDE_PX
        kernel = np.ones((STROKE_PX, STROKE_PX), np.uint8)
        self._bright = [_hat(one, cv2.MORPH_TOPHAT, kernel) for one in slices if legible]
        self._dark = [_hat(one, cv2.MORPH_BLACKHAT, kernel) for one in slices if legible]

    def suspects(self, without: Collection[int] = ()) -> list[Suspect]:
        """Slices that may have text; `without`: as if these were not there."""
        rest = [place for place in range(len(self._bright)) if place not in without]
        if not rest:
            return []
        middle = rest[len(rest) // 2]
        novel = self._find(self._novel(rest))
        candidates = [Suspect(self._strongest(patch, rest), patch) for patch in novel]
        candidates += [Suspect(middle, patch) for patch in self._find(self._slices[middle])]
        return self._confirmed(candidates) if candidates else []

    def alike(self, suspect: Suspect, without: Collection[int] = ()) -> list[int]:
        """The slices with as many strokes in the same place."""
        there = self._strokes(suspect.slice, suspect.patch)
        return [
            place
            for place in range(len(self._bright))
            if place not in without and self._strokes(place, suspect.patch) >= _ALIKE * there
        ]

    def _find(self, shown: Picture, side: int = SIDE_PX) -> list[Patch]:
        self.read += 1
        return self._detector.find(shown, side)

    def _novel(self, rest: Sequence[int]) -> Picture:
        """(2)"""
        bright, dark = (_beyond([hats[place] for place in rest]) for hats in (self._bright, self._dark))
        return np.asarray(np.clip(_GROUND + bright - dark, 0, 255), dtype=np.uint8)

    def _strongest(self, patch: Patch, rest: Sequence[int]) -> int:
        return max(rest, key=lambda place: self._strokes(place, patch))

    def _strokes(self, place: int, patch: Patch) -> float:
        return float(patch.of(self._bright[place]).mean() + patch.of(self._dark[place]).mean())

    def _confirmed(self, candidates: Sequence[Suspect]) -> list[Suspect]:
        """(3)"""
        kept: list[Suspect] = []
        waiting = list(candidates)
        while waiting:
            mosaic = _Mosaic()
            laid = [one for one in waiting if mosaic.lay(_stretched(one.patch, self._slices[one.slice]))]
            waiting = waiting[len(laid) :]
            shown = mosaic.shown()
            seen = self._find(shown, max(shown.shape))
            kept += [one for one, place in zip(laid, mosaic.places, strict=True) if _any_in(place, seen)]
        return kept


class _Mosaic:
    """Cuttings laid on shelves. Once one does not fit, none does."""

    def __init__(self) -> None:
        self._canvas = np.zeros(_MOSAIC_PX, np.uint8)
        self.places: list[Patch] = []
        self._left = self._top = self._shelf = 0
        self._full = False

    def lay(self, cutting: Picture) -> bool:
        rows, columns = cutting.shape
        if self._left and self._left + columns > _MOSAIC_PX[1]:
            self._left, self._top, self._shelf = 0, self._top + self._shelf + _GAP_PX, 0
        self._full |= bool(self.places) and self._top + rows > _MOSAIC_PX[0]
        if self._full:
            return False
        place = Patch(self._left, self._top, self._left + columns, self._top + rows)
        place.of(self._canvas)[...] = cutting
        self.places.append(place)
        self._left, self._shelf = self._left + columns + _GAP_PX, max(self._shelf, rows)
        return True

    def shown(self) -> Picture:
        columns = max(place.right for place in self.places)
        return self._canvas[: self._top + self._shelf, :columns]


def grey(frame: Values, low: float, high: float) -> Picture:
    """As `frames.picture`, ten times as fast for what slices are made of."""
    if frame.dtype not in (np.int16, np.uint16):
        return picture(frame, low, high)
    bounds, scale = np.iinfo(frame.dtype), 255.0 / (high - low)
    inside = np.clip(frame, max(bounds.min, int(np.ceil(low))), min(bounds.max, int(np.floor(high))))
    return np.asarray(cv2.convertScaleAbs(inside, alpha=scale, beta=-low * scale), dtype=np.uint8)


def _hat(one: Picture, which: int, kernel: npt.NDArray[np.uint8]) -> Picture:
    return np.asarray(cv2.morphologyEx(one, which, kernel), dtype=np.uint8)


def _beyond(hats: Sequence[Picture]) -> npt.NDArray[np.float32]:
    """The most that any of them has, less what they have on average."""
    most, total = hats[0].copy(), np.zeros(hats[0].shape, np.float32)
    for hat in hats:
        np.maximum(most, hat, out=most)
        cv2.accumulate(hat, total)
    return most - total / len(hats)


def _stretched(patch: Patch, shown: Picture) -> Picture:
    """A cutting with some room around it, in its own contrast, at most as large as a mosaic."""
    room = max(8, (patch.bottom - patch.top) // 2)
    top, left = max(0, patch.top - room), max(0, patch.left - room)
    cut = shown[top : patch.bottom + room, left : patch.right + room]
    if cut.shape[0] > _MOSAIC_PX[0] or cut.shape[1] > _MOSAIC_PX[1]:
        ratio = min(_MOSAIC_PX[0] / cut.shape[0], _MOSAIC_PX[1] / cut.shape[1])
        size = [max(1, int(side * ratio)) for side in cut.shape[::-1]]
        cut = np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    low, high = np.percentile(cut, _STRETCH_PERCENT)
    scaled = (cut.astype(np.float32) - low) * (255 / max(high - low, _LEAST_RANGE))
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def _any_in(place: Patch, seen: Sequence[Patch]) -> bool:
    centres = [((one.left + one.right) / 2, (one.top + one.bottom) / 2) for one in seen]
    return any(place.left <= x <= place.right and place.top <= y <= place.bottom for x, y in centres)
