"""Small made-up objects of the classes of clinical imaging that are neither a plain scan nor a plain companion, each
with what its IOD (PS3.3) asks for at the top, and names and free text where makers put them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.sim.containers import FRAME, STUDY
from tests.sim.dicom import ct_slice
from tests.sim.pictures import as_file

STORAGE = "1.2.840.10008.5.1.4.1.1."
NAME = "Hartog^Wilhelmina"
SIDE = 64
_OF_PIXELS = (
    "PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "ImageType",
)  # fmt: skip


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return Sequence([_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def _base(kind: str, tail: str, modality: str) -> Dataset:
    one = ct_slice()
    one.SOPClassUID, one.Modality = STORAGE + tail, modality
    number = zlib.crc32(kind.encode())
    one.SOPInstanceUID, one.SeriesInstanceUID = f"1.2.826.0.1.89.{number}", f"1.2.826.0.1.90.{number}"
    one.StudyInstanceUID, one.FrameOfReferenceUID = STUDY, FRAME
    one.StudyID, one.ReferringPhysicianName, one.PatientName = "77", "Vos^Anna", NAME
    one.PositionReferenceIndicator, one.PatientOrientation, one.Laterality = "", [], ""
    one.ManufacturerModelName, one.DeviceSerialNumber, one.SoftwareVersions = "Model 7", "SN-77001234", "VB21"
    one.ContentDate, one.ContentTime, one.OperatorsName = "20240301", "101530", "Vos^Anna"
    return one


def _pixels(one: Dataset, dtype: str = "<u2", frames: int = 0, bits: int = 12) -> None:
    """A soft slope: no letters."""
    y, x = np.mgrid[:SIDE, :SIDE]
    picture = ((y + x) * 9 % (1 << 10) if dtype == "<u2" else (y + x)).astype(dtype)
    one.Rows = one.Columns = SIDE
    one.BitsAllocated = picture.dtype.itemsize * 8
    one.BitsStored = min(bits, one.BitsAllocated)
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, 0
    if frames:
        one.NumberOfFrames = frames
    one["PixelData"].VR = "OW" if one.BitsAllocated == 16 else "OB"
    one.PixelData = picture.tobytes() * max(frames, 1)


def _without_pixels(one: Dataset) -> None:
    for keyword in _OF_PIXELS:
        delattr(one, keyword)


def rt_image(one: Dataset) -> None:
    _pixels(one)
    one.ImageType, one.ConversionType = ["ORIGINAL", "PRIMARY", "PORTAL"], "DI"
    one.RTImageLabel, one.RTImageName, one.RTImageDescription = "AP", f"portal of {NAME}", f"{NAME} left"
    one.RTImagePlane, one.XRayImageReceptorAngle, one.ImagePlanePixelSpacing = "NORMAL", 0, [0.4, 0.4]
    one.RTImagePosition, one.RadiationMachineName, one.RadiationMachineSAD = [-10, 10], "LINAC-VOS", 1000
    one.RTImageSID, one.GantryAngle, one.BeamLimitingDeviceAngle = 1500, 0, 0
    one.PatientSupportAngle, one.ReportedValuesOrigin, one.PrimaryDosimeterUnit = 0, "PLAN", "MU"


def mammogram(one: Dataset) -> None:
    _pixels(one)
    one.ImageType, one.ConversionType = ["ORIGINAL", "PRIMARY"], "DF"
    one.PresentationIntentType, one.PixelIntensityRelationship = "FOR PRESENTATION", "LOG"
    one.PixelIntensityRelationshipSign, one.ImagerPixelSpacing = 1, [0.1, 0.1]
    one.RescaleIntercept, one.RescaleSlope, one.RescaleType = 0, 1, "US"
    one.ImageLaterality, one.PatientOrientation, one.BodyPartExamined = "L", ["A", "R"], "BREAST"
    one.BurnedInAnnotation, one.LossyImageCompression, one.PresentationLUTShape = "NO", "00", "IDENTITY"
    one.OrganExposed, one.PositionerType, one.AcquisitionDeviceProcessingDescription = "BREAST", "MAMMOGRAPHIC", NAME
    one.DetectorType, one.WindowCenter, one.WindowWidth = "DIRECT", 512, 1024
    one.AnatomicRegionSequence, one.AcquisitionContextSequence = _code("76752008", "SCT", "Breast"), Sequence()
    view = _item(CodeValue="399162004", CodingSchemeDesignator="SCT", CodeMeaning="cranio-caudal")
    view.ViewModifierCodeSequence = Sequence()
    one.ViewCodeSequence = Sequence([view])


def breast_projection(one: Dataset) -> None:
    mammogram(one)
    del one.ConversionType
    _pixels(one, frames=3)
    one.ImageType, one.VolumetricProperties = ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "NONE"], "SAMPLED"
    one.PositionerMotion, one.AcquisitionDuration, one.KVP, one.XRayTubeCurrentInmA = "DYNAMIC", 4.2, 29, 60.0
    one.ExposureTimeInms, one.ExposureInmAs, one.FocalSpots, one.AnodeTargetMaterial = 900.0, 54.0, 0.3, "TUNGSTEN"
    one.BodyPartThickness, one.CompressionForce, one.PaddleDescription = 52, 90, f"24x29 of {NAME}"
    one.ExposureControlMode, one.ExposureControlModeDescription = "AUTOMATIC", f"AOP by {NAME}"
    one.OrganDose, one.EntranceDoseInmGy, one.TypeOfDetectorMotion = 0.014, 5.1, "STATIONARY"
    one.BreastImplantPresent = "NO"
    one.PatientOrientationCodeSequence = _code("10904000", "SCT", "Upright")
    one.ContentQualification, one.AcquisitionDateTime = "PRODUCT", "20240301101530"


def report(one: Dataset, template: str, title: tuple[str, str]) -> None:
    """A structured report of computer-aided detection: coded, numbers, a sentence and a person in it."""
    _without_pixels(one)
    one.ValueType, one.ContinuityOfContent = "CONTAINER", "SEPARATE"
    one.CompletionFlag, one.VerificationFlag = "COMPLETE", "UNVERIFIED"
    one.ConceptNameCodeSequence = _code(title[0], "DCM", title[1])
    one.ContentTemplateSequence = Sequence([_item(MappingResource="DCMR", TemplateIdentifier=template)])
    one.PerformedProcedureCodeSequence, one.ReferencedPerformedProcedureStepSequence = Sequence(), Sequence()
    number = _item(RelationshipType="CONTAINS", ValueType="NUM", ConceptNameCodeSequence=_code("111012", "DCM", "x"))
    number.MeasuredValueSequence = Sequence(
        [_item(NumericValue="87.5", MeasurementUnitsCodeSequence=_code("%", "UCUM", "Percent"))]
    )
    sentence = _item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue=f"{NAME} has a nodule")
    sentence.ConceptNameCodeSequence = _code("121071", "DCM", "Finding")
    person = _item(RelationshipType="HAS OBS CONTEXT", ValueType="PNAME", PersonName="Vos^Anna")
    person.ConceptNameCodeSequence = _code("121008", "DCM", "Person Observer Name")
    one.ContentSequence = Sequence([number, sentence, person])


def treatment_record(one: Dataset) -> None:
    _without_pixels(one)
    one.TreatmentDate, one.TreatmentTime, one.CurrentFractionNumber = "20240301", "101530", 3
    one.InstanceNumber, one.PrimaryDosimeterUnit = 1, "MU"
    machine = _item(TreatmentMachineName="LINAC-VOS", Manufacturer="X", InstitutionName=f"{NAME} clinic")
    one.TreatmentMachineSequence = Sequence([machine])
    machine.ManufacturerModelName, machine.DeviceSerialNumber = "Model 7", "SN-77001234"
    one.ReferencedRTPlanSequence, one.NumberOfFractionsPlanned = Sequence(), 30
    beam = _item(BeamName=f"beam of {NAME}", NumberOfControlPoints=1, TreatmentTerminationStatus="NORMAL")
    beam.BeamType, beam.RadiationType, beam.NumberOfWedges, beam.NumberOfCompensators = "STATIC", "PHOTON", 0, 0
    beam.NumberOfBoli, beam.NumberOfBlocks, beam.CurrentFractionNumber = 0, 0, 3
    beam.TreatmentDeliveryType, beam.TreatmentVerificationStatus = "TREATMENT", "VERIFIED"
    one.TreatmentSessionBeamSequence = Sequence([beam])


def dermoscopy(one: Dataset) -> None:
    _pixels(one, "u1", bits=8)
    one.ImageType, one.AcquisitionContextSequence = ["ORIGINAL", "PRIMARY"], Sequence()
    one.LossyImageCompression, one.BurnedInAnnotation = "00", "NO"


def intra_oral(one: Dataset) -> None:
    mammogram(one)
    del one.ConversionType, one.ViewCodeSequence
    one.PositionerType, one.OrganExposed, one.BodyPartExamined = "NONE", "TOOTH", "JAW"


def fractional(one: Dataset) -> None:
    """A segmentation of eight bits, to be compressed."""
    _pixels(one, "u1", frames=3, bits=8)
    one.ImageType, one.InstanceNumber = ["DERIVED", "PRIMARY"], 1
    one.ContentLabel, one.ContentDescription, one.ContentCreatorName = "SEGMENTATION", NAME, "Vos^Anna"
    one.SegmentationType, one.SegmentationFractionalType, one.MaximumFractionalValue = "FRACTIONAL", "PROBABILITY", 255
    one.LossyImageCompression = "00"
    segment = _item(SegmentNumber=1, SegmentLabel=f"Liver {NAME}", SegmentAlgorithmType="MANUAL")
    segment.SegmentedPropertyCategoryCodeSequence = _code("85756007", "SCT", "Tissue")
    segment.SegmentedPropertyTypeCodeSequence = _code("10200004", "SCT", "Liver")
    one.SegmentSequence = Sequence([segment])


def tracts(one: Dataset) -> None:
    _without_pixels(one)
    one.ContentLabel, one.ContentDescription, one.ContentCreatorName = "TRACTS", NAME, "Vos^Anna"
    one.TrackSetSequence = Sequence([_item(TrackSetNumber=1, TrackSetLabel=f"Tract {NAME}", TrackSequence=Sequence())])


Maker = Callable[[Dataset], None]
_CLASSES: dict[str, tuple[str, str, Maker, str]] = {
    "rt-image": ("481.1", "RTIMAGE", rt_image, ExplicitVRLittleEndian),
    "mammogram": ("1.2", "MG", mammogram, ExplicitVRLittleEndian),
    "breast-projection": ("13.1.4", "MG", breast_projection, ExplicitVRLittleEndian),
    "mammography-cad": ("88.50", "SR", lambda one: report(one, "4000", ("111036", "Mammography CAD Report")),
                        ExplicitVRLittleEndian),
    "chest-cad": ("88.65", "SR", lambda one: report(one, "4100", ("112000", "Chest CAD Report")),
                  ExplicitVRLittleEndian),
    "colon-cad": ("88.69", "SR", lambda one: report(one, "4120", ("112220", "Colon CAD Report")),
                  ExplicitVRLittleEndian),
    "dose-report": ("88.67", "SR", lambda one: report(one, "10011", ("113701", "X-Ray Radiation Dose Report")),
                    ExplicitVRLittleEndian),
    "treatment-record": ("481.4", "RTRECORD", treatment_record, ExplicitVRLittleEndian),
    "dermoscopy": ("77.1.4", "XC", dermoscopy, ExplicitVRLittleEndian),
    "intra-oral": ("1.3", "IO", intra_oral, ExplicitVRLittleEndian),
    "tractography": ("66.6", "MR", tracts, ExplicitVRLittleEndian),
    "segmentation-rle": ("66.4", "SEG", fractional, RLELossless),
}  # fmt: skip


def clinical_classes(folder: Path) -> dict[str, Path]:
    """An object of each class, by its kind."""
    found = {}
    for kind, (tail, modality, make, syntax) in _CLASSES.items():
        one = _base(kind, tail, modality)
        make(one)
        found[kind] = as_file(folder / f"{kind}.dcm", one, syntax, "pydicom")
    return found
