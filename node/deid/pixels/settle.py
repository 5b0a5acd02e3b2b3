"""Whether a compressed file holds more than its pictures: what only a decoder can say.

1. Bits of a cell that are not stored, where the stream has more of them than the header says.
2. Bytes behind the picture in a scan or tile-part, where they may be text: without them the same is decoded.
3. Segments of which nobody knows whether all of them is needed.

Such a file is written again in JPEG-LS Lossless, frame by frame, and compared: that has nothing but the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames

from node.deid.pixels.frames import Film, NotDecoded, decode, open_film, stored
from node.deid.pixels.rewrite import NotWritable, write_masked
from node.deid.pixels.segments import cut_at, is_uncounted, text_at_end

T = TypeVar("T")


def settle(path: Path, alive: Callable[[], None] = lambda: None) -> bool:
    """Whether there was more, and the file was written again. Raises `NotDecoded`, also where that cannot be done.

    `alive` is called frame by frame, each time they are decoded.
    """
    film = open_film(path)
    if not _has_stray_bits(film, alive) and not _has_idle_bytes(film, alive):
        return False
    copy = path.with_name(path.name + ".px")
    copy.unlink(missing_ok=True)
    try:
        write_masked(film, copy, alive)
        copy.chmod(path.stat().st_mode & 0o777)
        os.replace(copy, path)
    except NotWritable:
        raise NotDecoded from None
    finally:
        copy.unlink(missing_ok=True)
    return True


def _has_stray_bits(film: Film, alive: Callable[[], None]) -> bool:
    """(1) Decodes every frame, so that what cannot be decoded is told."""
    frames = decode(film, range(film.frames), every_bit=True)
    return any(not np.array_equal(stored(film, frame), frame) for frame in _told(frames, alive))


def _has_idle_bytes(film: Film, alive: Callable[[], None]) -> bool:
    """(2)"""
    return any(
        is_uncounted(film.syntax, frame) or _same_without(film, number, frame)  # (3)
        for number, frame in enumerate(_told(_streams(film), alive))
    )


def _same_without(film: Film, number: int, frame: bytes) -> bool:
    return any(_decodes_without(film, number, frame, *place) for place in text_at_end(film.syntax, frame))


def _decodes_without(film: Film, number: int, frame: bytes, at: int, end: int) -> bool:
    data = pydicom.dcmread(film.path, stop_before_pixels=True)
    data.NumberOfFrames = 1
    data.PixelData = encapsulate([cut_at(film.syntax, frame, at, end)])
    data["PixelData"].VR = "OB"
    beside = film.path.with_name(film.path.name + ".cut")
    try:
        data.save_as(beside)
        (before,) = decode(film, [number])
        (after,) = decode(open_film(beside), [0])
        return np.array_equal(before, after)
    except NotDecoded:
        return False  # it was needed
    finally:
        beside.unlink(missing_ok=True)


def _told(frames: Iterator[T], alive: Callable[[], None]) -> Iterator[T]:
    for frame in frames:
        alive()
        yield frame


def _streams(film: Film) -> Iterator[bytes]:
    try:
        yield from generate_frames(pydicom.dcmread(film.path).PixelData, number_of_frames=film.frames)
    except Exception as error:
        raise NotDecoded from error
