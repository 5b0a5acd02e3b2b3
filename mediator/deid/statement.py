"""(0012,0062), (0012,0063), (0012,0064) and (0028,0303): what was done to one instance, and nothing that was not.

1. The profile's codes follow from the options it takes (CID 7050), never from what its file claims.
2. *Clean Pixel Data* (113101) is stated when this instance's pixels were examined, *Clean Recognizable Visual
   Features* (113102) when it was defaced: neither follows from a profile alone.
3. A profile that keeps more than PS3.15 Table E.1-1 allows does not claim the Basic Profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mediator.deid.rules import ProfileTable

# PS3.16 CID 7050, by the option of PS3.15 E.3 that each code states
BASIC = ("113100", "Basic Application Confidentiality Profile")
OPTION_CODES = {
    "clean-pixel-data": ("113101", "Clean Pixel Data Option"),
    "clean-visual-features": ("113102", "Clean Recognizable Visual Features Option"),
    "clean-graphics": ("113103", "Clean Graphics Option"),
    "clean-structured-content": ("113104", "Clean Structured Content Option"),
    "clean-descriptors": ("113105", "Clean Descriptors Option"),
    "full-dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient-characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device-identity": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "safe-private": ("113111", "Retain Safe Private Option"),
    "institution-identity": ("113112", "Retain Institution Identity Option"),
}
# what only a look at the instance can make true
_BY_INSTANCE = frozenset({"clean-pixel-data", "clean-visual-features"})


@dataclass(frozen=True)
class Statement:
    """The four elements of one instance."""

    codes: tuple[tuple[str, str], ...]
    method: str
    temporal: str
    removed: str = "YES"


def profile_codes(options: Iterable[str], departs: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The codes that hold for whatever the profile is applied to. (1, 3)"""
    stated = [OPTION_CODES[option] for option in set(options) - _BY_INSTANCE]
    return tuple(sorted(stated if tuple(departs) else [BASIC, *stated]))


def statement(table: ProfileTable, *, pixels_examined: bool = False, defaced: bool = False) -> Statement:
    """What to write into one instance. (2)"""
    done = {"clean-pixel-data": pixels_examined, "clean-visual-features": defaced}
    codes = [*table.codes, *(OPTION_CODES[option] for option, was in done.items() if was)]
    return Statement(tuple(sorted(codes)), table.method, table.temporal)
