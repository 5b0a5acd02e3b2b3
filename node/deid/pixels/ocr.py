"""The text engine: PP-OCRv4 by rapidocr-onnxruntime, its three models inside the wheel and pinned here by SHA-256.

Only the reader process loads it. What is read is never handed on: a box says where, and whether there was anything
to read. Nothing is downloaded; a wheel whose models differ is no engine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

VERSION = "1.4.4"
# detector, recogniser and the classifier of upright or upside down, as published with that version
MODELS = {
    "ch_PP-OCRv4_det_infer.onnx": "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    "ch_PP-OCRv4_rec_infer.onnx": "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
}
# One letter is a side marker or noise: 6 of 46 clean pictures had one, none had two.
MIN_ALPHANUMERICS = 2
# The recogniser's own confidence: below, it names nothing; from here on, what it names needs no second look. Letters of
# scripts it does not know come out as anything: kana under 0.5, Hebrew and Cyrillic up to 0.7, in boxes that miss some.
NAMED = 0.75
CERTAIN = 0.9
# The evened picture draws a box tightly around a letter's core; so much of its shorter side is added all around.
_GROWN = 0.12
# The detector's, for a box to be one: a second look follows, so that it may be lower than where no such look is.
_BOX = 0.4
# Smaller pictures cannot hold two legible characters.
MIN_SIDE_PX = 9

# Twice as large, bright letters of 10 and 12 px on speckle are found in 6 of 6 pictures, not 4, and covered to 98 %,
# not 65 %. What is larger than this is read as it is.
ENLARGED_PX = 1000

Picture = npt.NDArray[np.uint8]
"""(rows, columns) grey or (rows, columns, 3) RGB, 0 to 255."""


@dataclass(frozen=True)
class Box:
    """Where something like text stands in a picture, in pixels, ends exclusive.

    `readable`: two characters or more. `marker`: a single letter or digit, named. Neither: nobody can name it.
    """

    left: int
    top: int
    right: int
    bottom: int
    readable: bool
    marker: bool = False

    def covers(self, other: Box) -> bool:
        """Whether at least half of `other` lies inside."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        area = (other.right - other.left) * (other.bottom - other.top)
        return width > 0 and height > 0 and 2 * width * height >= area


class TextReader(Protocol):
    """Finds text in a picture."""

    def read(self, picture: Picture) -> list[Box]: ...


def installed(models: Path | None = None) -> bool:
    """Whether the pinned engine and exactly the pinned models are there. Loads nothing of it."""
    try:
        if metadata.version("rapidocr-onnxruntime") != VERSION:
            return False
    except metadata.PackageNotFoundError:
        return False
    folder = models or _models()
    return folder is not None and all(_sha256(folder / name) == expected for name, expected in MODELS.items())


class RapidReader:
    """The engine on one thread; about 120 MB, 460 MB at work on pictures up to 1024 px, 950 MB at 2000 px.

    It reads the evened picture: of 61 pictures with text it saw it in 60, of the pictures as they are in 49. What it
    cannot name, or names without being certain, passes a second look or is none.
    """

    def __init__(self) -> None:
        import cv2
        from rapidocr_onnxruntime import RapidOCR

        from node.deid.pixels import second_look

        cv2.setNumThreads(1)
        self._cv2, self._second_look = cv2, second_look
        folder = _models()
        if folder is None:
            raise FileNotFoundError("the engine's models")
        detector, recogniser, classifier = (str(folder / name) for name in MODELS)
        self._engine = RapidOCR(
            text_score=0.0,  # every box comes out, whatever was made of it
            det_box_thresh=_BOX,
            det_model_path=detector,
            rec_model_path=recogniser,
            cls_model_path=classifier,
            intra_op_num_threads=1,
            inter_op_num_threads=1,
        )

    @property
    def detector(self) -> Any:
        """What sees text and reads none, for `quick_look`."""
        return self._engine.text_det

    def read(self, picture: Picture) -> list[Box]:
        if min(picture.shape[:2]) < MIN_SIDE_PX:
            return []
        even = self._second_look.evened(picture)
        colours = even[:, :, ::-1] if even.ndim == 3 else np.dstack([even] * 3)
        rows, columns = picture.shape[:2]
        scale = 2 if max(rows, columns) <= ENLARGED_PX else 1
        if scale == 2:
            larger = self._cv2.resize(colours, dsize=None, fx=2, fy=2, interpolation=self._cv2.INTER_CUBIC)
            colours = np.asarray(larger, dtype=np.uint8)
        found, _times = self._engine(np.ascontiguousarray(colours))
        seen = [
            (_box(corners, str(text), float(score), rows, columns, scale), float(score))
            for corners, text, score in found or ()
        ]
        return [_grown(box, rows, columns) for box, score in seen if self._stays(box, score, picture, even)]

    def _stays(self, box: Box, score: float, picture: Picture, even: Picture) -> bool:
        if score >= CERTAIN and (box.readable or box.marker):
            return True
        bounds = (box.left, box.top, box.right, box.bottom)
        return self._second_look.is_drawn(_grey(picture), _grey(even), bounds, self._likely)

    def _likely(self, grey: Picture) -> npt.NDArray[np.float32]:
        """The detector alone: how likely each pixel belongs to text. Sides are multiples of 32."""
        batch = np.broadcast_to((grey.astype(np.float32) / 127.5 - 1)[None, None], (1, 3, *grey.shape))
        answer: Any = self._engine.text_det.infer(np.ascontiguousarray(batch))
        return np.asarray(answer[0][0, 0], dtype=np.float32)


def _grey(picture: Picture) -> Picture:
    return picture if picture.ndim == 2 else np.asarray(picture.mean(axis=2), dtype=np.uint8)


def _box(corners: list[list[float]], text: str, score: float, rows: int, columns: int, scale: int) -> Box:
    across, down = [corner[0] / scale for corner in corners], [corner[1] / scale for corner in corners]
    left, top = max(0, int(min(across))), max(0, int(min(down)))
    right, bottom = min(columns, int(max(across)) + 1), min(rows, int(max(down)) + 1)
    named = score >= NAMED
    letters = sum(letter.isalnum() for letter in text)
    marker = named and letters == 1 and text.isascii()
    return Box(left, top, right, bottom, named and letters >= MIN_ALPHANUMERICS, marker)


def _grown(box: Box, rows: int, columns: int) -> Box:
    more = int(_GROWN * min(box.right - box.left, box.bottom - box.top))
    left, top = max(0, box.left - more), max(0, box.top - more)
    right, bottom = min(columns, box.right + more), min(rows, box.bottom + more)
    return replace(box, left=left, top=top, right=right, bottom=bottom)


def _models() -> Path | None:
    found = util.find_spec("rapidocr_onnxruntime")
    return Path(found.origin).parent / "models" if found is not None and found.origin else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
