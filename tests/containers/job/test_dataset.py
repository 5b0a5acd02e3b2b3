"""The loader on a published dataset of two studies, written here as publication writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pydicom
import pytest
from pydicom.dataset import Dataset as Instance
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from containers.job.dataset import Dataset

STUDIES = ("s-aaaa", "s-bbbb")


def publish(root: Path, *, labels: dict[str, int] | None = None, studies: tuple[str, ...] = STUDIES) -> Path:
    """`/data` with 3 slices of 8 × 8 a study, stored in reverse; slice k holds k at slope 2 and intercept -1000."""
    entries = []
    for study in studies:
        folder = root / "studies" / study
        folder.mkdir(parents=True)
        for number in range(3):
            write_slice(folder / f"{number:04d}.dcm", 2 - number)
        entries.append(
            {"study": study, "patient": f"p-{study}", "split": "train", "folder": f"studies/{study}", "instances": 3}
        )
    (root / "manifest.json").write_text(json.dumps({"studies": entries}))
    table = labels if labels is not None else {study: index % 2 for index, study in enumerate(studies)}
    columns = {"study": list(table), "lesion": list(table.values())}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "clinical.parquet")
    return root


def write_slice(path: Path, value: int, pixels: np.ndarray | None = None) -> None:
    instance = Instance()
    instance.SOPClassUID, instance.SOPInstanceUID = CTImageStorage, generate_uid()
    instance.ImagePositionPatient, instance.InstanceNumber = [0, 0, 5.0 * value], value + 1
    stored = np.full((8, 8), value, np.int16) if pixels is None else pixels
    instance.Rows, instance.Columns = stored.shape
    instance.BitsAllocated = instance.BitsStored = 16
    instance.HighBit, instance.PixelRepresentation = 15, 1
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.RescaleSlope, instance.RescaleIntercept = 2, -1000
    instance.add_new("PixelData", "OW", stored.astype("<i2").tobytes())
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.save_as(path, enforce_file_format=True)


def test_a_volume_is_in_order_and_in_hounsfield_units(tmp_path: Path) -> None:
    data = Dataset(publish(tmp_path))
    volume = data.volume(data.studies[0])
    assert (volume.shape, volume.dtype) == ((3, 8, 8), np.float32)
    assert volume[:, 0, 0].tolist() == [-1000.0, -998.0, -996.0]


def test_a_column_is_by_study(tmp_path: Path) -> None:
    data = Dataset(publish(tmp_path))
    assert data.column("lesion") == {"s-aaaa": 0, "s-bbbb": 1}
    with pytest.raises(KeyError):
        data.column("name")


def test_a_study_without_a_row_has_no_value(tmp_path: Path) -> None:
    assert Dataset(publish(tmp_path, labels={"s-bbbb": 1})).column("lesion") == {"s-bbbb": 1}


def test_slices_of_two_sizes_are_no_volume(tmp_path: Path) -> None:
    data = Dataset(publish(tmp_path))
    write_slice(tmp_path / "studies" / "s-aaaa" / "0009.dcm", 9, np.zeros((4, 4), np.int16))
    with pytest.raises(ValueError, match="same shape"):
        data.volume(data.studies[0])


def test_spacing_is_in_millimetres_in_the_order_of_the_axes(tmp_path: Path) -> None:
    root = publish(tmp_path)
    for path in (root / "studies" / STUDIES[0]).iterdir():
        instance = pydicom.dcmread(path)
        instance.PixelSpacing = [0.7, 0.6]
        instance.save_as(path)
    data = Dataset(root)
    assert data.spacing(data.studies[0]) == (5.0, 0.7, 0.6)
    with pytest.raises(ValueError, match="does not say its spacing"):
        data.spacing(data.studies[1])


def test_a_sagittal_stack_is_in_order_along_its_own_normal(tmp_path: Path) -> None:
    root = publish(tmp_path)
    for path in (root / "studies" / STUDIES[0]).iterdir():
        instance = pydicom.dcmread(path)
        instance.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        # slices run along x, and the normal of this plane is -x
        instance.ImagePositionPatient = [float(instance.ImagePositionPatient[2]), 0, 0]
        instance.save_as(path)
    data = Dataset(root)
    assert data.volume(data.studies[0])[:, 0, 0].tolist() == [-996.0, -998.0, -1000.0]


def test_a_study_of_two_series_is_read_series_by_series(tmp_path: Path) -> None:
    root = publish(tmp_path)
    folder = root / "studies" / STUDIES[0]
    for path in folder.iterdir():
        instance = pydicom.dcmread(path)
        instance.SeriesInstanceUID = "1.2.3"
        instance.save_as(path)
    write_slice(folder / "0009.dcm", 0, np.zeros((4, 4), np.int16))
    scout = pydicom.dcmread(folder / "0009.dcm")
    scout.SeriesInstanceUID = "1.2.4"
    scout.save_as(folder / "0009.dcm")
    data = Dataset(root)
    assert data.series(data.studies[0]) == ("1.2.3", "1.2.4")
    assert data.volume(data.studies[0], "1.2.3").shape == (3, 8, 8)
    assert data.volume(data.studies[0], "1.2.4").shape == (1, 4, 4)
    with pytest.raises(ValueError):
        data.volume(data.studies[0])


def test_what_goes_with_the_images_is_no_slice_and_is_found_by_its_modality(tmp_path: Path) -> None:
    root = publish(tmp_path)
    folder = root / "studies" / STUDIES[0]
    write_slice(folder / "0008.dcm", 7)
    seg = pydicom.dcmread(folder / "0008.dcm")
    seg.SOPClassUID, seg.Modality = "1.2.840.10008.5.1.4.1.1.66.4", "SEG"
    seg.save_as(folder / "0008.dcm")
    report = pydicom.dcmread(folder / "0008.dcm")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.22", "SR"
    report.save_as(folder / "0009.dcm")
    data = Dataset(root)
    study = data.studies[0]
    assert data.volume(study).shape == (3, 8, 8)
    assert [one.Modality for one in data.companions(study, "SEG")] == ["SEG"]
    assert [one.Modality for one in data.companions(study, "SR")] == ["SR"] and data.companions(study, "KO") == []
