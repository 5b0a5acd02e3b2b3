"""Numbers, however their writer spelled them, as the standard has them (PS3.5 6.2).

Scanners and the tools behind them write a slope as LO, a spacing with a decimal comma, a count as `1.0`. A reader that
finds nothing there assumes its own value, and every measurement is wrong by it. So what is a number is read as it was
meant, and written in the VR the standard has for the element; what is none is nobody's guess.

1. Text is a number when it has the shape of one: digits, one point or one comma, an exponent. `1,234.5` is none.
2. Dates, times, ages, UIDs, names and tags are no numbers, whatever digits they are made of.
3. Bytes of no stated kind (UN, OB) are what the standard says they are, where that gives plain numbers: finite, and of
   a size that can be measured, or what rounding leaves of a zero (6.1e-17 in a direction) in bytes that are no text.
4. A number stays the same number: text as it is, a binary one in the shortest spelling that reads back as it. What the
   standard's VR cannot hold (14.5 as IS) is not written.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from decimal import Decimal

# struct's letter for each value of a VR that holds numbers
FORMS = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
    "OW": "H", "OL": "L", "OV": "Q", "OF": "f", "OD": "d",
}  # fmt: skip
# VRs that the standard gives to single numbers; the O ones hold streams of them
NUMBER_VRS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_WORDS = frozenset({"DS", "IS", "LO", "SH", "LT", "ST", "UC", "UT", "CS"})
_UNSTATED = frozenset({"UN", "OB"})
_SPELLED = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_MOST_DIGITS = 80
# PS3.5 6.2 has 16 characters for DS; scanners write 32, and what they write stays as it is
LONGEST_DS, LONGEST_IS = 32, 12
_TINY, _HUGE = 1e-12, 1e12
_LEFT_OF_ZERO = (
    1e-40  # a product of two such rounding errors is larger; a number read in the wrong order of bytes is not
)


def as_standard(vrs: tuple[str, ...], vm_max: int | None, vr: str, value: bytes, *, little: bool) -> (
    tuple[str, bytes] | None
):  # fmt: skip
    """(VR, value) of an element as the standard has it, when `value` as `vr` holds numbers; None when it does not.

    The VR is the first of `vrs` that holds them all. `little`: the byte order of the file.
    """
    for target in (one for one in vrs if one in NUMBER_VRS):
        spelled = _read_as(target, vr, value, little=little)
        if spelled is None or not any(spelled) or (vm_max is not None and len(spelled) > vm_max):
            continue
        if (written := write(target, spelled, little=little)) is not None:
            return target, written
    return None


def _read_as(target: str, vr: str, value: bytes, *, little: bool) -> tuple[str, ...] | None:
    if vr not in _UNSTATED:
        return read(vr, value, little=little)
    found = read(target, value, little=little)
    size = struct.calcsize("<" + FORMS[target]) if target in FORMS else 0
    pieces = (value[place * size : (place + 1) * size] for place in range(len(found or ())))
    return found if found and all(map(_is_plain, found, pieces)) else None  # (3)


def read(vr: str, value: bytes, *, little: bool) -> tuple[str, ...] | None:
    """The numbers of a value, each as text; "" is a place left free. None: it holds something else."""
    if vr in _WORDS:
        if not value.isascii():
            return None
        return spelled(value.decode("ascii").split("\\"))  # (1)
    if (form := FORMS.get(vr)) is None:
        return None  # (2)
    count, rest = divmod(len(value), struct.calcsize("<" + form))
    if rest or not count:
        return None
    numbers = struct.unpack(f"{'<' if little else '>'}{count}{form}", value)
    if form in "fd" and not all(map(math.isfinite, numbers)):
        return None
    return tuple(_shortest(number, form) for number in numbers)


def spelled(texts: Iterable[str]) -> tuple[str, ...] | None:
    """Numbers as text, each with a point; None where one is no number."""
    stripped = [text.strip(" \0\t\r\n") for text in texts]
    if any(text and (len(text) > _MOST_DIGITS or _SPELLED.fullmatch(text) is None) for text in stripped):
        return None
    return tuple(text.replace(",", ".") for text in stripped)


def _is_plain(text: str, raw: bytes) -> bool:
    size = abs(float(text or 0))
    smallest = _TINY if raw and all(0x20 <= byte < 0x7F for byte in raw.rstrip(b"\0")) else _LEFT_OF_ZERO
    return size == 0 or smallest <= size <= _HUGE


def _shortest(number: float, form: str) -> str:
    """The shortest text that reads back as this binary number. (4)"""
    if form not in "fd":
        return str(number)
    if form == "d":
        return _tidy(repr(number))
    return next(
        _tidy(text)
        for text in (f"{number:.{digits}g}" for digits in range(6, 10))
        if struct.pack("<f", float(text)) == struct.pack("<f", number)
    )


def _tidy(text: str) -> str:
    return text.removesuffix(".0")


def write(vr: str, numbers: tuple[str, ...], *, little: bool) -> bytes | None:
    """The value of an element of this VR, of even length; None where it cannot hold one of the numbers. (4)"""
    if vr in ("DS", "IS"):
        texts = [number and (_decimal(number) if vr == "DS" else _integer(number)) for number in numbers]
        if None in texts:
            return None
        raw = "\\".join(text or "" for text in texts).encode()
        return raw + b" " * (len(raw) % 2)
    if not all(numbers):
        return None
    form, order = FORMS[vr], "<" if little else ">"
    try:
        if form in "fd":
            return struct.pack(f"{order}{len(numbers)}{form}", *map(_finite, numbers))
        whole = [_whole(number) for number in numbers]
        return None if None in whole else struct.pack(f"{order}{len(whole)}{form}", *whole)
    except (struct.error, OverflowError):
        return None


def _decimal(number: str) -> str | None:
    if len(number) <= LONGEST_DS:
        return number
    value = float(number)  # more digits than any reader keeps
    return _tidy(repr(value)) if math.isfinite(value) else None


def _integer(number: str) -> str | None:
    whole = _whole(number)
    return None if whole is None or len(text := str(whole)) > LONGEST_IS else text


def _whole(number: str) -> int | None:
    value = Decimal(number)
    return int(value) if abs(value) < 1 << 64 and value == value.to_integral_value() else None


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise OverflowError
    return value
