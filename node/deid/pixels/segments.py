"""One frame of a compressed stream, built anew from what its decoder needs (`jpeg`, `jpeg_2000`, `rle`, `jpeg_xl`).

What is not the picture does not come along: comments, application segments, tables nobody names, what stands between
parts and behind the end. Sizes and components must be those of the file's header, or the stream is none.
"""

from __future__ import annotations

import re
import struct

from node.deid.pixels import jpeg, jpeg_2000, jpeg_xl, rle
from node.deid.pixels.layout import Layout, MalformedStream

JPEG, JPEG_2000, RLE = jpeg.JPEG, jpeg_2000.JPEG_2000, rle.RLE
COMPRESSED = JPEG | JPEG_2000 | jpeg_xl.JPEG_XL | {RLE}
# What a frame begins with; one of RLE begins with nothing to know it by.
BEGINNINGS = (b"\xff\xd8", b"\xff\x4f", jpeg_2000.JP2, jpeg_xl.CODESTREAM, jpeg_xl.FILE)

__all__ = ["BEGINNINGS", "COMPRESSED", "MalformedStream", "cut_at", "doubtful", "text_at_end", "without_words"]

# As entropy-coded data end by chance once in fifty times; sixteen such characters in a row are words.
_MAYBE_TEXT = re.compile(rb"(?:[\x20-\x7e]{4,}|(?:[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}){2,})[\0\s]*\Z")


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
        return deeper or (syntax in jpeg.JPEG_LS and text_at_end(syntax, frame) < len(frame))
    if syntax in JPEG_2000:
        deepest = max((depth & 0x7F) + 1 for depth in frame[42 : 42 + 3 * layout.samples : 3])
        return deepest > layout.bits_stored or text_at_end(syntax, frame) < len(frame)
    if syntax in jpeg_xl.JPEG_XL:
        return True
    return layout.bits_stored < layout.bits_allocated and not rle.masks(layout)


def text_at_end(syntax: str, frame: bytes) -> int:
    """Where the last four bytes of what may be text begin, before the marker that ends the last scan or tile-part;
    else the frame's length. What comes before them may be the picture's."""
    end = frame.rfind(b"\xff\xd9")
    found = _MAYBE_TEXT.search(frame[max(end - 256, 0) : end])
    if found is None:
        return len(frame)
    text = found.group().rstrip(b"\0\t\n\r\f\v ")
    return max(end - 256, 0) + found.start() + max(len(text) - 4, 0)


def cut_at(syntax: str, frame: bytes, at: int) -> bytes:
    """The frame without what stands from `at` to the end of its last scan or tile-part."""
    end = frame.rfind(b"\xff\xd9")
    cut = bytearray(frame[:at] + frame[end:])
    if syntax in JPEG_2000 and (start := frame.rfind(b"\xff\x90", 0, at)) >= 0:
        (length,) = struct.unpack_from(">L", frame, start + 6)
        struct.pack_into(">L", cut, start + 6, length - (end - at) if length else 0)
    return bytes(cut)
