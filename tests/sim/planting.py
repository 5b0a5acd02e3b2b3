"""Identifiers planted where they hide: every VR that can hold text, every depth, and everything around a dataset.

`plant` changes a folder of DICOM files in place (and a clinical.csv beside them) and returns the strings it planted.
It keeps no list of its own and writes none. The files still are what they were: a de-identifier that cannot remove
the tokens must fail, not refuse the file.
"""

from __future__ import annotations

import csv
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.sim.dicom import raw_element

# (keyword, VR) of one element for every VR that holds text; some in PS3.15 Table E.1-1, some not, some kept cleaned.
_PLACES: tuple[tuple[int, str], ...] = (
    (0x00080054, "AE"), (0x00080055, "AE"),
    (0x00180022, "CS"), (0x00181140, "CS"), (0x00102203, "CS"),
    (0x00080080, "LO"), (0x0008103E, "LO"), (0x00181030, "LO"), (0x00181000, "LO"), (0x00101040, "LO"),
    (0x00081090, "LO"), (0x00080070, "LO"), (0x00700081, "LO"), (0x00101090, "LO"), (0x00321060, "LO"),
    (0x00081010, "SH"), (0x00200010, "SH"), (0x00102154, "SH"), (0x00080094, "SH"), (0x00181210, "SH"),
    (0x00080081, "ST"), (0x00420010, "ST"), (0x00080092, "ST"), (0x001021B0, "LT"), (0x00104000, "LT"),
    (0x00204000, "LT"), (0x00189424, "LT"), (0x0040A160, "UT"), (0x00080119, "UC"), (0x00080120, "UR"),
    (0x00287FE0, "UR"), (0x0040E010, "UR"),
    (0x00080090, "PN"), (0x00081070, "PN"), (0x00081050, "PN"), (0x00101001, "PN"),
    (0x00101030, "DS"), (0x00200019, "IS"), (0x00080030, "TM"), (0x0008002A, "DT"), (0x00100030, "DA"),
    (0x00083010, "UI"), (0x00200200, "UI"),
    (0x00420011, "OB"), (0x00282000, "OB"), (0x00700402, "OB"),
)  # fmt: skip


class _Tokens:
    """Unique strings from a seed; each remembers that it was planted."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.planted: list[str] = []

    def __call__(self, vr: str = "LO") -> str:
        letters = "".join(self._random.choices(string.ascii_uppercase, k=9))
        digits = "".join(self._random.choices(string.digits, k=12))
        token = {
            "UI": f"1.2.826.0.1.9876543.{digits[:6].lstrip('0') or '7'}.{digits[6:].lstrip('0') or '7'}",
            "CS": f"QZ{letters}",
            "DS": f"QZ{letters}",
            "IS": f"QZ{letters}",
            "TM": f"QZ{letters}",
            "DA": f"QZ{letters[:6]}",
            "DT": f"19{digits[0]}30{digits[1]}11101010.{digits[:6]}",
            "PN": f"Jansen{letters.lower()}",
        }.get(vr, f"Qz-{letters.lower()}{digits[:4]}")
        self.planted.append(token)
        return token

    def name(self) -> str:
        """A name outside ASCII."""
        kana = "".join(self._random.choices("アイウエオカキクケコサシスセソタチツテト", k=7))
        self.planted.append(kana)
        return kana

    def umlaut(self) -> str:
        token = "Ö" + "".join(self._random.choices("äöüéèßbdfghklm", k=9))
        self.planted.append(token)
        return token


def plant(folder: Path, count: int = 300, seed: int = 1) -> list[str]:
    """Plant at least `count` strings in the CT and MR files below `folder`, rename files, extend clinical.csv.

    The identifiers the planted files had before (PatientID, UIDs, accession number) are among what is returned.
    Raises `ValueError` when there are too few files to hold so many.
    """
    tokens = _Tokens(seed)
    originals: list[str] = []
    with config.disable_value_validation():
        for number, path in enumerate(_candidates(folder)):
            if len(tokens.planted) >= count:
                break
            originals += _plant_file(path, tokens, number)
    if len(tokens.planted) < count:
        raise ValueError(f"{len(tokens.planted)} places for {count} tokens: more files are needed")
    _plant_table(folder / "clinical.csv", tokens)
    return list(dict.fromkeys(tokens.planted + originals))


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.dcm")):
        try:
            head = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError):
            continue
        if head.get("Modality") in ("CT", "MR") and head.get("PatientID") and "PixelData" in pydicom.dcmread(path):
            yield path


def _plant_file(path: Path, tokens: _Tokens, number: int) -> list[str]:
    dataset = pydicom.dcmread(path)
    originals = [
        str(dataset[keyword].value)
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber")
        if keyword in dataset and len(str(dataset[keyword].value)) >= 6
    ]
    charset: Callable[[Dataset], None] = (_ascii, _utf8, _japanese, _latin)[number % 4]
    for tag, vr in _PLACES:
        # as bytes: text where a number or a date belongs is a fault that files do have, and pydicom would refuse it
        value = tokens(vr).encode()
        value += (b"\0" if vr in ("OB", "UI") else b" ") * (len(value) % 2)
        dataset[tag] = raw_element(tag, vr, value)
    charset(dataset)
    _names(dataset, tokens, number)
    _nested(dataset, tokens)
    _private(dataset, tokens)
    _graphics(dataset, tokens)
    _meta(dataset, tokens)
    dataset.preamble = tokens().encode().ljust(128, b"\0")
    dataset.add_new(0xFFFCFFFC, "OB", tokens().encode().ljust(24, b"\0"))
    target = path.with_name(f"{tokens()}.dcm")
    dataset.save_as(target, enforce_file_format=False)
    with target.open("ab") as file:
        file.write(tokens().encode() + b"\0\0")
    path.unlink()
    if number % 5 == 0:
        target.parent.rename(target.parent.with_name(tokens()))
    return originals


def _ascii(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 6"


def _utf8(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"


def _japanese(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]


def _latin(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"


def _names(dataset: Dataset, tokens: _Tokens, number: int) -> None:
    """Names of five components in three groups, several in one element, in the character set of the file."""
    family, given, middle = tokens("PN"), tokens("PN"), tokens("PN")
    foreign = {1: tokens.name, 2: tokens.name, 3: tokens.umlaut}.get(number % 4, lambda: tokens("PN"))
    dataset.add_new(0x00081048, "PN", [f"{family}^{given}^{middle}^Dr^PhD={foreign()}^{foreign()}", tokens("PN")])
    dataset.add_new(0x00081060, "PN", f"{tokens('PN')}={foreign()}")
    dataset.add_new(0x00102160, "SH", tokens("SH"))


def _nested(dataset: Dataset, tokens: _Tokens) -> None:
    """Depth 1, 2 and 8, inside sequences that a profile lets stay, and in OriginalAttributesSequence."""
    for depth, tag in ((1, 0x00081140), (2, 0x00081115), (8, 0x00082218)):
        item = Dataset()
        item.PatientName, item.PatientID = tokens("PN"), tokens()
        item.add_new(0x0008103E, "LO", tokens())
        item.add_new(0x00081155, "UI", tokens("UI"))
        item.add_new(0x0040A160, "UT", tokens())
        item.add_new(0x00080104, "LO", tokens())
        block = item.private_block(0x0011, f"NESTED {depth}", create=True)
        block.add_new(0x01, "LO", tokens())
        for _level in range(depth - 1):
            outer = Dataset()
            outer.add_new(tag, "SQ", Sequence([item]))
            item = outer
        dataset.add_new(tag, "SQ", Sequence([item]))
    former = Dataset()
    former.PatientName, former.PatientID = tokens("PN"), tokens()
    record = Dataset()
    record.add_new(0x04000550, "SQ", Sequence([former]))
    record.add_new(0x04000563, "LO", tokens())
    record.add_new(0x04000564, "LO", tokens())
    dataset.add_new(0x04000561, "SQ", Sequence([record]))


def _private(dataset: Dataset, tokens: _Tokens) -> None:
    """Private blocks with text in the creator, with no creator, with UN, OB and a sequence; unknown even elements."""
    block = dataset.private_block(0x0009, tokens(), create=True)
    item = Dataset()
    item.PatientName = tokens("PN")
    for element, vr, value in (
        (0x01, "LO", tokens()),
        (0x02, "OB", tokens().encode() + b"\0"),
        (0x03, "UN", tokens().encode() + b"\0"),
        (0x04, "SQ", Sequence([item])),
    ):
        block.add_new(element, vr, value)
    dataset.add_new(0x00131001, "LO", tokens())  # no creator reserves this block
    dataset.add_new(0x00210010, "LO", "SIEMENS MED")
    dataset.add_new(0x00211012, "UN", tokens().encode() + b"\0")
    dataset.add_new(0x00187777, "LO", tokens())
    dataset.add_new(0x00107776, "UN", tokens().encode() + b"\0")
    dataset[0x00102180] = raw_element(0x00102180, "UN", tokens().encode())  # Occupation


def _graphics(dataset: Dataset, tokens: _Tokens) -> None:
    """Overlays and curves: comment, label and the bits themselves."""
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 64)
    dataset.add_new(0x60000022, "LO", tokens())
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60001500, "LO", tokens())
    dataset.add_new(0x60003000, "OW", tokens().encode().ljust(64, b"\0"))
    dataset.add_new(0x60004000, "LT", tokens())
    dataset.add_new(0x50000022, "LO", tokens())
    dataset.add_new(0x50003000, "OW", tokens().encode().ljust(32, b"\0"))


def _meta(dataset: Dataset, tokens: _Tokens) -> None:
    meta = dataset.file_meta
    meta.ImplementationVersionName = tokens("SH")
    meta.SourceApplicationEntityTitle = tokens("AE")
    meta.SendingApplicationEntityTitle = tokens("AE")
    meta.ReceivingApplicationEntityTitle = tokens("AE")
    meta.PrivateInformationCreatorUID = tokens("UI")
    meta.PrivateInformation = tokens().encode() + b"\0"


def _plant_table(path: Path, tokens: _Tokens) -> None:
    """Columns nobody ordered: a name and a telephone number in every row."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["name"], row["phone"] = tokens("PN"), f"+31 {tokens()}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
