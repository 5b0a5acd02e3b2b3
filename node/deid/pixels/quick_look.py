"""A quick look at many slices of one shape: which of them may carry text, for some 10 ms a slice.

Letters are strokes: brighter or darker than what lies a few pixels to either side, and sharp. Organs are not.

1. Of each slice the strokes are taken, the bright and the dark (top-hat and black-hat, 9 px), at full and at half
   size: letters up to some 130 px.
2. What any slice has beyond what the slices have on average, becomes one picture, stretched to its own contrast: text
   on one slice of many stands on an empty ground there, faint letters too. Text on most of them is in that average, a
   picture of its own, if not on the middle slice, which is looked at as it is.
3. The text detector, without the recogniser, sees these pictures small. What it takes for text in what is beyond the
   average is suspected on the slice that has the most strokes there: asking twice would lose one name of twenty.
4. What it takes for text in the average or on the middle slice, where whole organs are, is asked again: cut out of the
   strokes, stretched to its own contrast, enlarged.
5. Whoever asked reads the slices that are suspected properly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from node.deid.pixels.frames import Values, picture
from node.deid.pixels.ocr import MIN_SIDE_PX, Picture

# The detector's cost grows with the square of it: 65 ms at 512, 100 ms at 640. Of 95 names on one of 16 slices it saw
# 86 at 512 in what is beyond the average, 88 at 640, 89 at 768 for twice the time.
SIDE_PX, NOVEL_PX, HALF_PX = 512, 640, 256
# Strokes of letters up to some 65 px are narrower.
STROKE_PX = 9
# What is thicker among the usual strokes is a body.
_LARGEST_PX = 130
# The darkest a dark stroke is told: bright letters beside dark ones keep their contrast.
_DARKEST = -64
# A slice that has half the strokes in a box has the same letters there, or others in their place.
_ALIKE = 0.5
# A cutting: room around the box, a frame of plain ground, letters enlarged to so many px, at most so many times.
_ROOM_PX, _FRAME_PX, _LETTERS_PX, _MOST_TIMES = 8, 12, 32, 3.0
# Less than so many grey levels is noise, and stays dark.
_STRETCH_PERCENT = (1, 99.5)
_LEAST_RANGE = 16.0


@dataclass(frozen=True)
class Patch:
    """A rectangle of a picture, ends exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def thickness(self) -> int:
        return min(self.right - self.left, self.bottom - self.top)

    def of(self, shown: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return shown[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Suspect:
    """Where a slice may have text: its place among those looked at, and in which of their strokes it was seen."""

    slice: int
    patch: Patch
    strokes: _Strokes


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
        side = min(slices[0].shape) if slices else 0
        self._strokes = [_Strokes(slices)] if side >= MIN_SIDE_PX else []
        if side >= 2 * MIN_SIDE_PX:
            self._strokes.append(_Strokes([_halved(one) for one in slices]))

    def suspects(self, without: Collection[int] = ()) -> list[Suspect]:
        """Slices that may have text; `without`: as if these were not there."""
        rest = [place for place in range(len(self._slices)) if place not in without]
        if not rest or not self._strokes:
            return []
        found: list[Suspect] = []
        whole, middle = self._strokes[0], rest[len(rest) // 2]
        for strokes in self._strokes:
            novel = self._find(strokes.novel(rest), NOVEL_PX if strokes is whole else HALF_PX)
            found += [Suspect(strokes.strongest(patch, rest), patch, strokes) for patch in novel]
        usual = [patch for patch in self._find(whole.usual(rest)) if patch.thickness <= _LARGEST_PX]
        unsure = [Suspect(whole.strongest(patch, rest), patch, whole) for patch in usual]
        unsure += [Suspect(middle, patch, whole) for patch in self._find(self._slices[middle])]
        return found + [one for one in unsure if self._shows_text(one)]

    def alike(self, suspect: Suspect, without: Collection[int] = ()) -> list[int]:
        """The slices with as many strokes in the same place."""
        amount, patch = suspect.strokes.amount, suspect.patch
        rest = [place for place in range(len(self._slices)) if place not in without]
        return [place for place in rest if amount(place, patch) >= _ALIKE * amount(suspect.slice, patch)]

    def _shows_text(self, suspect: Suspect) -> bool:
        """(4)"""
        cuttings = suspect.strokes.cuttings(suspect.slice, suspect.patch)
        return any(bool(self._find(shown, max(shown.shape))) for shown in cuttings)

    def _find(self, shown: Picture, side: int = SIDE_PX) -> list[Patch]:
        self.read += 1
        return self._detector.find(shown, side)


class _Strokes:
    """The bright and the dark strokes of slices."""

    def __init__(self, slices: Sequence[Picture]) -> None:
        kernel = np.ones((STROKE_PX, STROKE_PX), np.uint8)
        self._bright = [_hat(one, cv2.MORPH_TOPHAT, kernel) for one in slices]
        self._dark = [_hat(one, cv2.MORPH_BLACKHAT, kernel) for one in slices]

    def novel(self, places: Sequence[int]) -> Picture:
        """(2)"""
        bright, dark = (_beyond([hats[place] for place in places]) for hats in (self._bright, self._dark))
        return _stretched(np.maximum(bright - dark, _DARKEST))

    def usual(self, places: Sequence[int]) -> Picture:
        """What they have on average."""
        bright, dark = (_average([hats[place] for place in places]) for hats in (self._bright, self._dark))
        return _stretched(np.maximum(bright - dark, _DARKEST))

    def strongest(self, patch: Patch, places: Sequence[int]) -> int:
        return max(places, key=lambda place: self.amount(place, patch))

    def amount(self, place: int, patch: Patch) -> float:
        return float(patch.of(self._bright[place]).mean() + patch.of(self._dark[place]).mean())

    def cuttings(self, place: int, patch: Patch) -> Iterator[Picture]:
        return (_cutting(patch, hats[place]) for hats in (self._bright, self._dark))


def grey(frame: Values, low: float, high: float) -> Picture:
    """As `frames.picture`, ten times as fast for what slices are made of."""
    if frame.dtype not in (np.int16, np.uint16):
        return picture(frame, low, high)
    bounds, scale = np.iinfo(frame.dtype), 255.0 / (high - low)
    inside = np.clip(frame, max(bounds.min, int(np.ceil(low))), min(bounds.max, int(np.floor(high))))
    return np.asarray(cv2.convertScaleAbs(inside, alpha=scale, beta=-low * scale), dtype=np.uint8)


def _halved(one: Picture) -> Picture:
    return np.asarray(cv2.resize(one, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _hat(one: Picture, which: int, kernel: npt.NDArray[np.uint8]) -> Picture:
    return np.asarray(cv2.morphologyEx(one, which, kernel), dtype=np.uint8)


def _beyond(hats: Sequence[Picture]) -> npt.NDArray[np.float32]:
    """The most that any of them has, less what they have on average."""
    most = hats[0].copy()
    for hat in hats:
        np.maximum(most, hat, out=most)
    return np.asarray(most - _average(hats), dtype=np.float32)


def _average(hats: Sequence[Picture]) -> npt.NDArray[np.float32]:
    total = np.zeros(hats[0].shape, np.float32)
    for hat in hats:
        cv2.accumulate(hat, total)
    return np.asarray(total / len(hats), dtype=np.float32)


def _stretched(strokes: npt.NDArray[Any]) -> Picture:
    some = strokes[::2, ::2] if strokes.size > 1 << 16 else strokes
    low, high = np.percentile(some, _STRETCH_PERCENT)
    scaled = (strokes.astype(np.float32) - low) * (255 / max(high - low, _LEAST_RANGE))
    return np.asarray(np.clip(scaled, 0, 255), dtype=np.uint8)


def _cutting(patch: Patch, hats: Picture) -> Picture:
    """Strokes with some room around them, in their own contrast, letters as large as the detector likes them."""
    high = patch.bottom - patch.top
    room = max(_ROOM_PX, high // 2)
    cut = hats[max(0, patch.top - room) : patch.bottom + room, max(0, patch.left - room) : patch.right + room]
    times = min(_MOST_TIMES, max(1.0, _LETTERS_PX / high))
    larger = cv2.resize(_stretched(cut), None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    ground = int(np.median(larger))
    framed = cv2.copyMakeBorder(larger, _FRAME_PX, _FRAME_PX, _FRAME_PX, _FRAME_PX, cv2.BORDER_CONSTANT, value=ground)
    return np.asarray(framed, dtype=np.uint8)
