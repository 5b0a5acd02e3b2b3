"""Troubles planted among each hospital's good studies: each must be found, for its own reason, and no good study lost.

One study each, of a person who has no other: what comes out of any archive in daily life, and may not be published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from tests.sim import pictures
from tests.sim.dicom import to_bytes

# gate 0's reason, and what a person would say of it
TROUBLES: Mapping[str, str] = {
    "pixel_text_not_checked": "an ultrasound picture with a name burned into it",
    "truncated": "a file that was cut off in the middle",
    "patient_mismatch": "two patients' images in one study",
    "pixels_missing": "an image without its pixels",
}


def plant(folder: Path, site: str) -> list[str]:
    """Write one study of each trouble below `folder`; the identifiers in them."""
    identifiers = []
    for number, (reason, write) in enumerate(_WRITERS.items(), 1):
        at = folder / f"trouble{number}"
        at.mkdir(parents=True)
        person = f"{site.capitalize()}trouble^Nr{number}", f"QZ-{site.upper()}-{number:04d}"
        write(at, _Maker(site, number, person))
        identifiers += [person[0].partition("^")[0] + f"^Nr{number}", person[1]]
        assert reason in TROUBLES
    return identifiers


def found(excluded: Mapping[str, int]) -> int:
    """How many of the troubles an import says it found, by what it excluded for which reason."""
    return sum(1 for reason in TROUBLES if excluded.get(reason))


class _Maker:
    """Makes images of one study of one person."""

    def __init__(self, site: str, number: int, person: tuple[str, str]) -> None:
        self._root = f"1.2.826.0.1.3680043.10.1234.77.{sum(site.encode())}.{number}"
        self._person = person

    def image(self, instance: int, *, kind: str = "CT", text: str = "") -> Dataset:
        frame = pictures.us(7) if kind == "US" else pictures.ct(instance, 128)
        if text:
            pictures.draw(frame, text, (12, 12), 26, 255)
        data = pictures.dataset(kind, frame)
        data.PatientName, data.PatientID = self._person
        data.StudyInstanceUID, data.SeriesInstanceUID = f"{self._root}.1", f"{self._root}.2"
        data.SOPInstanceUID, data.InstanceNumber = f"{self._root}.3.{instance}", instance
        data.AccessionNumber, data.BurnedInAnnotation = "", "NO"
        return data


def _burned_in(folder: Path, make: _Maker) -> None:
    (folder / "us.dcm").write_bytes(to_bytes(make.image(1, kind="US", text=pictures.NAME)))


def _cut_off(folder: Path, make: _Maker) -> None:
    whole = to_bytes(make.image(1))
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])


def _two_patients(folder: Path, make: _Maker) -> None:
    for instance in (1, 2):
        data = make.image(instance)
        if instance == 2:
            data.PatientID = f"{data.PatientID}-B"
        (folder / f"{instance}.dcm").write_bytes(to_bytes(data))


def _no_pixels(folder: Path, make: _Maker) -> None:
    data = make.image(1)
    del data.PixelData
    (folder / "bare.dcm").write_bytes(to_bytes(data))


_WRITERS: dict[str, Callable[[Path, _Maker], None]] = {
    "pixel_text_not_checked": _burned_in,
    "truncated": _cut_off,
    "patient_mismatch": _two_patients,
    "pixels_missing": _no_pixels,
}
