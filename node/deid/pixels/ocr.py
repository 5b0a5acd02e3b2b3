"""The text engine: PP-OCRv4 by rapidocr-onnxruntime, its three models inside the wheel and pinned here by SHA-256.

Only the reader process loads it. What is read is never handed on: a box says where, and whether there was anything
to read. Nothing is downloaded; a wheel whose models differ is no engine.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
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
# Smaller pictures cannot hold two legible characters.
MIN_SIDE_PX = 9

# Twice as large, bright letters of 10 and 12 px on speckle are found in 6 of 6 pictures, not 4, and covered to 98 %,
# not 65 %. What is larger than this is read as it is.
ENLARGED_PX = 1000

Picture = npt.NDArray[np.uint8]
"""(rows, columns) grey or (rows, columns, 3) RGB, 0 to 255."""


@dataclass(frozen=True)
class Box:
    """Where something like text stands in a picture, in pixels, ends exclusive; `readable`: two characters or more."""

    left: int
    top: int
    right: int
    bottom: int
    readable: bool

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
    """The engine on one thread; about 120 MB, 460 MB at work on pictures up to 1024 px, 950 MB at 2000 px."""

    def __init__(self) -> None:
        import cv2
        from rapidocr_onnxruntime import RapidOCR

        cv2.setNumThreads(1)
        self._enlarge = functools.partial(cv2.resize, dsize=None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        folder = _models()
        if folder is None:
            raise FileNotFoundError("the engine's models")
        detector, recogniser, classifier = (str(folder / name) for name in MODELS)
        self._engine = RapidOCR(
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
        colours = picture[:, :, ::-1] if picture.ndim == 3 else np.dstack([picture] * 3)
        rows, columns = picture.shape[:2]
        scale = 2 if max(rows, columns) <= ENLARGED_PX else 1
        seen = self._enlarge(colours) if scale == 2 else colours
        found, _times = self._engine(np.ascontiguousarray(seen))
        return [_box(corners, str(text), rows, columns, scale) for corners, text, _score in found or ()]


def _box(corners: list[list[float]], text: str, rows: int, columns: int, scale: int) -> Box:
    across, down = [corner[0] / scale for corner in corners], [corner[1] / scale for corner in corners]
    left, top = max(0, int(min(across))), max(0, int(min(down)))
    right, bottom = min(columns, int(max(across)) + 1), min(rows, int(max(down)) + 1)
    return Box(left, top, right, bottom, sum(letter.isalnum() for letter in text) >= MIN_ALPHANUMERICS)


def _models() -> Path | None:
    found = util.find_spec("rapidocr_onnxruntime")
    return Path(found.origin).parent / "models" if found is not None and found.origin else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
