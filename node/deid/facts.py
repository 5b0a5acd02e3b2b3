"""What the gate asks of a header, and text in whatever character set it came."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes

from mediator.deid.numbers import as_standard
from mediator.deid.screening import Facts, Note
from node.deid.pixels.layout import Layout
from node.deid.pixels.native import MASKABLE, CellForm
from node.deid.reader import ByteRun, Parsed
from node.deid.structure import Pixels

TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)  # PS3.5 6.2: VRs whose values are characters
# VRs to which (0008,0005) applies (PS3.5 6.1.2.3); everything else is ASCII by definition
_CHARSET_VRS = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_DIRECTORY_RECORDS = 0x00041220
UNSPLIT_VRS = frozenset(["LT", "ST", "UR", "UT"])  # one value, whatever backslashes it has
CHARSET = 0x00080005
_FIELDS = {
    0x00080016: "sop_class", 0x00080018: "sop_instance", 0x0020000D: "study", 0x0020000E: "series",
    0x00100020: "patient_id", 0x00100021: "issuer", 0x00080060: "modality", 0x00080008: "image_type",
    0x00280301: "burned_in", 0x00200011: "series_number", 0x00200013: "instance_number",
}  # fmt: skip
_NUMBERS = frozenset({"series_number", "instance_number"})
EXTENDED_OFFSETS, EXTENDED_LENGTHS, TOTAL_LENGTH = 0x7FE00001, 0x7FE00002, 0x7FE00003
_ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH, _SIGNED = (
    0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103
)  # fmt: skip
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_OVERLAY_BIT = 0x60000102
# what says how long pixel data is and how it lies in its cells, with the VR of PS3.6
_SHAPE = {
    _SAMPLES: "US", _PHOTOMETRIC: "CS", _FRAMES: "IS", _ROWS: "US", _COLUMNS: "US", _ALLOCATED: "US",
    _STORED: "US", _HIGH: "US", _SIGNED: "US", EXTENDED_OFFSETS: "OV",
}  # fmt: skip
_SIZES = tuple(tag for tag in _SHAPE if tag != EXTENDED_OFFSETS)
# more than the longest spelling of a number; these values are remembered
_MOST_OF_A_SIZE = 96
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
    return (text,) if vr in UNSPLIT_VRS else tuple(text.split("\\"))


def _decode_charset(value: bytes, charset: bytes) -> str:
    names = [name.strip() for name in charset.decode("latin-1").rstrip(" \0").split("\\")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their text quotes the value
        try:
            return decode_bytes(value, convert_encodings(names), _DELIMITERS)
        except Exception:  # noqa: BLE001 - the engine seam: a character set that breaks pydicom says nothing
            return value.decode("latin-1")


def facts_of(parsed: Parsed) -> Facts:
    """The facts gate 0 screens by, from the dataset's top level."""
    fields, said = _told(parsed)
    overlay = any(_is_stored(parsed, said[tag]) for tag in said if tag & 0xFF00FFFF == _OVERLAY_BIT)
    return Facts(**fields, has_pixels=parsed.pixels is not None, overlay_in_pixels=overlay)


def _is_stored(parsed: Parsed, position: bytes) -> bool:
    """Whether an overlay is drawn in a bit that is stored: those that are not are masked in what is written."""
    layout = layout_of(parsed)
    bit = _number(position, "<H" if parsed.little else ">H", -1)
    lowest = layout.high_bit - layout.bits_stored + 1
    spare = layout.bits_allocated in MASKABLE and not lowest <= bit <= layout.high_bit
    return not spare or not 0 < bit < layout.bits_allocated


def fitted(parsed: Parsed) -> Parsed | None:
    """The file with its pixel value as long as the header says; None where that cannot be.

    Native pixels may have less than a frame of padding behind them, which does not belong to the value; encapsulated
    ones have a fragment for every frame. Cells of an odd size have no bits that are not stored.
    """
    pixels = parsed.pixels
    if pixels is None:
        return parsed
    if pixels.note is not None:
        parsed = replace(parsed, notes=(*parsed.notes, pixels.note))
    if pixels.fragments is not None:
        return parsed if pixels.fragments >= _frames(_told(parsed)[1]) else None
    if _has_bits_nobody_masks(parsed, pixels):
        return None
    expected, most = _native_bytes(parsed, pixels)
    size = pixels.end - pixels.start
    if not 0 < expected <= size < most:
        return None
    if not parsed.little:
        expected += expected % 2 if size > expected else 0  # in words of two bytes the padding stands before the last
    if size == expected:
        return parsed
    cut = size > expected + expected % 2
    notes = (*parsed.notes, Note.PIXEL_PADDING_CUT) if cut else parsed.notes
    return replace(parsed, pixels=replace(pixels, end=pixels.start + expected), notes=notes)


def _has_bits_nobody_masks(parsed: Parsed, pixels: Pixels) -> bool:
    """Whether cells of a size that no program decodes have bits that are not stored."""
    layout = layout_of(parsed)
    spare = layout.bits_stored < layout.bits_allocated
    return pixels.tag == 0x7FE00010 and spare and layout.bits_allocated not in MASKABLE


def _native_bytes(parsed: Parsed, pixels: Pixels) -> tuple[int, int]:
    """How long a native value is, and from what length on it is another's; 0 where the header does not say."""
    return _native_bytes_of(tuple(map(_told(parsed)[1].get, _SIZES)), pixels.tag, parsed.little)


@lru_cache(maxsize=64)
def _native_bytes_of(sizes: tuple[bytes | None, ...], tag: int, little: bool) -> tuple[int, int]:
    """The same of values alone, which slices of a series share."""
    said = dict(zip(_SIZES, sizes, strict=True))
    value, frames = said.get, _frames(said)
    order = "<H" if little else ">H"
    rows, columns = _number(value(_ROWS), order, 0), _number(value(_COLUMNS), order, 0)
    samples = _number(value(_SAMPLES), order, 1)
    bits = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag) or _number(value(_ALLOCATED), order, 0)
    if min(rows, columns, samples, bits, frames) <= 0:
        return 0, 0
    if (value(_PHOTOMETRIC) or b"").strip(b" \0") == b"YBR_FULL_422":
        samples = 2  # PS3.3 C.7.6.3.1.2: two chrominance samples for every four of luminance
    expected = math.ceil(rows * columns * samples * frames * bits / 8)
    return expected, expected + max(2, math.ceil(expected / frames))


def layout_of(parsed: Parsed) -> Layout:
    """What the header says of the pixels; a number that is none is 0."""
    said = _told(parsed)[1]
    layout = _layout_of(tuple(map(said.get, _SIZES)), parsed.little)
    return layout if EXTENDED_OFFSETS not in said else replace(layout, extended_offsets=said[EXTENDED_OFFSETS])


@lru_cache(maxsize=64)
def _layout_of(sizes: tuple[bytes | None, ...], little: bool) -> Layout:
    """The same of values alone, less the offset table."""
    said = dict(zip(_SIZES, sizes, strict=True))
    order = "<H" if little else ">H"

    def number(tag: int, default: int = 0) -> int:
        return max(_number(said.get(tag), order, default), 0)

    allocated = number(_ALLOCATED)
    stored = number(_STORED, allocated)
    return Layout(
        _frames(said),
        number(_ROWS),
        number(_COLUMNS),
        number(_SAMPLES, 1),
        allocated,
        stored if 0 < stored <= allocated else allocated,
        number(_SIGNED) == 1,
        number(_HIGH, max(stored - 1, 0)),
    )


def cells_of(parsed: Parsed) -> CellForm | None:
    """The cells of native pixels of whole numbers that have bits to spare; None where there are none."""
    if parsed.pixels is None or parsed.pixels.fragments is not None or parsed.pixels.tag != 0x7FE00010:
        return None
    said = _told(parsed)[1]
    if said.get(_ALLOCATED) == said.get(_STORED):
        return None
    layout = layout_of(parsed)
    form = CellForm(layout.bits_allocated, layout.bits_stored, layout.high_bit, layout.signed, parsed.little)
    return form if form.has_spare_bits else None


def _frames(said: Mapping[int, bytes | None]) -> int:
    return _integer((said.get(_FRAMES) or b"").decode("latin-1").rstrip("\0").strip()) or 1


def _told(parsed: Parsed) -> tuple[dict[str, Any], dict[int, bytes]]:
    """Fields of `Facts`, and the values that say how long pixel data is."""
    if parsed.told:
        return parsed.told[0]
    fields: dict[str, Any] = {}
    shape: dict[int, bytes] = {}
    charset = b""
    for run in parsed.runs:
        if run.first == CHARSET:
            _tag, vr, raw, start = run.elements[0]
            charset = raw[start:] if vr != "SQ" else b""
        elif (told := run.told) is not None and told[0] == charset:
            fields |= told[1]
            shape |= told[2]
        else:
            run.told = (charset, *_read(run, charset, parsed.little))
            fields |= run.told[1]
            shape |= run.told[2]
    parsed.told.append((fields, shape))
    return fields, shape


def _read(run: ByteRun, charset: bytes, little: bool) -> tuple[dict[str, Any], dict[int, bytes]]:
    """What one run tells. Runs are the same from slice to slice, and so is this."""
    fields: dict[str, Any] = {}
    shape: dict[int, bytes] = {}
    for tag, vr, raw, start in run.elements:
        if (field := _FIELDS.get(tag)) is not None and vr != "SQ":
            texts = decode(raw[start:], vr if vr != "UN" else "LO", charset)
            first = texts[0].strip()
            if field == "image_type":
                fields[field] = tuple(text.strip() for text in texts)
            elif first:
                fields[field] = _integer(first) if field in _NUMBERS else first
        elif tag in _SHAPE and vr != "SQ":
            usual = _SHAPE[tag]
            meant = None if vr == usual else as_standard((usual,), 1, vr, raw[start:], little=little)
            told = raw[start:] if meant is None else meant[1]
            shape[tag] = told if tag == EXTENDED_OFFSETS else told[:_MOST_OF_A_SIZE]
        elif tag == _DIRECTORY_RECORDS:
            fields["sop_class"] = MEDIA_DIRECTORY  # a DICOMDIR has its class in the file meta alone
        elif tag == 0x00080064:
            fields["has_conversion_type"] = True
        elif tag & 0xFF00FFFF == _OVERLAY_BIT and raw[start:] not in (b"", b"\0\0"):
            # (60xx,0102) Overlay Bit Position other than 0: the overlay is drawn in a bit of the pixels
            shape[tag] = raw[start:]
    return fields, shape


def _number(value: bytes | None, order: str, default: int) -> int:
    """A 16-bit number; -1 for what is none."""
    if not value:
        return default
    return int(struct.unpack(order, value)[0]) if len(value) == 2 else -1


def _integer(text: str) -> int:
    """A whole number as a writer spelled it (`1.0`); 0 for what is none, or too large to count anything."""
    digits = text.strip().removeprefix("+")
    if not digits or not digits.isascii():
        return 0
    if not digits.isdigit():
        meant = as_standard(("IS",), 1, "IS", digits.encode(), little=True)
        digits = meant[1].decode().strip() if meant is not None else ""
    return int(digits) if digits.isdigit() and len(digits) <= 9 else 0
