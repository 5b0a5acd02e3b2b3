"""Frames out of a file in any transfer syntax we take, a few at a time, and pictures out of frames.

Only the reader process calls this: decoders are foreign machine code, and what breaks them must break nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.utils import iter_pixels

from node.deid.pixels.ocr import Picture
from node.deid.pixels.rle import RLE, one_bit

# One decoder for each syntax, so that equal files decode to equal values everywhere (pydicom tries several otherwise).
# Measured fastest of those whose licence lets them come along; `pylibjpeg-libjpeg` is GPL and not among them.
_SYNTAX = "1.2.840.10008.1.2."
DECODERS = {
    **dict.fromkeys((f"{_SYNTAX}4.50", f"{_SYNTAX}4.51", f"{_SYNTAX}4.57", f"{_SYNTAX}4.70"), "gdcm"),  # JPEG
    **dict.fromkeys((f"{_SYNTAX}4.80", f"{_SYNTAX}4.81"), "pyjpegls"),  # JPEG-LS
    **dict.fromkeys((f"{_SYNTAX}4.90", f"{_SYNTAX}4.91"), "pylibjpeg"),  # JPEG 2000
    **dict.fromkeys((f"{_SYNTAX}4.201", f"{_SYNTAX}4.202", f"{_SYNTAX}4.203"), "pylibjpeg"),  # HTJ2K
    f"{_SYNTAX}5": "pydicom",  # RLE
}
_TWELVE_BITS = f"{_SYNTAX}4.51"
NATIVE = frozenset(("1.2.840.10008.1.2", f"{_SYNTAX}1", f"{_SYNTAX}2", f"{_SYNTAX}1.99"))
# 16,384 x 16,384: beyond any detector. A frame that claims more would only fill the memory.
MAX_FRAME_PIXELS = 1 << 28
# The window is what most pixels use, and half as much on either side: text is often brighter than anything else, and
# must stand out from noise in a projection; a metal implant must not turn everything else black.
_TAILS_PERCENT = (0.5, 99.5)
_BEYOND = 0.5
# Percentiles of a few thousand values are those of the frame.
_SAMPLES = 8192

Values = npt.NDArray[Any]
"""One decoded frame: (rows, columns) or (rows, columns, 3), stored values, colours as RGB."""


class NotDecoded(Exception):
    """No decoder, or it refused; nothing more is known."""


@dataclass(frozen=True)
class Film:
    """What is known of a file's pixels before any is decoded."""

    path: Path
    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    modality: str = ""


def open_film(path: Path) -> Film:
    """Read a file's header. Raises `NotDecoded`."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        bits = int(header.get("BitsAllocated", 8))
        film = Film(
            path,
            str(header.file_meta.TransferSyntaxUID),
            int(header.Rows),
            int(header.Columns),
            int(header.get("NumberOfFrames", 1) or 1),
            int(header.get("SamplesPerPixel", 1)),
            bits,
            int(header.get("BitsStored", bits)),
            int(header.get("HighBit", header.get("BitsStored", bits) - 1)),
            int(header.get("PixelRepresentation", 0)) == 1,
            str(header.get("PhotometricInterpretation", "")),
            str(header.get("Modality", "")).strip().upper(),
        )
    except Exception as error:
        raise NotDecoded from error
    if film.syntax not in DECODERS and film.syntax not in NATIVE:
        raise NotDecoded
    if not 0 < film.rows * film.columns * film.samples <= MAX_FRAME_PIXELS or film.frames < 1:
        raise NotDecoded
    return film


def decode(film: Film, indices: Sequence[int], *, every_bit: bool = False) -> Iterator[Values]:
    """Decoded frames, one at a time; `every_bit` leaves bits that are not stored as they are. Raises `NotDecoded`."""
    plugin = DECODERS.get(film.syntax, "")
    try:
        if film.syntax == _TWELVE_BITS and film.bits_allocated > 8:
            frames = _by_gdcm(film, indices)
        elif film.syntax == RLE and film.bits_allocated == 1:
            frames = _one_bit(film, indices)
        else:
            frames = iter_pixels(film.path, indices=indices, decoding_plugin=plugin, correct_unused_bits=not every_bit)
        for frame in frames:
            if frame.shape[:2] != (film.rows, film.columns):
                raise NotDecoded
            yield frame if every_bit else stored(film, frame)  # pydicom leaves them in JPEG 2000
    except NotDecoded:
        raise
    except Exception as error:
        raise NotDecoded from error


def _by_gdcm(film: Film, indices: Sequence[int]) -> Iterator[Values]:
    """Extended JPEG of twelve bits: pydicom's way to GDCM does not take it, GDCM's own does."""
    reader = gdcm.ImageReader()
    reader.SetFileName(os.fspath(film.path))
    if film.samples != 1 or film.bits_allocated != 16 or not reader.Read():
        raise NotDecoded
    plain = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    cells = np.frombuffer(plain, "<i2" if film.signed else "<u2").reshape(film.frames, film.rows, film.columns)
    for index in indices:
        yield cells[index].copy()


def _one_bit(film: Film, indices: Sequence[int]) -> Iterator[Values]:
    """Segmentations of one bit a cell in RLE, as workstations write them: their cells stay packed in the runs."""
    pixels = pydicom.dcmread(film.path).PixelData
    cells = film.rows * film.columns
    for index in indices:
        packed = one_bit(get_frame(pixels, index, number_of_frames=film.frames), (cells + 7) // 8)
        drawn = np.unpackbits(np.frombuffer(packed, np.uint8), count=cells, bitorder="little")
        yield drawn.reshape(film.rows, film.columns)


def window(frames: Sequence[Values]) -> tuple[float, float]:
    """The values that become black and white, over all the frames given."""
    sample = np.concatenate([frame.ravel()[:: max(1, frame.size // _SAMPLES)] for frame in frames]).astype(np.float32)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, _TAILS_PERCENT)
    if high <= low:  # nearly all one value: then what differs is what matters
        low, high = min(float(frame.min()) for frame in frames), max(float(frame.max()) for frame in frames)
    beyond = _BEYOND * max(float(high) - float(low), 1.0)
    return float(low) - beyond, float(high) + beyond


def picture(frame: Values, low: float, high: float) -> Picture:
    """Eight bits for the eye; what has eight bits stays as it is."""
    if frame.dtype == np.uint8 and frame.max() > 1:
        return frame
    scaled = (frame.astype(np.float32) - low) * (255.0 / (high - low))
    return np.asarray(np.nan_to_num(np.clip(scaled, 0, 255)), dtype=np.uint8)


def stray_planes(film: Film, frame: Values) -> list[Picture]:
    """Bits of a cell outside the stored ones, as pictures: a drawing may hide there (PS3.5 8.1.1, overlays of 2004).

    Sign bits and planes of one value are none.
    """
    if film.samples != 1 or film.bits_stored >= film.bits_allocated or frame.dtype.kind not in "iu":
        return []
    cells = frame.view(np.dtype(f"u{frame.dtype.itemsize}"))
    lowest = film.high_bit - film.bits_stored + 1
    planes: list[Picture] = []
    for bit in [*range(max(0, lowest)), *range(film.high_bit + 1, film.bits_allocated)]:
        drawn = (cells >> bit & 1).astype(bool)
        if film.signed and bit > film.high_bit:
            drawn ^= (cells >> film.high_bit & 1).astype(bool)
        if drawn.any() and not drawn.all():
            planes.append(drawn.astype(np.uint8) * 255)
    return planes


def stored(film: Film, frame: Values) -> Values:
    """The frame without the bits that are not stored."""
    spare = film.bits_allocated - film.bits_stored
    if film.samples != 1 or not 0 < spare < film.bits_allocated or frame.dtype.kind not in "iu":
        return frame
    return np.asarray((frame << spare) >> spare)
