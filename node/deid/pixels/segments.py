"""One frame of a compressed stream, built anew from what its decoder needs (`jpeg`, `jpeg_2000`, `rle`, `jpeg_xl`).

What is not the picture does not come along: comments, application segments, tables nobody names, what stands between
parts and behind the end. Sizes and components must be those of the file's header, or the stream is none.
"""

from __future__ import annotations

from node.deid.pixels import jpeg, jpeg_2000, rle
from node.deid.pixels.layout import Layout, MalformedStream

JPEG, JPEG_2000, RLE = jpeg.JPEG, jpeg_2000.JPEG_2000, rle.RLE
COMPRESSED = JPEG | JPEG_2000 | {RLE}
# What a frame begins with; one of RLE begins with nothing to know it by.
BEGINNINGS = (b"\xff\xd8", b"\xff\x4f", jpeg_2000.JP2)

__all__ = ["BEGINNINGS", "COMPRESSED", "MalformedStream", "without_words"]


def without_words(syntax: str, frame: bytes, layout: Layout | None = None) -> bytes:
    """The frame from its parts; the same object when it has nothing else. Raises `MalformedStream`."""
    if syntax in JPEG:
        return jpeg.rebuilt(syntax, frame, layout)
    if syntax in JPEG_2000:
        return jpeg_2000.rebuilt(syntax, frame, layout)
    if syntax == RLE and layout is not None:
        return rle.rebuilt(frame, layout)
    return frame
