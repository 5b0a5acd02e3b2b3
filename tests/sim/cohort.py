"""A hospital's labelled CT-like studies, generated: real DICOM files as a scanner writes them, and clinical.csv.

Every study is `SLICES` slices of 64 x 64 int16 (HU) by `node.kit.scans`, which says what can be learnt from them.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.kit.scans import SCANNERS, SIZE, SLICES, Scan, Scanner, make_scan

__all__ = ["SCANNERS", "SIZE", "SLICES", "make_scan", "write_cohort"]

_SYLLABLES = ("ka", "ren", "to", "vel", "mi", "dor", "sa", "lin", "bru", "hes", "pa", "gor", "ne", "wit", "zu", "fal")


def write_cohort(
    folder: Path,
    hospital: str,
    patients: int,
    seed: int,
    *,
    second_study: float = 0.2,
    unlabelled: int = 0,
    scanner: Scanner | None = None,
    make: Callable[[np.random.Generator, int, Scanner], Scan] = make_scan,
) -> int:
    """Write `patients` patients, a share of them with a second study, into `folder`; the number of studies.

    Files lie in `<patient>/<study>/<slice>.dcm`; `clinical.csv` has PatientID, StudyInstanceUID, lesion (0 or 1), age
    and a remark nobody should publish. The last `unlabelled` studies have no row. `make` draws the pictures. Equal
    arguments write equal bytes.
    """
    random = np.random.default_rng([seed, *hospital.encode()])
    scanner = scanner or SCANNERS[sum(hospital.encode()) % len(SCANNERS)]
    rows: list[dict[str, str]] = []
    for patient in range(patients):
        person = _person(hospital, patient, random)
        for visit in range(1 + int(random.random() < second_study)):
            label = len(rows) % 2  # balanced, whoever is held out
            scan = make(random, label, scanner)
            study = _write_study(folder, scan, person, visit, scanner, random)
            rows.append(
                {
                    "PatientID": person.identifier,
                    "StudyInstanceUID": study,
                    "lesion": str(label),
                    "age": str(person.age + visit),
                    "remark": f"seen with {person.name.replace('^', ' ')}",
                }
            )
    with (folder / "clinical.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[: len(rows) - unlabelled])
    return len(rows)


@dataclass(frozen=True)
class _Person:
    identifier: str
    name: str
    sex: str
    age: int
    birth: datetime.date


def _person(hospital: str, number: int, random: np.random.Generator) -> _Person:
    def word(length: int) -> str:
        return "".join(random.choice(_SYLLABLES, length)).capitalize()

    age = int(random.integers(25, 93))
    birth = datetime.date(2022 - age, int(random.integers(1, 13)), int(random.integers(1, 28)))
    identifier = f"{hospital.upper()}{number:03d}-{int(random.integers(10**9, 10**10))}"
    return _Person(identifier, f"{word(5)}^{word(4)}", str(random.choice(["F", "M"])), age, birth)


def _uid(random: np.random.Generator) -> str:
    return f"1.2.826.0.1.3680043.10.1234.{int(random.integers(10**14, 10**15))}.{int(random.integers(1, 10**9))}"


def _write_study(
    folder: Path,
    scan: Scan,
    person: _Person,
    visit: int,
    scanner: tuple[str, str, str, float, float],
    random: np.random.Generator,
) -> str:
    shared = Dataset()
    _describe_patient(shared, person, visit)
    _describe_study(shared, person, visit, random)
    _describe_scanner(shared, scanner, random)
    where = folder / person.identifier / f"study{visit + 1}"
    where.mkdir(parents=True)
    for index, pixels in enumerate(scan.pixels):
        dataset = Dataset()
        dataset.update(shared)
        _describe_slice(dataset, index, pixels, random)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = "1.2.826.0.1.3680043.10.1234.1"
        meta.SourceApplicationEntityTitle = "CTSCANNER1"
        dataset.file_meta = meta
        dataset.save_as(where / f"IM{index + 1:04d}.dcm", enforce_file_format=True)
    return str(shared.StudyInstanceUID)


def _describe_patient(dataset: Dataset, person: _Person, visit: int) -> None:
    dataset.PatientName = person.name
    dataset.PatientID = person.identifier
    dataset.PatientBirthDate = person.birth.strftime("%Y%m%d")
    dataset.PatientSex = person.sex
    dataset.PatientAge = f"{person.age + visit:03d}Y"
    dataset.PatientWeight = "72.5"
    dataset.PatientAddress = f"{person.name.partition('^')[0]} street 12"


def _describe_study(dataset: Dataset, person: _Person, visit: int, random: np.random.Generator) -> None:
    day = datetime.date(2022, 1, 3) + datetime.timedelta(days=int(random.integers(0, 300)) + 365 * visit)
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate"):
        setattr(dataset, keyword, day.strftime("%Y%m%d"))
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, keyword, f"{int(random.integers(7, 19)):02d}1530.250000")
    dataset.AccessionNumber = f"ACC{int(random.integers(10**9, 10**10))}"
    dataset.StudyID = str(int(random.integers(10**5, 10**6)))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(random), _uid(random)
    dataset.FrameOfReferenceUID = _uid(random)
    dataset.StudyDescription = "CT CHEST"
    dataset.SeriesDescription = "Chest 5mm B30f"
    dataset.ProtocolName = "Chest routine"
    dataset.ReferringPhysicianName = f"Dr^{person.name.partition('^')[2]}"
    dataset.InstitutionName = "General Hospital"
    dataset.SeriesNumber, dataset.AcquisitionNumber = 2, 1


def _describe_scanner(
    dataset: Dataset, scanner: tuple[str, str, str, float, float], random: np.random.Generator
) -> None:
    dataset.SOPClassUID = CTImageStorage
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.ConvolutionKernel = scanner[:3]
    dataset.DeviceSerialNumber = str(int(random.integers(10**5, 10**6)))
    dataset.StationName = "CT01"
    dataset.SoftwareVersions = "VA48A"
    dataset.BodyPartExamined = "CHEST"
    dataset.ScanOptions = "HELICAL MODE"
    dataset.KVP, dataset.SliceThickness = "120", "5.0"
    dataset.XRayTubeCurrent, dataset.ExposureTime, dataset.Exposure = 220, 500, 110
    dataset.PatientPosition = "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = ["5.0", "5.0"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIZE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "HU"


def _describe_slice(dataset: Dataset, index: int, pixels: npt.NDArray[np.int16], random: np.random.Generator) -> None:
    dataset.SOPInstanceUID = _uid(random)
    dataset.InstanceNumber = index + 1
    dataset.BurnedInAnnotation = "NO"  # as scanners say of their own slices
    dataset.ImagePositionPatient = ["-160.0", "-160.0", f"{5.0 * index:.1f}"]
    dataset.SliceLocation = f"{5.0 * index:.1f}"
    dataset.add_new(0x7FE00010, "OW", pixels.astype("<i2").tobytes())
