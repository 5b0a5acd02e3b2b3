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
    "BeamSequence", "DoseUnits", "SegmentationType",
)  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """What a profile says it does. `dates`: what becomes of StudyDate, SeriesDate and every other date of the table."""

    dates: Literal["moved", "month", "gone", "kept"]
    retained: tuple[str, ...] = _RETAINED
    not_null: tuple[str, ...] = ("PatientID", "PatientName", "SOPInstanceUID", "StudyInstanceUID")

    def holds(self, before: str, after: str, days: int) -> bool:
        """Whether a DA value became what was promised; `days`: how far another date of this patient was moved."""
        if self.dates == "moved":
            return after != "" and 0 < days == _day(before).toordinal() - _day(after).toordinal()
        if self.dates == "month":  # by itself, or together with its study's date
            together = after != "" and days == _day(before).toordinal() - _day(after).toordinal()
            return after == before[:6] + "01" or together
        return after == before if self.dates == "kept" else after in ("", "19000101")


# Retain Patient Characteristics and Clean Structured Content keep sex and the content of reports; the Basic Profile
# alone (PS3.15 Table E.1-1: Z and X) keeps neither, and removes what refers from one object to another.
_MORE = (*_RETAINED, "PatientSex", "ContentSequence", "Manufacturer")
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
    days = next((gap for before, after in pairs.values() if (gap := _gap(before, after))), 0)
    for token in tokens:
        found.count("text_removed", not any(token.lower() in text for text in texts.values()), token)
    for kind, (before, after) in pairs.items():
        for keyword in (keyword for keyword in promise.retained if keyword in before):
            found.count("tag_retained", keyword in after, f"{kind} {keyword}")
            same = keyword in after and (before[keyword].VR == "SQ" or after[keyword].value == before[keyword].value)
            found.count("text_retained", same, f"{kind} {keyword}")
        for keyword in promise.not_null:
            found.count("text_notnull", bool(after.get(keyword)), f"{kind} {keyword}")
        patients.setdefault(str(before.PatientID), set()).add(str(after.PatientID))
        found.count("date_shifted", not after.get("PatientBirthDate"), f"{kind} PatientBirthDate")
        for keyword in (name for name in ("StudyDate", "SeriesDate") if before.get(name)):
            told = promise.holds(before[keyword].value, str(after.get(keyword, "")), days)
            found.count("date_shifted", told, f"{kind} {keyword}")
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
