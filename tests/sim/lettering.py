"""Names in many scripts, drawn into pictures of many kinds: what a reader of burned-in text is measured on.

Fonts of Debian, found where they are installed: fonts-noto-core (SIL Open Font License), fonts-wqy-microhei (Apache 2.0
or GPL 3 with the font exception) for kana, Chinese characters and hangul.

A case is legible to a person who may choose the window: letters differ from what is around them by four standard
deviations of it or more.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tests.sim.pictures import cr, ct, mg, mr, pt, sc, us

PACKAGES = ("fonts-noto-core", "fonts-wqy-microhei")
_NOTO = Path("/usr/share/fonts/truetype/noto")
_MICROHEI = Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc")
# script: font, names and other words, the least size in pixels at which its letters can be told apart
SCRIPTS: dict[str, tuple[Path, tuple[str, ...], int]] = {
    "latin": (
        _NOTO / "NotoSans-Regular.ttf",
        ("JANSEN WILHELMINA", "de Vries, Anna", "1931-05-03 HART", "Bos 31"),
        10,
    ),
    "cyrillic": (_NOTO / "NotoSans-Regular.ttf", ("ИВАНОВА МАРИЯ", "Кузнецов Пётр", "Жук Я"), 10),
    "greek": (_NOTO / "NotoSans-Regular.ttf", ("ΠΑΠΑΔΟΠΟΥΛΟΣ", "Ελένη Νικολάου", "Ρήγας"), 10),
    "hiragana": (_MICROHEI, ("やまだ たろう", "さとう はなこ", "すずき"), 14),
    "katakana": (_MICROHEI, ("ヤマダ タロウ", "サトウ ハナコ", "スズキ"), 14),
    "han": (_MICROHEI, ("山田太郎", "李小龙 王芳", "佐藤花子"), 14),
    "hangul": (_MICROHEI, ("김영희 박철수", "이순신", "최민정"), 14),
    "arabic": (_NOTO / "NotoNaskhArabic-Regular.ttf", ("محمد علي", "فاطمة الزهراء", "علي"), 14),
    "hebrew": (_NOTO / "NotoSansHebrew-Regular.ttf", ("יוסף כהן", "מרים לוי", "דוד"), 12),
    "thai": (_NOTO / "NotoSansThai-Regular.ttf", ("สมชาย ใจดี", "มาลี ทองคำ", "วิชัย"), 14),
    "devanagari": (_NOTO / "NotoSansDevanagari-Regular.ttf", ("राजेश कुमार", "सुनीता देवी", "अमित"), 14),
}
KINDS = {"CT": ct, "MR": mr, "PT": pt, "US": us, "CR": cr, "MG": mg, "OT": sc}
SLICES = {"CT": ct, "MR": mr, "PT": pt}
HEIGHTS = (10, 12, 16, 24, 40)
CONTRASTS = ("white", "bright", "faint", "veil", "black")
ANGLES = (0, 90, 0, 180, 0, 270, 0, 5, 0, -8)
LEGIBLE = 4.0
# A series of so many slices is read by its projections.
SERIES = 8


@dataclass(frozen=True)
class Case:
    """One study with a name in it. `slices`: 1, or a series in which one slice or all have the name."""

    script: str
    kind: str
    height: int
    contrast: str
    angle: int
    slices: str
    seed: int


def cases(rounds: int = 7) -> Iterator[Case]:
    """Each script on each kind, `rounds` times; the other dimensions in equal parts, shuffled."""
    both = [(script, kind) for _turn in range(rounds) for script in SCRIPTS for kind in KINDS]
    random = np.random.default_rng(9)
    heights, contrasts, angles, slices = (
        random.permutation(np.resize(values, len(both))).tolist()
        for values in (HEIGHTS, CONTRASTS, ANGLES, ("one", "one", "one", "first", "one", "all"))
    )
    for seed, (script, kind) in enumerate(both):
        height = max(SCRIPTS[script][2], heights[seed])
        many = slices[seed] if kind in SLICES else "one"
        yield Case(script, kind, height, contrasts[seed], angles[seed], many, seed)


def missing_fonts() -> list[Path]:
    return sorted({font for font, _words, _least in SCRIPTS.values() if not font.exists()})


def letters(case: Case, room: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Ink from 0 to 1, in the smallest rectangle: of a text that has room."""
    path, words, _least = SCRIPTS[case.script]
    texts = (words[case.seed // 7 % len(words)], *sorted(words, key=len))
    inks = (ink_of(text, path, case.height, case.angle) for text in texts)
    return next(ink for ink in inks if ink.shape[0] < room[0] and ink.shape[1] < room[1])


def ink_of(text: str, path: Path, height: int, angle: int = 0) -> npt.NDArray[np.float32]:
    """A text's ink in a font, turned by degrees."""
    font = ImageFont.truetype(str(path), height)
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, fill=255, font=font)
    if angle:
        canvas = canvas.rotate(angle, expand=True, resample=Image.Resampling.BICUBIC)
    return np.asarray(canvas, dtype=np.float32) / 255


def study(case: Case) -> tuple[list[npt.NDArray[np.generic]], list[npt.NDArray[np.bool_]], bool]:
    """The frames of a case, which pixels of each are letters, and whether a person could read them at all: black
    letters on speckle are lost."""
    if case.slices == "one":
        frames, drawn = [_without(case.kind, case.seed % 8).copy()], [0]
    else:
        frames = [_without(case.kind, case.seed % 8, level).copy() for level in range(SERIES)]
        drawn = [1 + case.seed % (SERIES - 1)] if case.slices == "first" else list(range(SERIES))
    masks = [np.zeros(frame.shape[:2], dtype=bool) for frame in frames]
    ink = letters(case, masks[0].shape)
    at, seen = _place(frames[drawn[0]], ink, case)
    value = _value(frames[drawn[0]], ink, at, case)
    for number in drawn:
        masks[number] = stamp(frames[number], ink, at, value, veil=case.contrast == "veil")
    return frames, masks, seen >= LEGIBLE


@functools.cache
def _without(kind: str, seed: int, level: int = 0) -> npt.NDArray[np.generic]:
    return SLICES[kind](seed, level=level) if kind in SLICES else KINDS[kind](seed)


def stamp(
    frame: npt.NDArray[np.generic], ink: npt.NDArray[np.float32], at: tuple[int, int], value: float, *, veil: bool
) -> npt.NDArray[np.bool_]:
    """Ink at (x, y), in place: of one value, or laid over what is there as a veil. Which pixels are letters."""
    x, y = at
    part = frame[y : y + ink.shape[0], x : x + ink.shape[1]]
    share = ink if frame.ndim == 2 else ink[:, :, None]
    drawn = part + value * share if veil else part * (1 - share) + value * share
    limits = np.iinfo(frame.dtype) if frame.dtype.kind in "iu" else np.finfo(frame.dtype)
    part[...] = np.clip(drawn, limits.min, limits.max).astype(frame.dtype)
    mask = np.zeros(frame.shape[:2], dtype=bool)
    mask[y : y + ink.shape[0], x : x + ink.shape[1]] = ink > 0.5
    return mask


def _around(frame: npt.NDArray[np.generic], ink: npt.NDArray[np.float32], at: tuple[int, int]) -> tuple[float, float]:
    part = frame[at[1] : at[1] + ink.shape[0], at[0] : at[0] + ink.shape[1]].astype(float)
    return float(part.mean()), float(part.std(axis=(0, 1)).max())


def _extent(frame: npt.NDArray[np.generic]) -> tuple[float, float]:
    low, high = np.percentile(frame, (1, 99.5))
    return float(low), float(high)


def _value(frame: npt.NDArray[np.generic], ink: npt.NDArray[np.float32], at: tuple[int, int], case: Case) -> float:
    """The ink's stored value; of a veil, what it adds."""
    low, high = _extent(frame)
    mean, deviation = _around(frame, ink, at)
    little = max(LEGIBLE * deviation, 0.06 * (high - low))
    return {
        "white": high + 0.3 * (high - low) if frame.dtype.itemsize == 2 else 255.0,
        "bright": low + 0.85 * (high - low),
        "faint": mean + little,
        "veil": little,
        "black": float(frame.min()),
    }[case.contrast]


def _place(frame: npt.NDArray[np.generic], ink: npt.NDArray[np.float32], case: Case) -> tuple[tuple[int, int], float]:
    """The first of some places where the letters are legible, else the most legible; and how legible."""
    random = np.random.default_rng([8, case.seed])
    best, best_at = -1.0, (0, 0)
    for _try in range(60):
        at = (
            int(random.integers(0, frame.shape[1] - ink.shape[1] + 1)),
            int(random.integers(0, frame.shape[0] - ink.shape[0] + 1)),
        )
        low, high = _extent(frame)
        mean, deviation = _around(frame, ink, at)
        value = _value(frame, ink, at, case) + (mean if case.contrast == "veil" else 0.0)
        room = min(value, np.iinfo(frame.dtype).max) - mean
        seen = min(abs(room) / max(deviation, 1.0), abs(room) / (0.05 * (high - low)) * LEGIBLE)
        if seen >= LEGIBLE:
            return at, seen
        if seen > best:
            best, best_at = seen, at
    return best_at, best
