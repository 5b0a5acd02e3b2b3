"""Small made files that something can be measured in, a few of each kind (`tests/sim/utility.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from tests.sim.dicom import ct_slice

_PIXELS = (np.add.outer(np.arange(8), np.arange(8)) + 100).astype("<i2")


def image(sop_class: str, modality: str, number: int = 1, **changes: object) -> Dataset:
    """One picture of one patient, at a place in space, with values."""
    made = ct_slice()
    made.SOPClassUID, made.Modality = sop_class, modality
    made.SOPInstanceUID, made.InstanceNumber = f"1.2.826.0.1.111.{number}", number
    made.ImagePositionPatient = [-120.5, -98.25, 3.5 * number]
    made.ImageOrientationPatient, made.PixelSpacing, made.SliceThickness = [1, 0, 0, 0, 0.8, 0.6], [0.7, 0.65], 2
    made.RescaleSlope, made.RescaleIntercept = "1.25", "-1024"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = "20240131"
    made.StudyTime, made.SeriesTime, made.AcquisitionTime = "231000", "232000", "233000"
    made.PatientAge, made.BurnedInAnnotation = "061Y", "NO"
    made.PixelData = (_PIXELS + number).tobytes()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def item(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def ct() -> list[Dataset]:
    return [image(uid.CTImageStorage, "CT", number) for number in (1, 2, 3)]


def diffusion() -> list[Dataset]:
    """Three weights that only the maker's own element tells apart."""
    made = []
    for number, (weight, signal) in enumerate(((50, 900), (400, 610), (800, 402)), start=1):
        one = image(uid.MRImageStorage, "MR", number, PixelData=np.full((8, 8), signal, "<i2").tobytes())
        one.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", weight)
        made.append(one)
    return made


def contrast() -> list[Dataset]:
    """A dynamic series that begins on the last evening of a month and ends on the first of the next."""
    times = (("20240131", "235830"), ("20240131", "235930"), ("20240201", "000030"), ("20240201", "000130"))
    return [
        image(
            uid.MRImageStorage, "MR", number, AcquisitionDate=day, AcquisitionTime=time,
            PixelData=np.full((8, 8), 100 + 20 * number, "<i2").tobytes(),
        )
        for number, (day, time) in enumerate(times, start=1)
    ]  # fmt: skip


def philips() -> list[Dataset]:
    one = image(uid.MRImageStorage, "MR", RescaleSlope="1.7174", RescaleIntercept="0")
    one.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.00123)
    return [one]


def pet() -> list[Dataset]:
    """Injected before midnight at a month's end, scanned an hour later."""
    agent = item(
        RadionuclideTotalDose="312500000", RadionuclideHalfLife="6586.2",
        RadiopharmaceuticalStartDateTime="20240131234000.00", RadiopharmaceuticalStartTime="234000.00",
    )  # fmt: skip
    one = image(
        uid.PositronEmissionTomographyImageStorage, "PT", RescaleIntercept="0", SeriesDate="20240201",
        SeriesTime="004000", AcquisitionDate="20240201", AcquisitionTime="004000", Units="BQML",
        DecayCorrection="START", PatientWeight="71.5", PatientSize="1.68",
        RadiopharmaceuticalInformationSequence=[agent],
    )  # fmt: skip
    return [one]


def breast() -> list[Dataset]:
    return [
        image(
            uid.DigitalMammographyXRayImageStorageForPresentation, "MG", ImagerPixelSpacing=[0.1, 0.1],
            EstimatedRadiographicMagnificationFactor="1.072", BodyPartThickness="54", CompressionForce="98.5",
            OrganDose="0.0152", KVP="29", ImageLaterality="L", ViewPosition="MLO",
        )
    ]  # fmt: skip


def ultrasound() -> list[Dataset]:
    region = item(
        RegionSpatialFormat=1, RegionDataType=1, RegionFlags=0, RegionLocationMinX0=0, RegionLocationMinY0=0,
        RegionLocationMaxX1=7, RegionLocationMaxY1=7, PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3,
        PhysicalDeltaX=0.0123, PhysicalDeltaY=0.0123,
    )  # fmt: skip
    return [image(uid.UltrasoundImageStorage, "US", SequenceOfUltrasoundRegions=[region])]


def dose() -> list[Dataset]:
    return [
        image(
            uid.RTDoseStorage, "RTDOSE", NumberOfFrames=2, GridFrameOffsetVector=[0, 2.5], DoseGridScaling="1.25e-5",
            DoseUnits="GY", DoseType="PHYSICAL", DoseSummationType="PLAN", PixelRepresentation=0,
            PixelData=np.arange(128, dtype="<u2").tobytes(),
        )
    ]  # fmt: skip


def structures() -> list[Dataset]:
    one = image(uid.RTStructureSetStorage, "RTSTRUCT", StructureSetLabel="PLAN", ApprovalStatus="UNAPPROVED")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
        delattr(one, keyword)
    points = [0.5, 0, 10, 20.25, 0, 10, 20.25, 10.125, 10, 0.5, 10.125, 10]
    contour = item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4, ContourData=points)
    one.StructureSetROISequence = [item(ROINumber=1, ROIName="LIVER", ReferencedFrameOfReferenceUID="1.2.3")]
    one.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=[contour])]
    return [one]


def segmentation() -> list[Dataset]:
    """A segmentation, and the picture it is of."""
    picture = image(uid.CTImageStorage, "CT", 2, SeriesInstanceUID="1.2.826.0.1.333.7")
    measures = item(PixelSpacing=[0.7, 0.65], SliceThickness="2", SpacingBetweenSlices="3.5")
    instance = item(ReferencedSOPClassUID=picture.SOPClassUID, ReferencedSOPInstanceUID=picture.SOPInstanceUID)
    series = item(SeriesInstanceUID=picture.SeriesInstanceUID, ReferencedInstanceSequence=[instance])
    one = image(
        uid.SegmentationStorage, "SEG", NumberOfFrames=1, BitsAllocated=8, BitsStored=8, HighBit=7,
        PixelRepresentation=0, SegmentationType="FRACTIONAL", MaximumFractionalValue=255,
        PixelData=(np.arange(64, dtype="u1") % 3).tobytes(), ReferencedSeriesSequence=[series],
        SegmentSequence=[item(SegmentNumber=1, SegmentLabel="Liver", SegmentAlgorithmType="MANUAL")],
        SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[measures])],
    )  # fmt: skip
    one["PixelData"].VR = "OB"
    return [one, picture]


def two_visits() -> list[Dataset]:
    first, second = image(uid.CTImageStorage, "CT", 1), image(uid.CTImageStorage, "CT", 2)
    second.StudyInstanceUID, second.SeriesInstanceUID, second.StudyDate = "1.2.3.4", "1.2.3.5", "20240308"
    return [first, second]


MAKERS: Mapping[str, Callable[[], list[Dataset]]] = {
    "CT": ct, "MR DWI": diffusion, "MR DCE": contrast, "MR Philips": philips, "PET": pet, "MG": breast,
    "US": ultrasound, "RT dose": dose, "RT structures": structures, "SEG": segmentation, "two visits": two_visits,
}  # fmt: skip
