"""Numbers in a header: which VRs hold nothing else, and what a single one says as text (PS3.5 6.2)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from node.deid.structure import ElementNode

# Bytes per value of the VRs that hold numbers (PS3.5 6.2).
NUMBER_BYTES = {
    "US": 2, "SS": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "OV": 8, "SV": 8, "UV": 8,
    "OF": 4, "OL": 4, "OD": 8,
}  # fmt: skip
# Those of numbers and nothing else; OW is whatever its writer says.
NUMBERS = frozenset(NUMBER_BYTES) - {"OW"}
_UNPACKED = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
# Numbers somebody chose and nothing depends on: SeriesNumber, AcquisitionNumber, InstanceNumber. A patient's is 0.
ASSIGNED = frozenset({0x00200011, 0x00200012, 0x00200013})


def numerals(node: ElementNode) -> tuple[str, ...]:
    """The value of an element that holds one number, as text; in either order of bytes."""
    if node.vr in ("IS", "DS"):
        return () if b"\\" in node.value else (node.value.decode("latin-1").strip(" \0"),)
    form = _UNPACKED.get(node.vr)
    if form is None or len(node.value) != NUMBER_BYTES[node.vr]:
        return ()
    return tuple(str(struct.unpack(order + form, node.value)[0]) for order in "<>")


def as_written(numbers: Iterable[str]) -> re.Pattern[bytes] | None:
    """What a decimal may be one of these in, or is to be looked at."""
    listed = "|".join(sorted(numbers))
    return re.compile(rb"[+-]?0*(?:%b)(?:\.0*)? *|[^\\]*[eE][^\\]*" % listed.encode()) if listed else None
