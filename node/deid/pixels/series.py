"""Is a series whole? Findings by name, from headers alone.

1. *mixed_series*: instances of one series that disagree on modality, frame of reference, study or patient.
2. *missing_slices*: parallel slices of one orientation and size whose spacing has a gap, or whose numbers have one
   where they have no positions.
3. *doubled_slices*: two instances at one position of one acquisition, phase and echo.
4. *unreadable_syntax*: pixels in a syntax nobody here decodes.
5. *unreadable_header*: a file that cannot be read at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import pydicom

from node.deid.pixels.frames import DECODERS, NATIVE

# Positions are decimal text rounded by the scanner; half a slice more than usual is one that is not there.
GAP = 1.5
# Slices closer than this are at one position, mm.
SAME_MM = 0.01
_MIN_SLICES = 3
# Kept small: what a verdict on geometry needs.
_TAGS = [
    "Modality", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "FrameOfReferenceUID", "Rows", "Columns",
    "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "NumberOfFrames", "ImageType",
    "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "TriggerTime", "DiffusionBValue",
]  # fmt: skip

_STACK = (
    "Rows", "Columns", "ImageType", "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "TriggerTime",
    "DiffusionBValue",
)  # fmt: skip


class SeriesFinding(StrEnum):
    """What is wrong with a series. Closed; counted by name."""

    MIXED = "mixed_series"
    MISSING = "missing_slices"
    DOUBLED = "doubled_slices"
    SYNTAX = "unreadable_syntax"
    HEADER = "unreadable_header"


@dataclass(frozen=True)
class Slice:
    """What one instance says of its place. Positions in mm; `along` is the position on the slices' normal."""

    series: str
    identity: tuple[str, ...]  # patient, study, modality, frame of reference
    stack: tuple[Any, ...]  # orientation, size, acquisition, echo, phase: what makes one stack of slices
    along: float | None
    number: int | None
    syntax: str
    frames: int


def read_slice(path: Path) -> Slice | None:
    """The facts of one file; None when its header cannot be read."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        said = {name: str(header.get(name, "") or "") for name in _TAGS}
        position, orientation = (
            _numbers(header, "ImagePositionPatient", 3),
            _numbers(header, "ImageOrientationPatient", 6),
        )
        along = None
        if position and orientation:
            along = float(np.dot(np.cross(orientation[:3], orientation[3:]), position))
        stack = (tuple(round(value, 3) for value in orientation or ()), *(said[name] for name in _STACK))
        return Slice(
            said["SeriesInstanceUID"],
            tuple(said[name] for name in ("PatientID", "StudyInstanceUID", "Modality", "FrameOfReferenceUID")),
            stack,
            along,
            int(said["InstanceNumber"]) if said["InstanceNumber"].isdigit() else None,
            str(header.file_meta.get("TransferSyntaxUID", "")),
            int(said["NumberOfFrames"] or 1),
        )
    except Exception:  # noqa: BLE001 - the engine seam: a header that breaks pydicom is the finding
        return None


def integrity(slices: Iterable[Slice | None]) -> dict[str, tuple[SeriesFinding, ...]]:
    """Findings by series (as the files name it; "" for files without a header), series without any left out."""
    by_series: dict[str, list[Slice]] = defaultdict(list)
    findings: dict[str, tuple[SeriesFinding, ...]] = {}
    for one in slices:
        if one is None:
            findings[""] = (SeriesFinding.HEADER,)  # (5)
        else:
            by_series[one.series].append(one)
    for series, members in by_series.items():
        found = _of_series(members)
        if found:
            findings[series] = found
    return findings


def _of_series(members: Sequence[Slice]) -> tuple[SeriesFinding, ...]:
    found: list[SeriesFinding] = []
    if len({member.identity for member in members}) > 1:  # (1)
        found.append(SeriesFinding.MIXED)
    stacks: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    for member in members:
        if member.frames == 1:
            stacks[member.stack].append(member)
    if any(_has_gap(stack) for stack in stacks.values()):  # (2)
        found.append(SeriesFinding.MISSING)
    if any(_has_doubles(stack) for stack in stacks.values()):  # (3)
        found.append(SeriesFinding.DOUBLED)
    if any(member.syntax not in DECODERS and member.syntax not in NATIVE for member in members):  # (4)
        found.append(SeriesFinding.SYNTAX)
    return tuple(found)


def _has_gap(stack: Sequence[Slice]) -> bool:
    places = sorted({round(one.along / SAME_MM) for one in stack if one.along is not None})
    if len(places) >= _MIN_SLICES:
        steps = [after - before for before, after in pairwise(places)]
        return max(steps) > GAP * median_low(steps)
    if places:
        return False
    numbers = sorted({one.number for one in stack if one.number is not None})
    return len(numbers) >= _MIN_SLICES and numbers[-1] - numbers[0] + 1 > len(numbers)


def _has_doubles(stack: Sequence[Slice]) -> bool:
    counts = Counter(round(one.along / SAME_MM) for one in stack if one.along is not None)
    # a localizer or a cine without times stays in one place throughout
    return len(counts) > 1 and max(counts.values()) > 1


def _numbers(header: pydicom.Dataset, name: str, count: int) -> list[float] | None:
    values = header.get(name)
    if values is None or isinstance(values, str) or len(values) != count:
        return None
    return [float(value) for value in values]
