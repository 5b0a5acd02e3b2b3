"""Scoring as MIDI-B does (ten actions): over-removal counts as much as a leak.

`score(before, after, …)` asks ten kinds of question of pairs of datasets and counts right answers by action. What is
right follows from what a profile promises its reader (`PROMISES`, written down here), not from what an engine did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary

ACTIONS = (
    "tag_retained", "text_notnull", "text_retained", "text_removed", "date_shifted", "uid_changed", "uid_consistent",
    "patid_consistent", "pixels_hidden", "pixels_retained",
)  # fmt: skip
REMOVAL = ("text_removed", "date_shifted", "uid_changed", "pixels_hidden")
# what research needs and identifies nobody: there afterwards, with the same value where it has one
_RETAINED = (
    "SOPClassUID", "Modality", "Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "ImageType", "InstanceNumber", "SeriesNumber", "SegmentSequence", "StructureSetROISequence", "ROIContourSequence",
    "BeamSequence", "DoseUnits", "SegmentationType", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "KVP", "RepetitionTime", "EchoTime", "FlipAngle",
    "MagneticFieldStrength", "DoseGridScaling", "GridFrameOffsetVector", "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence", "BodyPartExamined", "PatientPosition", "ViewPosition", "ImageLaterality",
    "BodyPartThickness", "CompressionForce", "OrganDose", "ImagerPixelSpacing", "Units", "DecayCorrection",
)  # fmt: skip
# of a date by any of these names is asked, at any depth; a sequence that goes takes its dates with it
_DATES = frozenset({
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstanceCreationDate",
    "PerformedProcedureStepStartDate", "ScheduledProcedureStepStartDate", "RadiopharmaceuticalStartDateTime",
    "DateOfSecondaryCapture", "FrameAcquisitionDateTime",
})  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """What a profile says it does. `dates`: what becomes of StudyDate, SeriesDate and every other date of the table."""

    dates: Literal["moved", "month", "gone", "kept"]
    retained: tuple[str, ...] = _RETAINED
    not_null: tuple[str, ...] = ("PatientID", "PatientName", "SOPInstanceUID", "StudyInstanceUID")

    def holds(self, before: str, after: str, days: int) -> bool:
        """Whether a DA or DT value became what was promised; `days`: how far this patient's dates were moved, and
        where they are cut to their month, the date of this study."""
        if self.dates == "kept":
            return after == before
        if self.dates == "gone":
            return after in ("", "19000101", "19000101000000")
        if not after or after[8:] != before[8:]:  # the time of day stays
            return False
        moved = _day(before).toordinal() - _day(after).toordinal()
        return 0 < days == moved if self.dates == "moved" else after[:8] == before[:6] + "01" or moved == days


# Retain Patient Characteristics and Clean Structured Content keep sex and the content of reports; the Basic Profile
# alone (PS3.15 Table E.1-1: Z and X) keeps neither, and removes what refers from one object to another.
# Clean Descriptors and Retain Patient Characteristics keep these where they hold terms alone.
_MORE = (
    *_RETAINED, "PatientSex", "ContentSequence", "Manufacturer", "SeriesDescription", "StudyDescription",
    "ProtocolName", "ConvolutionKernel", "ManufacturerModelName", "PatientWeight", "PatientSize",
    "RadiopharmaceuticalInformationSequence",
)  # fmt: skip
PROMISES = {
    "basic": Promise("gone"),
    "eucaim": Promise("moved", _MORE),
    "eucaim-v5": Promise("month", _MORE, (*Promise("month").not_null, "InstitutionName")),
    "pseudonymise": Promise("kept", _MORE, (*Promise("kept").not_null, "IssuerOfPatientID")),
}


@dataclass
class Score:
    """Right and asked, by action; the wrong answers by name."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, action: str, good: bool, what: str) -> None:
        self.asked[action] += 1
        self.right[action] += good
        if not good:
            self.wrong.append(f"{action}: {what}")

    def add(self, other: Score) -> None:
        self.right += other.right
        self.asked += other.asked
        self.wrong += other.wrong

    def share(self, actions: Iterable[str] = ACTIONS) -> float:
        """Right answers of all asked under these actions."""
        chosen = list(actions)
        return sum(self.right[action] for action in chosen) / max(1, sum(self.asked[action] for action in chosen))


def score(pairs: Mapping[str, tuple[Dataset, Dataset]], tokens: Iterable[str], promise: Promise) -> Score:
    """`pairs`: (before, after) by kind, of one patient; `tokens`: what may be nowhere."""
    found = Score()
    new_uid: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    texts = {kind: _text(after) for kind, (_, after) in pairs.items()}
    everywhere = "\n".join(texts.values())
    planted = tuple(tokens)
    for token in planted:
        found.count("text_removed", token.lower() not in everywhere, token)
    moved = next((gap for before, after in pairs.values() if (gap := _gap(before, after))), 0)
    for kind, (before, after) in pairs.items():
        _score_retained(found, kind, before, after, promise, planted)
        patients.setdefault(str(before.PatientID), set()).add(str(after.PatientID))
        found.count("date_shifted", not after.get("PatientBirthDate"), f"{kind} PatientBirthDate")
        days = _gap(before, after) if promise.dates == "month" else moved
        for keyword, old, new in _dates(before, after):
            found.count("date_shifted", promise.holds(old, new, days), f"{kind} {keyword} {old} {new}")
        for old, new in _both(before, after, "UI"):
            if old not in UID_dictionary:
                found.count("uid_changed", old != new, f"{kind} UID")
                new_uid.setdefault(old, set()).add(new)
        if "PixelData" in before:
            found.count("pixels_retained", before.PixelData == after.get("PixelData"), kind)
    for uids in new_uid.values():
        found.count("uid_consistent", len(uids) == 1, "UID")
    for names in patients.values():
        found.count("patid_consistent", len(names) == 1, "patient")
    return found


def _score_retained(
    found: Score, kind: str, before: Dataset, after: Dataset, promise: Promise, tokens: tuple[str, ...]
) -> None:
    """What a profile promises to keep is there; and where no identifier was put into it, is what it was."""
    for keyword in (keyword for keyword in promise.retained if before.get(keyword) not in (None, "")):
        if any(token in str(before[keyword].value) for token in tokens):
            continue  # what is left of it is nothing, or a word
        found.count("tag_retained", keyword in after, f"{kind} {keyword}")
        same = keyword in after and (before[keyword].VR == "SQ" or after[keyword].value == before[keyword].value)
        found.count("text_retained", same, f"{kind} {keyword} {before[keyword].value}")
    for keyword in promise.not_null:
        found.count("text_notnull", bool(after.get(keyword)), f"{kind} {keyword}")


def _dates(before: Dataset, after: Dataset) -> Iterable[tuple[str, str, str]]:
    """(keyword, before, after) of each date at any depth; "" is one that went."""
    for element in before:
        if element.VR == "SQ":
            left = after[element.tag].value if element.tag in after else ()
            for one, other in zip(element.value, left, strict=False):
                yield from _dates(one, other)
        elif element.keyword in _DATES and element.value:
            yield element.keyword, str(element.value), str(after.get(element.keyword) or "")


def _gap(before: Dataset, after: Dataset) -> int:
    """How many days StudyDate was moved; 0 where it cannot be said."""
    old, new = str(before.get("StudyDate", "")), str(after.get("StudyDate", ""))
    return _day(old).toordinal() - _day(new).toordinal() if old and new else 0


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def score_hidden(found: Score, after: np.ndarray, boxes: Iterable[tuple[int, int, int, int]]) -> None:
    """`boxes` (left, top, right, bottom) held text; (rows, columns) afterwards: nothing stands out in them."""
    for left, top, right, bottom in boxes:
        found.count("pixels_hidden", int(np.ptp(after[top:bottom, left:right])) == 0, "box")


def _text(dataset: Dataset) -> str:
    """All values at any depth, lower case."""
    values = [dataset.preamble or b"", *(element.value for element in dataset.file_meta)]
    values += [element.value for element in dataset.iterall() if element.VR != "SQ" and element.keyword != "PixelData"]
    return "\n".join(v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in values).lower()


def _both(before: Dataset, after: Dataset, vr: str) -> Iterable[tuple[str, str]]:
    """Non-empty values at the same place in both, at any depth."""
    for element in before:
        if element.tag not in after:
            continue
        if element.VR == "SQ":
            for one, other in zip(element.value, after[element.tag].value, strict=False):
                yield from _both(one, other, vr)
        elif element.VR == vr and element.value and after[element.tag].value:  # noqa: SIM300
            yield str(element.value), str(after[element.tag].value)
