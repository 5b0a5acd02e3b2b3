"""What the gate asks of a header, and text in whatever character set it came."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Mapping
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes

from mediator.deid.screening import Facts
from node.deid.reader import Parsed, Raw, Run

TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)  # PS3.5 6.2: VRs whose values are characters
# VRs to which (0008,0005) applies (PS3.5 6.1.2.3); everything else is ASCII by definition
_CHARSET_VRS = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_DIRECTORY_RECORDS = 0x00041220
_UNSPLIT_VRS = frozenset(["LT", "ST", "UR", "UT"])
_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C}


def decode(value: bytes, vr: str, charset: bytes) -> tuple[str, ...]:
    """The values of a text element, padding removed. Bytes that are no text in their character set become U+FFFD."""
    if value.isascii() and b"\x1b" not in value:
        text = value.decode("ascii")
    elif vr in _CHARSET_VRS and charset.strip():
        text = _decode_charset(value, charset)
    else:
        text = value.decode("latin-1")
    text = text.rstrip(" \0")
    return (text,) if vr in _UNSPLIT_VRS else tuple(text.split("\\"))


def _decode_charset(value: bytes, charset: bytes) -> str:
    names = [name.strip() for name in charset.decode("latin-1").rstrip(" \0").split("\\")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their text quotes the value
        try:
            return decode_bytes(value, convert_encodings(names), _DELIMITERS)
        except (LookupError, ValueError, AttributeError):
            return value.decode("latin-1")


def facts_of(parsed: Parsed) -> Facts:
    """The facts gate 0 screens by, from the dataset's top level."""
    top = _telling_elements(parsed)
    charset = _value(top, 0x00080005)

    def values(tag: int) -> tuple[str, ...]:
        if (element := top.get(tag)) is None or element[1] == "SQ":
            return ()
        _tag, vr, raw, start = element
        return _stripped(raw[start:], vr if vr != "UN" else "LO", charset)

    def first(tag: int) -> str:
        return next(iter(values(tag)), "")

    return Facts(
        # a DICOMDIR has its class in the file meta alone: its records tell
        sop_class=first(0x00080016) or (MEDIA_DIRECTORY if _DIRECTORY_RECORDS in top else ""),
        sop_instance=first(0x00080018),
        study=first(0x0020000D),
        series=first(0x0020000E),
        patient_id=first(0x00100020),
        issuer=first(0x00100021),
        modality=first(0x00080060),
        image_type=values(0x00080008),
        has_conversion_type=0x00080064 in top,
        burned_in=first(0x00280301),
        has_pixels=parsed.pixels is not None,
        overlay_in_pixels=_overlay_in_pixels(top),
        series_number=_integer(first(0x00200011)),
        instance_number=_integer(first(0x00200013)),
    )


def pixels_fit(parsed: Parsed) -> bool:
    """Whether the pixel value is as long as the header says (native), or has a fragment for every frame."""
    if parsed.pixels is None:
        return True
    top = _telling_elements(parsed)
    order = "<H" if parsed.little else ">H"

    def number(tag: int, default: int) -> int:
        value = _value(top, tag)
        if not value:
            return default
        return int(struct.unpack(order, value)[0]) if len(value) == 2 else -1

    frames_text = _value(top, 0x00280008).decode("latin-1")
    frames = _integer(frames_text.rstrip("\0").strip()) or 1
    if parsed.pixels.fragments is not None:
        return parsed.pixels.fragments >= frames
    rows, columns, samples = number(0x00280010, 0), number(0x00280011, 0), number(0x00280002, 1)
    bits = {0x7FE00008: 32, 0x7FE00009: 64}.get(parsed.pixels.tag) or number(0x00280100, 0)
    if min(rows, columns, samples, bits, frames) <= 0:
        return False
    photometric = _value(top, 0x00280004).strip(b" \0")
    if photometric == b"YBR_FULL_422":
        samples = 2  # PS3.3 C.7.6.3.1.2: two chrominance samples for every four of luminance
    expected = math.ceil(rows * columns * samples * frames * bits / 8)
    return expected <= parsed.pixels.end - parsed.pixels.start <= expected + expected % 2


def _overlay_in_pixels(top: Mapping[int, Raw]) -> bool:
    """(60xx,0102) Overlay Bit Position other than 0: the overlay is drawn in unused bits of the pixels."""
    return any(
        tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 and raw[start:] not in (b"", b"\0\0")
        for tag, _vr, raw, start in top.values()
    )


def _telling_elements(parsed: Parsed) -> dict[int, Raw]:
    """By tag, the elements that say what an instance is."""
    return {element[0]: element for run in parsed.runs for element in _telling(run)}


@lru_cache(maxsize=1024)
def _telling(run: Run) -> tuple[Raw, ...]:
    """Runs are the same from slice to slice, and so is what they tell."""
    groups = {0x0004, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028}
    return tuple(
        element for element in run.elements if element[0] >> 16 in groups or element[0] & 0xFF00FFFF == 0x60000102
    )


def _value(top: Mapping[int, Raw], tag: int) -> bytes:
    """The value bytes of a top-level element; empty where it is missing or a sequence."""
    element = top.get(tag)
    return element[2][element[3] :] if element is not None and element[1] != "SQ" else b""


@lru_cache(maxsize=4096)
def _stripped(value: bytes, vr: str, charset: bytes) -> tuple[str, ...]:
    return tuple(text.strip() for text in decode(value, vr, charset))


def _integer(text: str) -> int:
    digits = text.strip().removeprefix("+")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0
