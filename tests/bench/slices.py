"""Slices as a scanner writes them: some 140 elements, a few sequences, a private block, 512 x 512 of 16 bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.sim.dicom import ct_slice, to_bytes

_TEXTS = {
    "InstitutionName": "Sint Bonifatius Ziekenhuis", "ReferringPhysicianName": "Vermeulen^Pieter",
    "PerformingPhysicianName": "de Vries^Anna", "OperatorsName": "Bakker^Jan", "StationName": "CT-OST-2",
    "StudyDescription": "CT Abdomen portal venous", "SeriesDescription": "Abdomen 1.25mm B30f",
    "ManufacturerModelName": "SOMATOM Force", "SoftwareVersions": "syngo CT VB20A", "DeviceSerialNumber": "75599",
    "ProtocolName": "Abdomen", "BodyPartExamined": "ABDOMEN", "PatientPosition": "HFS", "ScanOptions": "HELIX",
    "FilterType": "FLAT", "ConvolutionKernel": "B30f", "AcquisitionDate": "20240301", "ContentDate": "20240301",
    "AcquisitionTime": "101613.25", "ContentTime": "101613.25", "PatientAddress": "Kerkstraat 12",
    "RequestedProcedureDescription": "CT of abdomen", "PerformedProcedureStepStartDate": "20240301",
    "StudyID": "4711", "KVP": "120", "ExposureTime": "500", "XRayTubeCurrent": "180", "SliceThickness": "1.25",
    "DataCollectionDiameter": "500", "ReconstructionDiameter": "380", "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595", "GantryDetectorTilt": "0", "TableHeight": "150", "RotationDirection": "CW",
    "FocalSpots": "1.2", "SingleCollimationWidth": 0.6, "TotalCollimationWidth": 38.4, "SpiralPitchFactor": 0.6,
    "WindowCenter": "40", "WindowWidth": "400", "RescaleIntercept": "-1024", "RescaleSlope": "1", "RescaleType": "HU",
}  # fmt: skip


def series(count: int, random: np.random.Generator, new_uid: Callable[[], str]) -> Iterator[bytes]:
    """`count` files of one series."""
    dataset = ct_slice()
    for keyword, value in _TEXTS.items():
        setattr(dataset, keyword, value)
    for keyword in ("ProcedureCodeSequence", "RequestedProcedureCodeSequence", "AnatomicRegionSequence"):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D4000", "SRT", "Abdomen"
        setattr(dataset, keyword, Sequence([code]))
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", new_uid()
    dataset.ReferencedStudySequence = Sequence([reference])
    for group, creator in ((0x0019, "SIEMENS CT VA0  COAD"), (0x0021, "SIEMENS MED"), (0x0029, "SIEMENS CSA HEADER")):
        block = dataset.private_block(group, creator, create=True)
        for element in range(18):
            block.add_new(element, "LO", f"value {element} of a scanner")
    dataset.Rows = dataset.Columns = 512
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [0.7421875, 0.7421875], [1, 0, 0, 0, 1, 0]
    for number in range(count):
        dataset.SOPInstanceUID, dataset.InstanceNumber = new_uid(), number + 1
        dataset.ImagePositionPatient = [-190, -190, -1200 + 1.25 * number]
        dataset.SliceLocation = -1200 + 1.25 * number
        dataset.PixelData = random.integers(0, 2000, 512 * 512, dtype=np.int16).tobytes()
        yield to_bytes(dataset)
