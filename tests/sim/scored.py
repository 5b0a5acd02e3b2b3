"""Patients whose files the MIDI-B score is asked of: some thirty objects each, of every kind that is published, with
identifiers where they hide and with terms, numbers, dates and references that must stay.

`patients(count, seed)` makes them; `through_gate(…)` sends them through gate 0 and counts right answers by action.
"""

from __future__ import annotations

import copy
import io
import random
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Facts
from node.deid.deidentify import Gate0
from node.deid.engine import open_engine
from node.deid.pixels import Instance, PixelGate
from node.deid.stream import MemoryStream
from tests.sim.containers import planted_study
from tests.sim.dicom import raw_element, to_bytes
from tests.sim.measurable import MAKERS
from tests.sim.pictures import as_file, cr, dataset, draw, us
from tests.sim.scorer import ACTIONS, PROMISES, Score, score, score_hidden

KEYED = Pseudonyms(bytes(32), "score")
# what a person types, by VR: a token alone, or beside words that may stay
_PLACES: tuple[tuple[int, str], ...] = (
    (0x00080081, "ST"), (0x00081010, "SH"), (0x00081040, "LO"), (0x00104000, "LT"),
    (0x001021B0, "LT"), (0x00102180, "SH"), (0x00101040, "LO"), (0x00204000, "LT"), (0x00321060, "LO"),
    (0x00321032, "PN"), (0x00400253, "SH"), (0x00400254, "LO"), (0x00080090, "PN"), (0x00081050, "PN"),
    (0x00081070, "PN"), (0x00101001, "PN"), (0x00101000, "LO"), (0x00380010, "LO"), (0x00402016, "LO"),
    (0x00402017, "LO"), (0x00181000, "LO"), (0x00180022, "CS"), (0x00181400, "LO"), (0x00189424, "LT"),
    (0x00080119, "UC"), (0x0040A160, "UT"), (0x00420010, "ST"),
)  # fmt: skip
# terms that a profile with Clean Descriptors leaves as they stand
_TERMS: Mapping[str, tuple[str, ...]] = {
    "SeriesDescription": ("Abdomen 5mm B30f", "AX T2 FSE", "Thorax 1.0", "DWI b800 ADC"),
    "StudyDescription": ("CT Abdomen", "MR Liver", "Chest", "PET whole body"),
    "ProtocolName": ("Abdomen", "Liver", "Thorax"),
    "BodyPartExamined": ("ABDOMEN", "LIVER", "CHEST", "BREAST"),
    "ConvolutionKernel": ("B30f", "STANDARD", "FC08"),
    "ManufacturerModelName": ("SOMATOM Force", "Ingenia", "Discovery ST"),
    "PatientPosition": ("HFS", "FFS"),
    "PatientSex": ("F", "M"),
}
_NUMBERS: Mapping[str, object] = {"KVP": "120", "RepetitionTime": "812.5", "EchoTime": "86", "FlipAngle": "90"}


@dataclass
class Patient:
    """Files by kind, and what may be nowhere afterwards."""

    files: dict[str, Dataset] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)


def patients(count: int, seed: int = 1) -> Iterator[Patient]:
    chance = random.Random(seed)
    with config.disable_value_validation():
        for number in range(count):
            one = Patient()
            name, number_of = _token(chance, one), _token(chance, one).upper()
            one.tokens[-1] = number_of
            for kind, make in MAKERS.items():
                for place, made in enumerate(make()):
                    _own_uids(made, f"{number}.{len(kind)}{sum(kind.encode())}")
                    made.PatientName, made.PatientID = f"{name}^Wilhelmina", number_of
                    _plant(made, chance, one)
                    one.files[f"{kind} {place}"] = made
            yield one


def _token(chance: random.Random, patient: Patient) -> str:
    word = "Zq" + "".join(chance.choices(string.ascii_lowercase, k=10))
    patient.tokens.append(word)
    return word


def _own_uids(made: Dataset, tail: str) -> None:
    """UIDs that are the standard's stay; all others are this patient's."""
    for element in made.iterall():
        if element.VR == "UI" and str(element.value) not in UID_dictionary:
            element.value = f"{element.value}.{tail}"


def _plant(made: Dataset, chance: random.Random, patient: Patient) -> None:
    for keyword, terms in _TERMS.items():
        setattr(made, keyword, chance.choice(terms))
    for keyword, number in _NUMBERS.items():
        setattr(made, keyword, number)
    for keyword in ("AcquisitionDate", "ContentDate", "InstanceCreationDate", "PerformedProcedureStepStartDate"):
        setattr(made, keyword, made.get("AcquisitionDate") or "20240131")
    made.AcquisitionDateTime = f"{made.AcquisitionDate}101530.25"
    made.InstitutionName = _token(chance, patient)
    for tag, vr in chance.sample(_PLACES, 12):
        word = _token(chance, patient)
        if vr == "CS":
            word = patient.tokens[-1] = word.upper()
        value = f"{word}^{word[::-1]}" if vr == "PN" else word
        made[tag] = raw_element(tag, vr, value.encode() + b" " * (len(value) % 2))
    if chance.random() < 0.3:  # beside a word that stays
        made.SeriesDescription = f"Abdomen {_token(chance, patient)}"
    inner = Dataset()
    inner.PatientName, inner.StudyDate = _token(chance, patient), "20240131"
    inner.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    inner.ReferencedSOPInstanceUID = made.SOPInstanceUID
    inner.private_block(0x0011, _token(chance, patient), create=True).add_new(1, "LO", _token(chance, patient))
    made.ReferencedImageSequence = Sequence([inner])
    made.private_block(0x0013, _token(chance, patient), create=True).add_new(1, "UN", _token(chance, patient).encode())


def through_gate(several: Iterable[Patient], profile: str, folder: Path) -> Score:
    """The score of patients' files, each read as it was written, and of what was made of it."""
    gate, found, pseudonyms, number = Gate0(open_engine(profile), KEYED, "alpha", review=True), Score(), [], 0
    with config.disable_value_validation():
        for patient in several:
            pairs = {}
            for kind, made in patient.files.items():
                number += 1
                before, after = _pair(gate, to_bytes(copy.deepcopy(made)), folder, number)
                pairs[kind] = before, after
            pseudonyms.append(str(after.PatientID))
            found.add(score(pairs, patient.tokens, PROMISES[profile]))
    found.count("patid_consistent", len(set(pseudonyms)) == len(pseudonyms), "two patients are one")
    return found


def containers_through_gate(profile: str, folder: Path) -> Score:
    """The score of one study with an object of every kind that gate 0 takes."""
    (folder / "planted").mkdir()
    planted = planted_study(folder / "planted")
    gate = Gate0(open_engine(profile), KEYED, "alpha", review=True)
    taken = {kind: path for kind, path in planted.files.items() if kind not in ("pdf", "cda", "dicomdir")}
    with config.disable_value_validation():
        pairs = {kind: _pair(gate, path.read_bytes(), folder, kind) for kind, path in taken.items()}
        return score(pairs, planted.tokens, PROMISES[profile])


def _pair(gate: Gate0, raw: bytes, folder: Path, name: object) -> tuple[Dataset, Dataset]:
    outcome = gate.begin(MemoryStream(raw), folder, lambda _: f"{name}.out")()
    assert outcome.path is not None, outcome.reasons
    return pydicom.dcmread(io.BytesIO(raw)), pydicom.dcmread(outcome.path)


def pictures_through_gate(profile: str, folder: Path, count: int, reader: PixelGate) -> Score:
    """The tenth action, of pictures with a name drawn into them: gate 0, then whoever reads pixels."""
    gate, found = Gate0(open_engine(profile), KEYED, review=True), Score()
    for number in range(count):
        kind, make, at = (("US", us, (120, 150)), ("CR", cr, (300, 460)))[number % 2]
        frame = make(3 + number)
        ink = draw(frame, "HARTOG 19310503", at, 28, float(frame.max()))
        raw = as_file(folder / f"{number}-picture.dcm", dataset(kind, frame)).read_bytes()
        outcome = gate.begin(MemoryStream(raw), folder, lambda _, n=number: f"{n}-picture.out")()
        assert outcome.path is not None, outcome.reasons
        reader.examine([Instance(outcome.path, Facts(modality=kind, has_pixels=True))])
        rows, columns = ink.nonzero()
        drawn = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        score_hidden(found, pydicom.dcmread(outcome.path).pixel_array, [drawn])
    return found


def table(scores: Mapping[str, Score]) -> str:
    """By action and profile: right answers in per cent, of how many; for the manual."""
    lines = [f"| | {' | '.join(f'`{name}`' for name in scores)} |", "|---|" + "---|" * len(scores)]
    for action in ACTIONS:
        cells = [f"{100 * one.share([action]):.2f} of {one.asked[action]}" for one in scores.values()]
        lines.append(f"| {action} | {' | '.join(cells)} |")
    cells = [f"{100 * one.share():.2f} of {one.asked.total()}" for one in scores.values()]
    return "\n".join([*lines, f"| all | {' | '.join(cells)} |"])
