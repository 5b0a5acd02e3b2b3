"""Identifiers planted in every container a DICOM object can be: one file each, all of one patient and one study.

`planted_study(folder)` writes an image with everything around its dataset, SEG, RTSTRUCT, RTPLAN, RTDOSE, SR, a
presentation state, a key object note, an encapsulated PDF and CDA, a secondary capture and a DICOMDIR. Every token is
unique; what must stay (references, numbers, listed words) is told beside it, for the scorer.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.sim.dicom import ct_slice, raw_element, to_bytes

_STORAGE = "1.2.840.10008.5.1.4.1.1."
STUDY, SERIES, FRAME = "1.2.826.0.1.77.1", "1.2.826.0.1.77.2", "1.2.826.0.1.77.3"


@dataclass
class Planted:
    """The files by kind, the tokens in them, and (referring file, referred file) pairs."""

    files: dict[str, Path] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)

    def token(self) -> str:
        word = "Zq" + "".join(chr(ord("a") + int(digit)) for digit in f"{len(self.tokens) * 7919 + 104729:09d}")
        self.tokens.append(word)
        return word


def uid_of(kind: str) -> str:
    """The SOP Instance UID of the file of a kind."""
    return f"1.2.826.0.1.88.{zlib.crc32(kind.encode())}"


def planted_study(folder: Path) -> Planted:
    """One study in `folder`."""
    planted = Planted()
    makers = {
        "image": _image, "seg": _seg, "rtstruct": _rtstruct, "rtplan": _rtplan, "rtdose": _rtdose, "sr": _sr,
        "presentation": _presentation, "key-objects": _key_objects, "pdf": _pdf, "cda": _cda, "capture": _capture,
        "dicomdir": _dicomdir,
    }  # fmt: skip
    with config.disable_value_validation():
        for kind, make in makers.items():
            dataset = _base(planted, kind)
            make(dataset, planted)
            path = folder / f"{planted.token()}-{kind}.dcm"
            _write(dataset, path, planted)
            planted.files[kind] = path
    return planted


def _base(planted: Planted, kind: str) -> Dataset:
    """What every object has: patient, study, and an identifier in each of a dozen places that any object may use."""
    dataset = ct_slice()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = STUDY, SERIES, FRAME
    dataset.SOPInstanceUID = uid_of(kind)
    for keyword in ("InstitutionName", "StudyDescription", "SeriesDescription", "PatientComments", "ProtocolName"):
        setattr(dataset, keyword, planted.token())
    dataset.OperatorsName = f"{planted.token()}^{planted.token()}={planted.token()}"
    dataset.PatientName, dataset.PatientID = "Hartog^Wilhelmina", "HX-77001234"
    dataset.ContributingEquipmentSequence = Sequence(
        [_item(InstitutionName=planted.token(), StationName=planted.token())]
    )
    dataset.private_block(0x0011, planted.token(), create=True).add_new(1, "LO", planted.token())
    dataset[0x00321066] = raw_element(0x00321066, "UT", planted.token().encode() + b" ")
    dataset[0x00102180] = raw_element(0x00102180, "UN", planted.token().encode() + b" ")
    return dataset


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _refers(planted: Planted, kind: str, to: str, sop_class: str) -> Dataset:
    planted.references.append((kind, to))
    return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid_of(to))


def _without_pixels(dataset: Dataset) -> None:
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    del dataset.SamplesPerPixel, dataset.PhotometricInterpretation


def _image(dataset: Dataset, planted: Planted) -> None:
    dataset.add_new(0x60000022, "LO", planted.token())
    dataset.add_new(0x60003000, "OW", planted.token().encode().ljust(64, b"\0"))
    dataset.add_new(0x50000022, "LO", planted.token())
    dataset.add_new(0x50003000, "OW", planted.token().encode().ljust(32, b"\0"))
    icon = _item(Rows=8, Columns=8, SamplesPerPixel=1, BitsAllocated=8)
    icon.add_new(0x7FE00010, "OB", planted.token().encode().ljust(64, b"\0"))
    dataset.IconImageSequence = Sequence([icon])
    dataset.OriginalAttributesSequence = Sequence(
        [
            _item(
                ModifiedAttributesSequence=Sequence([_item(PatientName=planted.token())]),
                SourceOfPreviousValues=planted.token(),
            )
        ]
    )
    dataset.add_new(0xFFFCFFFC, "OB", planted.token().encode().ljust(32, b"\0"))


def _seg(dataset: Dataset, planted: Planted) -> None:
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "66.4", "SEG"
    dataset.ContentLabel, dataset.ContentDescription = "SEGMENTATION", planted.token()
    dataset.ContentCreatorName, dataset.SegmentationType = planted.token(), "BINARY"
    segment = _item(SegmentNumber=1, SegmentLabel=f"Liver {planted.token()}", SegmentAlgorithmType="MANUAL")
    segment.SegmentDescription, segment.TrackingID = planted.token(), planted.token()
    dataset.SegmentSequence = Sequence([segment])
    source = _refers(planted, "seg", "image", _STORAGE + "2")
    dataset.ReferencedSeriesSequence = Sequence(
        [_item(SeriesInstanceUID=SERIES, ReferencedInstanceSequence=Sequence([source]))]
    )


def _rtstruct(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "481.3", "RTSTRUCT"
    dataset.StructureSetLabel, dataset.StructureSetName = planted.token(), planted.token()
    roi = _item(ROINumber=1, ReferencedFrameOfReferenceUID=FRAME, ROIName=f"Liver {planted.token()}")
    roi.ROIDescription = planted.token()
    dataset.StructureSetROISequence = Sequence([roi])
    contour = _item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=1, ContourData=[1, 2, 3])
    contour.ContourImageSequence = Sequence([_refers(planted, "rtstruct", "image", _STORAGE + "2")])
    dataset.ROIContourSequence = Sequence([_item(ReferencedROINumber=1, ContourSequence=Sequence([contour]))])
    dataset.RTROIObservationsSequence = Sequence(
        [
            _item(
                ObservationNumber=1,
                ReferencedROINumber=1,
                ROIInterpreter=planted.token(),
                ROIObservationLabel=planted.token(),
            )
        ]
    )


def _rtplan(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "481.5", "RTPLAN"
    dataset.RTPlanLabel, dataset.RTPlanName = planted.token(), planted.token()
    dataset.RTPlanGeometry = "PATIENT"
    dataset.BeamSequence = Sequence(
        [_item(BeamNumber=1, BeamName=planted.token(), TreatmentMachineName=planted.token())]
    )
    dataset.ReferencedStructureSetSequence = Sequence([_refers(planted, "rtplan", "rtstruct", _STORAGE + "481.3")])


def _rtdose(dataset: Dataset, planted: Planted) -> None:
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "481.2", "RTDOSE"
    dataset.DoseUnits, dataset.DoseType, dataset.DoseComment = "GY", "PHYSICAL", planted.token()
    dataset.ReferencedRTPlanSequence = Sequence([_refers(planted, "rtdose", "rtplan", _STORAGE + "481.5")])


def _sr(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "88.22", "SR"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    code = _item(CodeValue="121071", CodingSchemeDesignator="DCM", CodeMeaning="Finding")
    text = _item(RelationshipType="CONTAINS", ValueType="TEXT", ConceptNameCodeSequence=Sequence([code]))
    text.TextValue = f"{planted.token()} has a lesion"
    person = _item(RelationshipType="HAS OBS CONTEXT", ValueType="PNAME", PersonName=planted.token())
    image = _item(RelationshipType="CONTAINS", ValueType="IMAGE")
    image.ReferencedSOPSequence = Sequence([_refers(planted, "sr", "image", _STORAGE + "2")])
    dataset.ContentSequence = Sequence([text, person, image])
    dataset.VerifyingObserverSequence = Sequence(
        [_item(VerifyingObserverName=planted.token(), VerifyingOrganization=planted.token())]
    )


def _presentation(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "11.1", "PR"
    dataset.ContentLabel, dataset.PresentationCreatorName = planted.token().upper()[:16], planted.token()
    planted.tokens[-2] = planted.tokens[-2].upper()
    layer = planted.token().upper()  # a layer's name is its identity: what is drawn refers to it
    planted.tokens[-1] = layer
    text = _item(UnformattedTextValue=planted.token(), AnchorPoint=[1.0, 2.0], AnchorPointVisibility="Y")
    dataset.GraphicAnnotationSequence = Sequence([_item(GraphicLayer=layer, TextObjectSequence=Sequence([text]))])
    dataset.GraphicLayerSequence = Sequence([_item(GraphicLayer=layer, GraphicLayerDescription=planted.token())])
    reference = _refers(planted, "presentation", "image", _STORAGE + "2")
    dataset.ReferencedSeriesSequence = Sequence(
        [_item(SeriesInstanceUID=SERIES, ReferencedImageSequence=Sequence([reference]))]
    )


def _key_objects(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "88.59", "KO"
    item = _item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue=planted.token())
    image = _item(RelationshipType="CONTAINS", ValueType="IMAGE")
    image.ReferencedSOPSequence = Sequence([_refers(planted, "key-objects", "image", _STORAGE + "2")])
    dataset.ContentSequence = Sequence([item, image])


def _pdf(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "104.1", "DOC"
    dataset.DocumentTitle, dataset.MIMETypeOfEncapsulatedDocument = planted.token(), "application/pdf"
    stream = zlib.compress(planted.token().encode())
    dataset.EncapsulatedDocument = (
        b"%PDF-1.4 " + planted.token().encode() + b" stream " + stream + b" " * (len(stream) % 2)
    )


def _cda(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID, dataset.Modality = _STORAGE + "104.2", "DOC"
    dataset.EncapsulatedDocument = f"<ClinicalDocument><name>{planted.token()}</name></ClinicalDocument> ".encode()


def _capture(dataset: Dataset, planted: Planted) -> None:
    dataset.SOPClassUID, dataset.Modality, dataset.ConversionType = _STORAGE + "7", "OT", "WSD"
    dataset.SecondaryCaptureDeviceID = planted.token()


def _dicomdir(dataset: Dataset, planted: Planted) -> None:
    _without_pixels(dataset)
    dataset.SOPClassUID = "1.2.840.10008.1.3.10"
    del dataset.SOPInstanceUID
    record = _item(DirectoryRecordType="PATIENT", PatientName=planted.token(), PatientID=planted.token())
    dataset.DirectoryRecordSequence = Sequence([record])
    dataset.SOPInstanceUID = uid_of("dicomdir")


def _write(dataset: Dataset, path: Path, planted: Planted) -> None:
    raw = bytearray(to_bytes(dataset, ExplicitVRLittleEndian))
    mark = planted.token().encode()
    raw[: len(mark)] = mark
    if path.name.endswith("-image.dcm"):
        raw += planted.token().encode()
    path.write_bytes(bytes(raw))
