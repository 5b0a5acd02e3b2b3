"""A second look at what the detector took for text and the recogniser could not name: is it drawn, or anatomy?

A detector that knows no script finds letters in any; but it finds them in ribs, rings and speckle too. What somebody
drew is different from what a scanner saw, in three ways that need no training of ours:

1. It is large enough to be read: letters under `LEGIBLE_PX` are not. And it is a line: what is higher than half the
   picture leaves no room for the letters of a name beside one another.
2. It has thin strokes, and their edges are a pixel or two wide, since it was drawn on the pixels themselves. Anatomy
   came through a beam, a coil or a transducer, which spread every edge over more of them.
3. It is text at another size, turned by a quarter, or in another window. Anatomy that resembles letters at one size is
   a blob at another.

A box that fails one of them is anatomy; any other is for a person. Cost: a few crops of at most `_CROP_PX` pixels each
way, some 10 to 40 ms a box, only where the recogniser was at a loss.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Bounds = tuple[int, int, int, int]
"""Left, top, right, bottom, ends exclusive."""
Detector = Callable[[Grey], npt.NDArray[np.float32]]
"""How likely each pixel of a grey picture belongs to text, in the picture's own size."""

# Latin capitals of six pixels are the smallest that can be read; the detector's boxes are larger than the letters.
LEGIBLE_PX = 6
_HIGHEST = 0.5
# Heights to look at again, and quarter turns: text of 60 pictures out of 60 was seen at one of them at least, 9 in 10
# of the false boxes of 76 pictures without any at none.
_LOOKS = ((40, 0), (72, 0), (24, 0), (40, 1), (72, 1))
_CROP_PX = 640
# One look is enough of what is as crisp as letters are; else two must agree, of these and of as many in a window of the
# box's own, where large letters fare better. A vessel is too small for that: a narrow window makes a letter of it.
_CRISP = 0.75
_WINDOWED_PX = 20
# Of the box, so much must be text again; letters with their gaps are some 0.2 to 0.4.
_SEEN_AGAIN = 0.05
_LIKELY = 0.3
# The step across three pixels at the edge, as a share of the ink's height. Drawn letters 0.6 (faint ones on noise) to
# 1; anatomy 0.2 to 0.5, and more where noise is as strong as itself, which then is nothing at another size.
_SHARP = 0.55
# Of the box and what lies beside it, strokes are 0.04 or more; of a ring or a spot, 0.02 or less.
_LEAST_INK = 0.03
# Strokes are thinner than this share of a line's height: what is wider is ground.
_STROKE = 0.35
# The evened picture: each place by the mean and deviation of what is around it, a 24th of the picture wide.
_AROUND = 24
_LEAST_AROUND_PX = 15
# Grey levels a deviation: three on either side show.
_CONTRAST = 42.0

_CROSS = np.ones((3, 3), np.uint8)


def evened(picture: Grey) -> Grey:
    """The picture with the same contrast everywhere, so that faint letters stand out as bright ones do.

    Where nothing is but noise, the fifth of the picture that is calmest says how much noise is no letter.
    """
    if picture.ndim == 3:
        return np.dstack([evened(np.ascontiguousarray(picture[:, :, plane])) for plane in range(picture.shape[2])])
    values = picture.astype(np.float32)
    wide = max(_LEAST_AROUND_PX, min(picture.shape) // _AROUND | 1)
    above = values - cv2.blur(values, (wide, wide))
    deviation = np.sqrt(np.maximum(cv2.blur(above * above, (wide, wide)), 0))
    calm = max(float(np.percentile(deviation[::4, ::4], 20)), 0.5)
    return np.asarray(np.clip(128 + _CONTRAST * above / (deviation + calm), 0, 255), dtype=np.uint8)


def is_drawn(picture: Grey, even: Grey, bounds: Bounds, detect: Detector) -> bool:
    """Whether what is in the box was drawn there. `even`: the picture evened; both grey."""
    left, top, right, bottom = bounds
    short = min(right - left, bottom - top)
    if short < LEGIBLE_PX or short > _HIGHEST * min(picture.shape):
        return False  # (1)
    sharp = sharpness(picture, bounds)
    if sharp < _SHARP:
        return False  # (2)
    again = sum(_seen_again(even, bounds, height, turns, detect) for height, turns in _LOOKS)  # (3)
    if again and (again > 1 or sharp >= _CRISP):
        return True
    if short < _WINDOWED_PX:
        return False
    part, within = _stretched(picture, bounds)
    return again + sum(_seen_again(part, within, height, turns, detect) for height, turns in _LOOKS) > 1


def sharpness(picture: Grey, bounds: Bounds) -> float:
    """(2) The step across the edges of thin strokes in the box, as a share of their height above the ground.

    Strokes are what a closing or opening of their width takes away, brighter or darker than the ground, whichever
    parts the box better into ink and ground.
    """
    left, top, right, bottom = bounds
    beside = max(3, min(right - left, bottom - top) // 4)
    part = picture[max(0, top - beside) : bottom + beside, max(0, left - beside) : right + beside].astype(np.float32)
    wide = max(5, int(min(part.shape) * _STROKE) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    step = cv2.dilate(part, _CROSS) - cv2.erode(part, _CROSS)
    best, sharp = 0.0, 0.0
    for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        height = np.asarray(cv2.morphologyEx(part, kind, kernel), dtype=np.float32)
        ink, parted = _parted(height)
        edge = cv2.dilate(ink, _CROSS) != cv2.erode(ink, _CROSS)
        if parted > best and edge.any():
            best, sharp = parted, 0.0
            if ink.mean() < _LEAST_INK:
                continue
            sharp = float(np.median(step[edge])) / max(float(np.percentile(height[ink > 0], 80)), 1e-6)
    return sharp


def _parted(height: npt.NDArray[np.float32]) -> tuple[Grey, float]:
    """Ink and ground by Otsu's threshold, and the share of the variance that lies between them."""
    low, high = (float(value) for value in np.percentile(height, (0.5, 99.8)))
    if high <= low:
        return np.zeros(height.shape, np.uint8), 0.0
    levels = np.asarray(np.clip((height - low) * (255 / (high - low)), 0, 255), dtype=np.uint8)
    _threshold, ink = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    share = float(ink.mean())
    if not 0 < share < 1:
        return np.zeros(height.shape, np.uint8), 0.0
    between = share * (1 - share) * float(levels[ink > 0].mean() - levels[ink == 0].mean()) ** 2
    return np.asarray(ink, dtype=np.uint8), between / max(float(levels.var()), 1e-6)


def _seen_again(grey: Grey, bounds: Bounds, height: int, turns: int, detect: Detector) -> bool:
    """(3) The box with what is around it, its shorter side `height` pixels, turned by quarters."""
    left, top, right, bottom = bounds
    short = min(right - left, bottom - top)
    part, (at_x, at_y) = _part(grey, bounds)
    scale = min(height / short, _CROP_PX / max(part.shape))
    # the network takes multiples of 32
    size = tuple(max(32, round(side * scale / 32) * 32) for side in part.shape[::-1])
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    shown = np.rot90(cv2.resize(part, size, interpolation=method), turns)
    likely = np.rot90(detect(np.ascontiguousarray(shown)), -turns) > _LIKELY
    down, across = likely.shape[0] / part.shape[0], likely.shape[1] / part.shape[1]
    inside = likely[
        int((top - at_y) * down) : max(int((bottom - at_y) * down), int((top - at_y) * down) + 1),
        int((left - at_x) * across) : max(int((right - at_x) * across), int((left - at_x) * across) + 1),
    ]
    return bool(inside.size) and float(inside.mean()) > _SEEN_AGAIN


def _part(grey: Grey, bounds: Bounds) -> tuple[Grey, tuple[int, int]]:
    """The box and what lies around it, and where that begins."""
    left, top, right, bottom = bounds
    beside = int(0.8 * min(right - left, bottom - top)) + 4
    at_x, at_y = max(0, left - beside), max(0, top - beside)
    return grey[at_y : bottom + beside, at_x : right + beside], (at_x, at_y)


def _stretched(picture: Grey, bounds: Bounds) -> tuple[Grey, Bounds]:
    """The box and what lies around it, in the window of what is in the box, and the box in it."""
    left, top, right, bottom = bounds
    part, (at_x, at_y) = _part(picture, bounds)
    low, high = (float(value) for value in np.percentile(picture[top:bottom, left:right], (2, 99.5)))
    shown = np.clip((part.astype(np.float32) - low) * (255 / max(high - low, 1.0)), 0, 255)
    return np.asarray(shown, dtype=np.uint8), (left - at_x, top - at_y, right - at_x, bottom - at_y)
