"""Made-up dataset versions: the files, the table and the manifest of a published one, and no patient behind them.

A `Shape` says how many studies of how many slices, in which splits, with which columns; it comes from a published
dataset's manifest (`shape_of`), which holds numbers and pseudonyms alone, or from a few numbers (`plain_shape`).
What a manifest does not say is made up: values of a `double` column are 0 or 1, of a `string` column `a` or `b`; the
pictures are `node.kit.scans`, and the first `double` column is 1 exactly where a lesion is.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from mediator import canonical
from mediator.datasets import CLINICAL, MANIFEST, decode_manifest, version_id
from mediator.errors import UsageFault
from mediator.manifests import AnyManifest, ManifestV2, StudyEntry
from mediator.types import DatasetFile, Manifest, Study
from node.kit.scans import SCANNERS, SIZE, SLICES, Scanner, make_scan

Split = Literal["train", "test", "unlabelled"]
Modality = Literal["CT", "MR", "PT"]
Published = Study | StudyEntry

# SOP class, and the rescale intercept: a scanner's CT stores HU + 1024 (PS3.3 C.8.2.1), MR and PET begin at 0
_MODALITIES: Mapping[str, tuple[UID, int]] = {
    "CT": (CTImageStorage, -1024),
    "MR": (MRImageStorage, 0),
    "PT": (PositronEmissionTomographyImageStorage, 0),
}
# a header of one of our slices; the rest of a published file is its pixels
_HEADER_BYTES = 1024
_SMALLEST, _LARGEST = 16, 1024
# any fixed moment: the same shape makes the same bytes
_CREATED = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StudyShape:
    """One study: its split, which patient it is of, its number of slices, and their side in pixels."""

    split: Split
    patient: int
    slices: int
    size: int


@dataclass(frozen=True)
class Shape:
    """What a dataset version looks like from outside. `columns` maps names to `double` or `string`."""

    studies: tuple[StudyShape, ...]
    columns: Mapping[str, str]
    modality: Modality = "CT"


def plain_shape(train: int, test: int, columns: Mapping[str, str], modality: Modality = "CT") -> Shape:
    """`train` and `test` studies of one patient each, of `SLICES` slices of `SIZE` pixels."""
    studies = tuple(
        StudyShape("train" if number < train else "test", number, SLICES, SIZE) for number in range(train + test)
    )
    return Shape(studies, columns, modality)


def shape_of(manifest: AnyManifest, at_most: int, modality: Modality = "CT") -> Shape:
    """The shape of a published version, its splits kept in proportion where it has more studies than `at_most`.

    A slice's side is guessed from the size of its file, as if it held two bytes a pixel and no compression; a version 2
    lists no files, and all its slices are of their mean size.
    """
    chosen = _in_proportion(manifest.studies, at_most)
    sizes = _sizes(manifest)
    patients = {patient: number for number, patient in enumerate(dict.fromkeys(study.patient for study in chosen))}
    studies = tuple(
        StudyShape(study.split, patients[study.patient], study.instances, _side(sizes.get(study.folder, 0)))
        for study in chosen
    )
    columns = {name: kind for name, kind in manifest.columns.items() if name not in ("study", "patient", "split")}
    return Shape(studies, columns, modality)


def read_manifest(raw: bytes) -> AnyManifest:
    """A published `manifest.json`. Raises `Malformed`, `IntegrityBroken`, or `UsageFault` for one without studies."""
    manifest = decode_manifest(raw)
    if not manifest.studies:
        raise UsageFault("the manifest names no study")
    return manifest


def write_version(folder: Path, shape: Shape, *, project: str, seed: int = 0) -> Manifest:
    """Write a dataset version of this shape into `folder` (made here); its manifest, which lies there too.

    The same arguments write the same bytes. Raises `UsageFault` for a column of a type that no table has.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    labels = [number % 2 for number in range(len(shape.studies))]
    studies, files = [], []
    for number, wanted in enumerate(shape.studies):
        study = _study(number, wanted)
        studies.append(study)
        for name, content in _instances(random, study, wanted, labels[number], shape.modality):
            files.append(_write(folder, f"{study.folder}/{name}", content))
    table = _table(random, studies, labels, shape.columns)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    files.append(_write(folder, CLINICAL, sink.getvalue().to_pybytes()))
    manifest = _manifest(project, studies, files, shape)
    _write(folder, MANIFEST, canonical.encode(manifest))
    return manifest


# --- inside -------------------------------------------------------------------------------------------------


def _sizes(manifest: AnyManifest) -> Mapping[str, int]:
    """Bytes of the largest file of each study, by the study's folder."""
    sizes: defaultdict[str, int] = defaultdict(int)
    if isinstance(manifest, ManifestV2):
        mean = manifest.counts.get("instance_bytes", 0) // max(1, manifest.counts.get("instances", 0))
        return {study.folder: mean for study in manifest.studies}
    for file in manifest.files:
        folder = file.path.rpartition("/")[0]
        sizes[folder] = max(sizes[folder], file.size_bytes)
    return sizes


def _in_proportion(studies: Sequence[Published], at_most: int) -> list[Published]:
    if len(studies) <= at_most:
        return list(studies)
    by_split: defaultdict[str, list[Published]] = defaultdict(list)
    for study in studies:
        by_split[study.split].append(study)
    share = at_most / len(studies)
    return [each for group in by_split.values() for each in group[: max(1, round(len(group) * share))]]


def _side(file_bytes: int) -> int:
    pixels = max(0, file_bytes - _HEADER_BYTES) // 2
    return min(_LARGEST, max(_SMALLEST, round(math.isqrt(pixels) / 8) * 8))


def _name(*parts: object) -> str:
    """A pseudonym of the kind that publication gives: 32 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _study(number: int, wanted: StudyShape) -> Study:
    study = _name("study", number)
    return Study(study, _name("patient", wanted.patient), wanted.split, f"studies/{study}", wanted.slices)


def _instances(
    random: np.random.Generator, study: Study, wanted: StudyShape, label: int, modality: Modality
) -> Iterator[tuple[str, bytes]]:
    scanner = SCANNERS[int(study.patient[:4], 16) % len(SCANNERS)]
    scan = make_scan(random, label, scanner, slices=wanted.slices, size=wanted.size)
    for index, pixels in enumerate(scan.pixels):
        yield f"{index + 1:04d}.dcm", _dicom(study, index, pixels, scanner, modality)


def _dicom(study: Study, index: int, pixels: npt.NDArray[np.int16], scanner: Scanner, modality: Modality) -> bytes:
    """A slice as it looks after gate 0: pseudonyms, UIDs of no meaning, what a reader of pixels needs."""
    sop_class, intercept = _MODALITIES[modality]
    image = Dataset()
    image.SOPClassUID, image.Modality = sop_class, modality
    image.SOPInstanceUID = _uid(study.study, index)
    image.StudyInstanceUID, image.SeriesInstanceUID = _uid(study.study), _uid(study.study, "series")
    image.FrameOfReferenceUID = _uid(study.study, "frame")
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = study.patient, "", "", ""
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "", "", "", ""
    image.ReferringPhysicianName, image.PatientIdentityRemoved = "", "YES"
    image.Manufacturer, image.ManufacturerModelName = scanner[:2]
    image.InstanceNumber, image.SeriesNumber = index + 1, 1
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    image.ImagePositionPatient = ["-160.0", "-160.0", f"{5.0 * index:.1f}"]
    image.PixelSpacing, image.SliceThickness = ["5.0", "5.0"], "5.0"
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.RescaleIntercept, image.RescaleSlope = str(intercept), "1"
    # MR and PET have no value below 0
    stored = pixels.astype(np.int32) - (intercept if modality == "CT" else -1024)
    image.add_new(0x7FE00010, "OW", stored.astype("<u2").tobytes())
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = sop_class
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.ImplementationClassUID = _uid("cloister")
    sink = io.BytesIO()
    image.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def _uid(*parts: object) -> UID:
    """A UID of the 2.25 arc (PS3.5 B.2)."""
    return UID(f"2.25.{int(_name(*parts), 16)}")


def _table(
    random: np.random.Generator, studies: Sequence[Study], labels: Sequence[int], columns: Mapping[str, str]
) -> pa.Table:
    made: dict[str, pa.Array] = {
        "study": pa.array([study.study for study in studies], pa.string()),
        "patient": pa.array([study.patient for study in studies], pa.string()),
        "split": pa.array([study.split for study in studies], pa.string()),
    }
    numbers = [name for name, kind in columns.items() if kind == "double"]
    for name, kind in columns.items():
        if kind == "double":
            values = labels if name == numbers[0] else random.integers(0, 2, len(studies)).tolist()
            made[name] = pa.array([float(value) for value in values], pa.float64())
        elif kind == "string":
            made[name] = pa.array(random.choice(["a", "b"], len(studies)).tolist(), pa.string())
        else:
            raise UsageFault("a clinical column is of type double or string")
    return pa.table(made)


def _manifest(project: str, studies: Sequence[Study], files: Sequence[DatasetFile], shape: Shape) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    splits = [study.split for study in studies]
    counts = {
        "studies": len(studies),
        "instances": sum(study.instances for study in studies),
        "patients": len({study.patient for study in studies}),
        **{split: splits.count(split) for split in ("train", "test", "unlabelled")},
    }
    return Manifest(
        dataset="synthetic",
        project=project,
        site="home",
        dataset_version=version_id(ordered),
        created=_CREATED,
        supersedes=None,
        profile="synthetic",
        profile_fingerprint=hashlib.sha256(b"synthetic").hexdigest(),
        engine_version="synthetic",
        counts=counts,
        excluded={},
        columns=dict(shape.columns),
        studies=tuple(studies),
        files=ordered,
    )


def _write(folder: Path, path: str, content: bytes) -> DatasetFile:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o444)
    return DatasetFile(path, len(content), hashlib.sha256(content).hexdigest())
