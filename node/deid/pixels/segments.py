"""One frame of a compressed stream, built anew from what its decoder needs (`jpeg`, `jpeg_2000`, `rle`, `jpeg_xl`).

What is not the picture does not come along: comments, application segments, tables nobody names, what stands between
parts and behind the end. Sizes and components must be those of the file's header, or the stream is none.
"""

from __future__ import annotations

import re
import struct

from node.deid.pixels import jpeg, jpeg_2000, jpeg_xl, rle
from node.deid.pixels.layout import FILL, Layout, MalformedStream

JPEG, JPEG_2000, RLE = jpeg.JPEG, jpeg_2000.JPEG_2000, rle.RLE
COMPRESSED = JPEG | JPEG_2000 | jpeg_xl.JPEG_XL | {RLE}
# What a frame begins with; one of RLE begins with nothing to know it by.
BEGINNINGS = (b"\xff\xd8", b"\xff\x4f", jpeg_2000.JP2, jpeg_xl.CODESTREAM, jpeg_xl.FILE)

__all__ = [
    "BEGINNINGS",
    "COMPRESSED",
    "MalformedStream",
    "cut_at",
    "doubtful",
    "is_uncounted",
    "text_at_end",
    "without_words",
]

# As entropy-coded data end by chance once in fifty times, or hold once in a hundred; sixteen such characters in a row
# at an end are words.
_MAYBE_TEXT = re.compile(
    rb"(?:[\x20-\x7e]{4,}|(?:[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}){2,})\Z"
    rb"|[\x20-\x7e]{10,}|[A-Za-z^ ,.-]{7,}|[A-Za-z^]{6,}(?=.{0,128}\Z)|[A-Za-z^]{5,}(?=.{0,32}\Z)",
    re.DOTALL,
)
_TAIL_BYTES = 256
_END_OF_SCAN = re.compile(rb"\xff[\x80-\xfe]")  # JPEG-LS stuffs a zero bit behind FF


def without_words(syntax: str, frame: bytes, layout: Layout | None = None) -> bytes:
    """The frame from its parts; the same object when it has nothing else. Raises `MalformedStream`."""
    if syntax in JPEG:
        return jpeg.rebuilt(syntax, frame, layout)
    if syntax in JPEG_2000:
        return jpeg_2000.rebuilt(syntax, frame, layout)
    if syntax in jpeg_xl.JPEG_XL:
        return jpeg_xl.rebuilt(frame, layout)
    if syntax == RLE and layout is not None:
        return rle.rebuilt(frame, layout)
    return frame


def doubtful(syntax: str, frame: bytes, layout: Layout) -> bool:
    """Whether only a decoder can say that a frame, built from its parts, holds no more than its picture: it has more
    bits than are stored, or its data may end in text and nothing counts where the picture does."""
    if syntax in JPEG:
        deeper = jpeg.precision(frame) > layout.bits_stored
        return deeper or (syntax in jpeg.JPEG_LS and bool(text_at_end(syntax, frame)))
    if syntax in JPEG_2000:
        deepest = max((depth & 0x7F) + 1 for depth in frame[42 : 42 + 3 * layout.samples : 3])
        return deepest > layout.bits_stored or is_uncounted(syntax, frame) or bool(text_at_end(syntax, frame))
    if syntax in jpeg_xl.JPEG_XL:
        return True
    return layout.bits_stored < layout.bits_allocated and not rle.masks(layout)


def is_uncounted(syntax: str, frame: bytes) -> bool:
    """Whether a frame has segments of which only a decoder can say that all is needed."""
    return syntax in JPEG_2000 and (syntax in jpeg_2000.PART_2 or jpeg_2000.is_uncounted(frame))


def text_at_end(syntax: str, frame: bytes) -> list[tuple[int, int]]:
    """For each scan or tile-part that ends in what may be text, or close before it: where the last four bytes of it
    begin, and where the part ends. What comes before them may be the picture's."""
    found: list[tuple[int, int]] = []
    for end in jpeg_2000.tile_part_ends(frame) if syntax in JPEG_2000 else _scan_ends(frame):
        last = _before_fill(frame, end)
        first = max(last - _TAIL_BYTES, 0)
        texts = list(_MAYBE_TEXT.finditer(frame[first:last]))
        if texts:
            found.append((first + max(texts[-1].start(), texts[-1].end() - 4), end))
    return found


def _before_fill(frame: bytes, end: int) -> int:
    """Where the fill before `end` begins."""
    while rest := frame[max(end - 4096, 0) : end]:
        kept = len(rest.rstrip(FILL))
        end -= len(rest) - kept
        if kept:
            break
    return end


def _scan_ends(frame: bytes) -> list[int]:
    """Where each scan of a JPEG-LS stream ends that was built anew."""
    ends: list[int] = []
    at = frame.find(b"\xff\xda")
    while at >= 0:
        (length,) = struct.unpack_from(">H", frame, at + 2)
        at += 2 + length
        while (marker := _END_OF_SCAN.search(frame, at)) is not None and 0xD0 <= frame[marker.start() + 1] <= 0xD7:
            at = marker.end()
        ends.append(marker.start() if marker is not None else len(frame))
        at = frame.find(b"\xff\xda", ends[-1])
    return ends


def cut_at(syntax: str, frame: bytes, at: int, end: int) -> bytes:
    """The frame without what stands from `at` to `end`, where one of its scans or tile-parts ends."""
    cut = bytearray(frame[:at] + frame[end:])
    if syntax in JPEG_2000 and (start := frame.rfind(b"\xff\x90", 0, at)) >= 0:
        (length,) = struct.unpack_from(">L", frame, start + 6)
        struct.pack_into(">L", cut, start + 6, length - (end - at) if length else 0)
    return bytes(cut)
