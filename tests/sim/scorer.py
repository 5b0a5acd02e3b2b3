"""Scoring as MIDI-B does (ten actions): over-removal counts as much as a leak.

`score(before, after, …)` asks ten kinds of question of pairs of datasets and counts right answers by action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary

ACTIONS = (
    "tag_retained", "text_notnull", "text_retained", "text_removed", "date_shifted", "uid_changed", "uid_consistent",
    "patid_consistent", "pixels_hidden", "pixels_retained",
)  # fmt: skip
REMOVAL = ("text_removed", "date_shifted", "uid_changed", "pixels_hidden")
# what research needs and identifies nobody: there afterwards, with the same value where it has one
RETAINED = (
    "SOPClassUID", "Modality", "Rows", "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation",
    "ImageType", "PatientSex", "InstanceNumber", "SeriesNumber", "SegmentSequence", "StructureSetROISequence",
    "ROIContourSequence", "ContentSequence", "BeamSequence", "DoseUnits", "SegmentationType",
)  # fmt: skip


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


def score(pairs: Mapping[str, tuple[Dataset, Dataset]], tokens: Iterable[str]) -> Score:
    """`pairs`: (before, after) by kind; `tokens`: what may be nowhere."""
    found = Score()
    new_uid: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    texts = {kind: _text(after) for kind, (_, after) in pairs.items()}
    for token in tokens:
        found.count("text_removed", not any(token.lower() in text for text in texts.values()), token)
    for kind, (before, after) in pairs.items():
        for keyword in (keyword for keyword in RETAINED if keyword in before):
            found.count("tag_retained", keyword in after, f"{kind} {keyword}")
            same = keyword in after and (before[keyword].VR == "SQ" or after[keyword].value == before[keyword].value)
            found.count("text_retained", same, f"{kind} {keyword}")
        for keyword in ("PatientID", "PatientName", "SOPInstanceUID", "StudyInstanceUID"):
            found.count("text_notnull", bool(after.get(keyword)), f"{kind} {keyword}")
        patients.setdefault(str(before.PatientID), set()).add(str(after.PatientID))
        for old, new in _both(before, after, "DA"):
            found.count("date_shifted", old != new, f"{kind} date")
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
