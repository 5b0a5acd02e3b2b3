"""Elements a receiver may not do without (Type 1 and 2, PS3.5 7.4): what is written instead of nothing.

1. Code strings for which PS3.3 lists the values (`Standard.defined`): one of these stays whatever the rule says.
2. Names and labels that were removed, or of which cleaning left nothing: a dummy that says so, or an empty value.

Both only where the input had a value: nothing is invented that was not there. A dummy is what the standard calls D;
it may stand wherever its table says X or Z.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mediator.deid.rules import ElementAction, Rule
from mediator.deid.tables import Standard
from mediator.deid.values import EMPTY, Written

DUMMY = "ANONYMIZED"

# Type 1 code strings, by keyword. What its maker says of the pixels (BurnedInAnnotation) is among them; our own NO
# stands there only where pixels were read (node/deid/pixels).
_ENUMERATED = """
    Modality BurnedInAnnotation ConversionType PresentationIntentType ContentQualification SynchronizationTrigger
    ApplicableSafetyStandardAgency SteadyStatePulseSequence GeometryOfKSpaceTraversal
    RectilinearPhaseEncodeReordering ReceiveCoilType TransmitCoilType KSpaceFiltering RescaleType ResonantNucleus
    OperatingModeType OperatingMode SpecificAbsorptionRateDefinition GradientOutputType PixelIntensityRelationship
    LossyImageCompression LossyImageCompressionMethod SeriesType Units RandomsCorrectionMethod DecayCorrection
    SegmentationType SegmentAlgorithmType SegmentationFractionalType RTImagePlane DoseUnits DoseType
    DoseSummationType RTPlanGeometry DoseReferenceStructureType DoseReferenceType RTPlanRelationship
    ContourGeometricType ROIPhysicalProperty RelationshipType ValueType ContinuityOfContent CompletionFlag
    VerificationFlag PreliminaryFlag UniversalEntityIDType GraphicType
"""
# numbers that are written as text, and directions of the body (PS3.3 C.7.6.1.1.1)
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "StackID": re.compile(r"\d{1,4}", re.ASCII),
    "TemplateIdentifier": re.compile(r"\d{1,5}", re.ASCII),
    "OpticalPathIdentifier": re.compile(r"\d{1,4}", re.ASCII),
    "PatientOrientation": re.compile(r"[APRLHF]{1,3}", re.ASCII),
    "DisplaySetPatientOrientation": re.compile(r"[APRLHF]{1,3}", re.ASCII),
}
# what stands where a value was removed or cleaned away
_FILLERS: Mapping[str, str] = {
    "Manufacturer": DUMMY, "ManufacturerModelName": DUMMY, "SoftwareVersions": DUMMY, "DeviceSerialNumber": DUMMY,
    "PulseSequenceName": DUMMY, "ReceiveCoilName": DUMMY, "TransmitCoilName": DUMMY, "MultiCoilElementName": DUMMY,
    "LUTLabel": DUMMY, "LUTExplanation": DUMMY, "LocalNamespaceEntityID": DUMMY, "TextValue": DUMMY,
    "UnformattedTextValue": DUMMY, "SegmentLabel": DUMMY, "SegmentAlgorithmName": DUMMY, "TrackingID": DUMMY,
    "AlgorithmName": DUMMY, "AlgorithmVersion": DUMMY, "ContentLabel": DUMMY, "AnnotationGroupLabel": DUMMY,
    "RTImageLabel": DUMMY, "StructureSetLabel": DUMMY, "ROIName": DUMMY, "RTPlanLabel": DUMMY,
    "OpticalPathIdentifier": "1", "StackID": "1", "RescaleType": "US", "ModalityLUTType": "US",
    "UniversalEntityID": DUMMY, "ExposureControlModeDescription": DUMMY, "PaddleDescription": DUMMY,
    "TrackSetLabel": DUMMY,
    "FrameAcquisitionDateTime": "19000101000000", "FrameReferenceDateTime": "19000101000000",
    "ContentDescription": "", "ReceiveCoilManufacturerName": "", "TransmitCoilManufacturerName": "",
    "RadiationMachineName": "", "ContentCreatorName": "",
}  # fmt: skip


class Mandatory:
    """The lists above, by tag; the values are those of `defined-terms.csv`."""

    def __init__(self, standard: Standard) -> None:
        tag_of = {keyword: element.tag for keyword, element in standard.by_keyword().items()}
        self._listed = {tag_of[keyword]: standard.defined[keyword] for keyword in _ENUMERATED.split()}
        self._shaped = {tag_of[keyword]: shape for keyword, shape in _SHAPES.items()}
        self._filler = {tag_of[keyword]: text for keyword, text in _FILLERS.items()}

    def stands_in(self, tag: int) -> bool:
        """Whether something may be written where a rule removes this element."""
        return tag in self._filler or tag in self._listed or tag in self._shaped

    def lists(self, tag: int, value: str) -> bool:
        """Whether PS3.3 lists this value for the element."""
        return self._is_standard(tag, (value,))

    def complete(self, tag: int, rule: Rule, values: tuple[str, ...], written: Written | None) -> Written | None:
        """What is written in the end for `values` of `tag`, when the rule alone would write `written`."""
        if not any(values):
            return EMPTY if written is None and tag in self._filler else written
        if rule.action in (ElementAction.CONSTANT, ElementAction.DUMMY, ElementAction.PSEUDONYM):
            return written
        if rule.action in (ElementAction.CLEAN, ElementAction.REMOVE) and self._is_standard(tag, values):
            return Written(tuple(value.strip() for value in values))  # (1)
        if (written is not None and any(written.values)) or (filler := self._filler.get(tag)) is None:
            return written
        return Written((filler,)) if filler else EMPTY  # (2)

    def _is_standard(self, tag: int, values: tuple[str, ...]) -> bool:
        listed, shape = self._listed.get(tag), self._shaped.get(tag)
        if listed is not None:
            return all(value.strip() in listed for value in values)
        return shape is not None and all(shape.fullmatch(value.strip()) for value in values)
