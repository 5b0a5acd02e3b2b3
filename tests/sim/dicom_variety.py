"""DICOM files of every kind a reader must know: every VR, every nesting, every way of writing lengths, each syntax."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests.sim.dicom import ct_slice, raw_element, to_bytes

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
Entry = tuple[int, str, bytes]
# one element of each VR, with a value as bytes in little endian
EVERY_VR: tuple[Entry, ...] = (
    (0x00080054, "AE", b"ARCHIVE "), (0x00101010, "AS", b"045Y"), (0x00209165, "AT", struct.pack("<HH", 0x20, 0x32)),
    (0x00180015, "CS", b"CHEST "), (0x00080022, "DA", b"20240301"), (0x00180050, "DS", b"1.25"),
    (0x0008002A, "DT", b"20240301101010.5+0100 "), (0x00189306, "FD", struct.pack("<d", 0.7)),
    (0x00189073, "FL", struct.pack("<f", 2.5)), (0x00200013, "IS", b"12"), (0x00081030, "LO", b"Chest 5mm "),
    (0x00104000, "LT", b"seen by Hartog"), (0x00420011, "OB", b"%PDF-1.4"),
    (0x00660022, "OD", struct.pack("<2d", 1, 2)),
    (0x00660016, "OF", struct.pack("<2f", 1, 2)), (0x00660023, "OL", struct.pack("<2L", 1, 2)),
    (0x7FE00001, "OV", struct.pack("<Q", 0)), (0x00281201, "OW", struct.pack("<4H", 1, 2, 3, 4)),
    (0x00081070, "PN", b"Opera^Tor "), (0x00080094, "SH", b"555-0199"), (0x00186020, "SL", struct.pack("<l", -3)),
    (0x00280106, "SS", struct.pack("<h", -5)), (0x00080081, "ST", b"Street 1"),
    (0x00720082, "SV", struct.pack("<q", -1)),
    (0x00080030, "TM", b"101010.5"), (0x00080119, "UC", b"some long code"), (0x00200052, "UI", b"1.2.826.0.1.9\0"),
    (0x00186016, "UL", struct.pack("<L", 7)), (0x0040A992, "UN", b"odd unknown "), (0x00080120, "UR", b"urn:x:1 "),
    (0x00280006, "US", struct.pack("<H", 0)), (0x0040A160, "UT", b"free text of Hartog "),
    (0x00720083, "UV", struct.pack("<Q", 1)),
)  # fmt: skip


def variety(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(transfer syntax, file): small CT slices with any of the elements above, nested anyhow."""
    chance = random.Random(seed)
    for _ in range(count):
        syntax = chance.choice(SYNTAXES)
        dataset = ct_slice()
        dataset.InstanceNumber = chance.randint(1, 500)
        if syntax == ExplicitVRBigEndian:
            del dataset.PixelData
            dataset.add_new(0x7FE00010, "OW", np.arange(64, dtype=">i2").tobytes())
            _plain(dataset, chance, [entry for entry in EVERY_VR if _is_text(entry[1])])
        else:
            _plain(dataset, chance, EVERY_VR)
        for tag in (0x00081140, 0x00082112, 0x00089215, 0x00400275, 0x00091010):
            if chance.random() < 0.6:
                _nest(dataset, chance, tag, chance.randint(1, 5), text_only=syntax == ExplicitVRBigEndian)
        yield syntax, to_bytes(dataset, syntax)


def _is_text(vr: str) -> bool:
    return vr not in ("AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "UN", "US", "UV")


def _plain(
    dataset: Dataset, chance: random.Random, entries: list[tuple[int, str, bytes]] | tuple[tuple[int, str, bytes], ...]
) -> None:
    for tag, vr, value in entries:
        if chance.random() < 0.5:
            dataset[tag] = raw_element(tag, vr, value)


def _nest(dataset: Dataset, chance: random.Random, tag: int, depth: int, *, text_only: bool) -> None:
    items = []
    for _ in range(chance.randint(0, 2)):
        item = Dataset()
        _plain(
            item,
            chance,
            [entry for entry in EVERY_VR if entry[0] < 0x7FE00000 and (not text_only or _is_text(entry[1]))],
        )
        if depth > 1:
            _nest(item, chance, 0x0040A730 if chance.random() < 0.5 else 0x00081140, depth - 1, text_only=text_only)
        item.is_undefined_length_sequence_item = chance.random() < 0.5
        items.append(item)
    dataset.add_new(tag, "SQ", Sequence(items))
    dataset[tag].is_undefined_length = chance.random() < 0.5
