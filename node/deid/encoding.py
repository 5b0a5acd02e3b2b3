"""Elements back to bytes: explicit or implicit VR, little or big endian, always of defined length (PS3.5 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from node.deid.reader import Parsed
from node.deid.structure import LONG_VRS, ElementNode, Pixels

# ours, made once with uuid4: a constant, so that it tells nothing about a site (PS3.7 D.3.3.2)
IMPLEMENTATION_CLASS_UID = "2.25.263985395658335445047794755638673316349"
IMPLEMENTATION_VERSION = "CLOISTER_1"
_LONG = frozenset(vr.decode() for vr in LONG_VRS)
# By little endian: how a tag, two and four bytes are written, and the header of an element of explicit VR.
_TAG, _WORD, _ELEMENT = (
    {True: struct.Struct(f"<{form}").pack, False: struct.Struct(f">{form}").pack} for form in ("HH", "L", "HH2sH")
)
_META_LENGTH = struct.Struct("<HH2sHL").pack
_PREAMBLE = bytes(128) + b"DICM"
_LONG_TAG = {True: struct.Struct("<HH2sxxL").pack, False: struct.Struct(">HH2sxxL").pack}


def text_value(vr: str, values: Iterable[str]) -> bytes:
    """Text as bytes of even length: UTF-8, padded with NUL for UIDs, else with a space (PS3.5 6.2)."""
    raw = "\\".join(values).encode()
    if len(raw) % 2:
        raw += b"\0" if vr == "UI" else b" "
    return raw


def dataset(nodes: Iterable[ElementNode], *, implicit: bool, little: bool) -> bytes:
    """The bytes of elements, in ascending order of tags."""
    item, word = _TAG[little](0xFFFE, 0xE000), _WORD[little]
    parts: list[bytes] = []
    for node in nodes:
        tag, vr, value = node.tag, node.vr, node.value
        if node.items is not None:
            inner = [dataset(entry, implicit=implicit, little=little) for entry in node.items]
            value = b"".join([part for entry in inner for part in (item, word(len(entry)), entry)])
        length = len(value)
        if implicit:
            parts += (_TAG[little](tag >> 16, tag & 0xFFFF), word(length), value)
        elif vr not in _LONG and length <= 0xFFFF:
            parts += (_ELEMENT[little](tag >> 16, tag & 0xFFFF, vr.encode(), length), value)
        else:
            known = vr if vr in _LONG else "UN"  # PS3.5 6.2.2: too long for its own VR
            parts += (_LONG_TAG[little](tag >> 16, tag & 0xFFFF, known.encode(), length), value)
    return b"".join(parts)


def sequence_head(tag: int, length: int, implicit: bool, little: bool) -> bytes:
    """What stands before the items of a sequence of this length."""
    if implicit:
        return _TAG[little](tag >> 16, tag & 0xFFFF) + _WORD[little](length)
    return _LONG_TAG[little](tag >> 16, tag & 0xFFFF, b"SQ", length)


def file_meta(syntax: str, sop_class: str, sop_instance: str) -> bytes:
    """An empty preamble, `DICM`, and group 2 with what PS3.10 asks for: no AE titles, no private information."""
    before, after = _meta_around(syntax, sop_class)
    value = text_value("UI", [sop_instance])
    length = _META_LENGTH(2, 0, b"UL", 4, len(before) + 8 + len(value) + len(after))
    return b"".join((_PREAMBLE, length, before, _ELEMENT[True](2, 3, b"UI", len(value)), value, after))


@lru_cache(maxsize=64)
def _meta_around(syntax: str, sop_class: str) -> tuple[bytes, bytes]:
    """What stands before and after (0002,0003)."""
    before = (ElementNode(0x00020001, "OB", b"\0\1"), ElementNode(0x00020002, "UI", text_value("UI", [sop_class])))
    after = (
        ElementNode(0x00020010, "UI", text_value("UI", [syntax])),
        ElementNode(0x00020012, "UI", text_value("UI", [IMPLEMENTATION_CLASS_UID])),
        ElementNode(0x00020013, "SH", text_value("SH", [IMPLEMENTATION_VERSION])),
    )
    return dataset(before, implicit=False, little=True), dataset(after, implicit=False, little=True)


def pixel_frame(parsed: Parsed, pixels: Pixels) -> tuple[bytes, bytes]:
    """What stands before and after the verbatim pixel value: the element's header, and a delimiter if it needs one."""
    order = "<" if parsed.little else ">"
    tag = struct.pack(order + "HH", pixels.tag >> 16, pixels.tag & 0xFFFF)
    length = 0xFFFFFFFF if pixels.fragments is not None else (pixels.end - pixels.start + 1) & ~1
    before = tag + (b"" if parsed.implicit else pixels.vr.encode() + b"\0\0") + struct.pack(order + "L", length)
    after = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if pixels.fragments is not None else b""
    return before, after
