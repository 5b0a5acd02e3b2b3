"""A written file once more: with boxes blacked out, and with the statement that its pixels were looked at.

1. Native pixels stay in their syntax; only the bytes of the boxes change.
2. Encapsulated pixels become JPEG-LS Lossless, frame by frame: one lossless syntax for every way they came in, since
   JPEG, near-lossless and lossy JPEG 2000 streams cannot be changed without loss. Every frame is decoded again from
   the new file and compared. What JPEG-LS cannot hold (more than 16 bits) is not written.
3. Without boxes the pixel element is copied byte for byte.

The header says what was done in PS3.15's own codes: 113101, and BurnedInAnnotation NO.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import itemize_frame
from pydicom.pixels.encoders.base import get_encoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, JPEGLSLossless

from node.deid.pixels.frames import NATIVE, Film, Values, decode, open_film
from node.deid.pixels.ocr import Box

# Recognisers crop tightly; three pixels more take the soft edge of the letters with them.
MARGIN_PX = 3
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
# Baseline and extended JPEG, near-lossless JPEG-LS, lossy JPEG 2000 and HTJ2K: what came from them stays lossy.
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "51", "81", "91", "203"))
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")

Boxes = Mapping[int, Sequence[Box]]
"""Boxes by frame."""


class NotWritable(Exception):
    """These pixels cannot be changed without loss."""


def write_copy(film: Film, target: Path, boxes: Boxes) -> None:
    """Write `film` to a new file (0600) with the boxes blacked out. Raises `NotWritable`, `NotDecoded`, `OSError`."""
    with film.path.open("rb") as source:
        header = pydicom.dcmread(source, stop_before_pixels=True)
        start = source.tell()
        _state(header)
        handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+b") as out:
            if any(boxes.values()) and film.syntax not in NATIVE:
                _transcode(film, header, out, boxes)  # (2)
            else:
                header.save_as(out, enforce_file_format=False)
                at = out.tell()
                source.seek(start)
                shutil.copyfileobj(source, out, 1 << 20)  # (3)
                if any(boxes.values()):
                    _patch(film, header, out, at + (8 if film.syntax == IMPLICIT else 12), boxes)  # (1)
    if any(boxes.values()) and film.syntax not in NATIVE:
        _compare(film, open_film(target), boxes)


def write_masked(film: Film, target: Path, alive: Callable[[], None]) -> None:
    """Write `film` to a new file (0600) with nothing but its stored bits, in JPEG-LS Lossless; nothing else changes.

    Raises `NotWritable`, `NotDecoded`, `OSError`.
    """
    header = pydicom.dcmread(film.path, stop_before_pixels=True)
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+b") as out:
        _transcode(film, header, out, {}, alive)
    _compare(film, open_film(target), {}, alive)


def widened(box: Box, film: Film) -> Box:
    """The box with its margin, inside the frame."""
    return Box(
        max(0, box.left - MARGIN_PX),
        max(0, box.top - MARGIN_PX),
        min(film.columns, box.right + MARGIN_PX),
        min(film.rows, box.bottom + MARGIN_PX),
        box.readable,
    )


def _state(header: Dataset) -> None:
    """PS3.15 E.3.1: (0028,0301) NO, and the option's code beside those that stand already."""
    header.BurnedInAnnotation = "NO"
    code, meaning = CLEAN_PIXELS
    codes = header.get("DeidentificationMethodCodeSequence") or []
    if all(item.get("CodeValue") != code for item in codes):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        header.DeidentificationMethodCodeSequence = Items([*codes, item])


def _blacken(film: Film, frame: Values, boxes: Sequence[Box]) -> None:
    """Black out boxes of one decoded frame, in place: what the display shows as black, or darkest there is."""
    if frame.ndim == 3:
        black: Any = 0
    else:
        black = frame.max() if film.photometric == "MONOCHROME1" else frame.min()
    for box in boxes:
        wide = widened(box, film)
        frame[wide.top : wide.bottom, wide.left : wide.right] = black


def _patch(film: Film, header: Dataset, out: BinaryIO, at: int, boxes: Boxes) -> None:
    """(1) Through a map of the file, frame by frame."""
    out.flush()
    depth = film.bits_allocated
    if depth not in (8, 16, 32, 64) or "422" in film.photometric or (film.syntax == BIG_ENDIAN and depth == 8):
        raise NotWritable
    kind = "i" if film.signed else "u"
    kind = "f" if "BitsStored" not in header and depth >= 32 else kind
    planar = film.samples > 1 and header.get("PlanarConfiguration", 0) == 1
    each = (film.samples, film.rows, film.columns) if planar else (film.rows, film.columns, film.samples)
    order = ">" if film.syntax == BIG_ENDIAN else "<"
    black = (0, 128, 128) if film.photometric.startswith("YBR") else (0,) * film.samples
    size = film.rows * film.columns * film.samples * depth // 8
    for number, found in boxes.items():
        cells = np.memmap(out, dtype=f"{order}{kind}{depth // 8}", mode="r+", offset=at + number * size, shape=each)
        frame = np.moveaxis(cells, 0, -1) if planar else cells
        if film.samples == 1:
            _blacken(film, frame[:, :, 0], found)
        for box in found if film.samples > 1 else ():
            wide = widened(box, film)
            frame[wide.top : wide.bottom, wide.left : wide.right] = black
        cells.flush()


def _transcode(
    film: Film, header: Dataset, out: BinaryIO, boxes: Boxes, alive: Callable[[], None] = lambda: None
) -> None:
    """(2)"""
    if film.bits_allocated not in (8, 16) or film.samples not in (1, 3):
        raise NotWritable
    if film.syntax in _LOSSY:
        header.LossyImageCompression = "01"
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    if film.samples == 3:
        header.PhotometricInterpretation, header.PlanarConfiguration = "RGB", 0
    for stale in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if stale in header:
            del header[stale]
    header.save_as(out, enforce_file_format=False, implicit_vr=False, little_endian=True)
    out.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    out.write(struct.pack("<HHL", 0xFFFE, 0xE000, 0))  # an empty offset table
    for number, frame in enumerate(decode(film, range(film.frames))):
        alive()
        _blacken(film, frame, boxes.get(number, ()))
        for item in itemize_frame(_jpeg_ls(film, header, frame)):
            out.write(item)
    out.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def _jpeg_ls(film: Film, header: Dataset, frame: Values) -> bytes:
    try:
        return get_encoder(UID(JPEGLSLossless)).encode(
            frame,
            encoding_plugin="pyjpegls",
            rows=film.rows,
            columns=film.columns,
            samples_per_pixel=film.samples,
            number_of_frames=1,
            bits_allocated=film.bits_allocated,
            bits_stored=film.bits_stored,
            pixel_representation=int(film.signed),
            photometric_interpretation=str(header.PhotometricInterpretation),
            planar_configuration=0,
        )
    except Exception as error:
        raise NotWritable from error


def _compare(film: Film, written: Film, boxes: Boxes, alive: Callable[[], None] = lambda: None) -> None:
    """Every frame of the new file is the old one, but for the boxes. Raises `NotWritable`."""
    pairs = zip(decode(film, range(film.frames)), decode(written, range(written.frames)), strict=True)
    for number, (before, after) in enumerate(pairs):
        alive()
        _blacken(film, before, boxes.get(number, ()))
        if not np.array_equal(before, after):
            raise NotWritable
