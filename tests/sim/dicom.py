"""Small DICOM files made for a test: one CT slice, changed as the test wants, as bytes."""

from __future__ import annotations

import io
import struct

import numpy as np
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

PIXELS = np.arange(64, dtype="<i2").tobytes()


def ct_slice() -> Dataset:
    """An 8 x 8 CT slice of one patient, with the elements every rule needs."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.826.0.1.111.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.222.1", "1.2.826.0.1.333.1"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.444.1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.Manufacturer = "CT", "SIEMENS"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Hartog^Wilhelmina", "HX-77001234", "19310503"
    dataset.PatientAge, dataset.PatientSex = "091Y", "F"
    dataset.StudyDate, dataset.SeriesDate, dataset.StudyTime = "20240301", "20240407", "101530.25"
    dataset.AccessionNumber, dataset.SeriesNumber, dataset.InstanceNumber = "ACC998877", 2, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.add_new(0x7FE00010, "OW", PIXELS)
    return dataset


def to_bytes(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The dataset as a DICOM file in a transfer syntax."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = "1.2.3"
    dataset.file_meta = meta
    buffer = io.BytesIO()
    with config.disable_value_validation():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One explicit VR little endian element as raw bytes, its declared length a lie when `length` is given."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF", b"OD", b"OL"):
        return head + b"\0\0" + struct.pack("<L", size) + value
    return head + struct.pack("<H", size & 0xFFFF) + value


def raw_element(tag: int, vr: str, value: bytes) -> RawDataElement:
    """An element for a pydicom dataset that is written as it is, whatever pydicom thinks of the value."""
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def raw_file(body: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A DICOM file with a proper beginning and whatever dataset."""
    text = syntax.encode() + b"\0" * (len(syntax) % 2)
    group = element(0x00020010, b"UI", text)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(group))) + group + body
