"""JPEG XL (ISO/IEC 18181): of its file format the codestream, which says how large it is; nothing else.

Boxes of the file format hold Exif, XMP, JUMBF, and what a JPEG's own segments were (`jbrd`): a decoder needs none of
them for the pixels. Nothing installed here decodes the codestream itself, so no such file passes unseen: every one of
them is for a person (`pixels_not_decoded`).
"""

from __future__ import annotations

import struct

from node.deid.pixels.layout import Layout, MalformedStream

JPEG_XL = frozenset(f"1.2.840.10008.1.2.4.{tail}" for tail in ("110", "111", "112"))
CODESTREAM, FILE = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
_MOST_BOXES = 10_000
# Width by height for each aspect ratio that a size may name instead of a width (D.2)
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def rebuilt(frame: bytes, layout: Layout | None = None) -> bytes:
    """One frame's codestream; the same object when it is nothing else. Raises `MalformedStream`."""
    inner = _unboxed(frame) if frame.startswith(FILE) else frame
    if not inner.startswith(CODESTREAM):
        raise MalformedStream
    if layout is not None and _size(inner) != (layout.rows, layout.columns):
        raise MalformedStream
    return inner


def _unboxed(frame: bytes) -> bytes:
    """The codestream, whole (`jxlc`) or in parts that have numbers (`jxlp`)."""
    found: list[bytes] = []
    at = 0
    for _box in range(_MOST_BOXES):
        if at + 8 > len(frame):
            break
        length, kind = struct.unpack_from(">L4s", frame, at)
        inside, end = at + 8, at + length if length else len(frame)
        if length == 1:
            if at + 16 > len(frame):
                raise MalformedStream
            inside, end = at + 16, at + struct.unpack_from(">Q", frame, at + 8)[0]
        if not inside <= end <= len(frame):
            raise MalformedStream
        if kind == b"jxlc":
            found.append(frame[inside:end])
        elif kind == b"jxlp":
            if inside + 4 > end or struct.unpack_from(">L", frame, inside)[0] & 0x7FFFFFFF != len(found):
                raise MalformedStream
            found.append(frame[inside + 4 : end])
        at = end
    return b"".join(found)


def _size(stream: bytes) -> tuple[int, int]:
    """(rows, columns) of the codestream's size header: bits from the lowest of each byte on."""
    bits = int.from_bytes(stream[2:16], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << count) - 1, bits >> count
        return value

    small = take(1)

    def length() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    rows = length()
    ratio = take(3)
    if not ratio:
        return rows, length()
    wide, high = _RATIOS[ratio]
    return rows, rows * wide // high
