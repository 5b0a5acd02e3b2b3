"""Elements a receiver may not do without (Type 1 and 2, PS3.5 7.4): what is written instead of nothing.

1. Code strings for which PS3.3 lists the values: one of these is a term whatever the profile's own list says.
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

# the values PS3.3 enumerates or defines
_ENUMERATED: Mapping[str, str] = {
    "Modality": "ANN|AR|ASMT|AU|BDUS|BI|BMD|CFM|CR|CT|CTPROTOCOL|DMS|DG|DOC|DX|ECG|EEG|EMG|EOG|EPS|ES|FID|GM|HC|HD|IO"
    "|IVOCT|IVUS|KER|KO|LEN|LS|MG|MR|M3D|NM|OAM|OCT|OP|OPM|OPT|OPTBSV|OPTENF|OPV|OSS|OT|PA|PLAN|POS|PR|PT|PX|REG|RESP"
    "|RF|RG|RTDOSE|RTIMAGE|RTINTENT|RTPLAN|RTRAD|RTRECORD|RTSEGANN|RTSTRUCT|RWV|SEG|SM|SMR|SR|SRF|STAIN|TEXTUREMAP|TG"
    "|US|VA|XA|XAPROTOCOL|XC",
    # what its maker says of the pixels; our own NO stands there only where pixels were read (node/deid/pixels)
    "BurnedInAnnotation": "YES|NO",
    "ConversionType": "DV|DI|DF|WSD|SD|SI|DRW|SYN",
    "PresentationIntentType": "FOR PRESENTATION|FOR PROCESSING",
    "ContentQualification": "PRODUCT|RESEARCH|SERVICE",
    "SynchronizationTrigger": "SOURCE|EXTERNAL|PASSTHRU|NO TRIGGER",
    "ApplicableSafetyStandardAgency": "IEC|FDA|MHW",
    "SteadyStatePulseSequence": "FREE_PRECESSION|TRANSVERSE|TIME_REVERSED|LONGITUDINAL|NONE",
    "GeometryOfKSpaceTraversal": "RECTILINEAR|RADIAL|SPIRAL",
    "RectilinearPhaseEncodeReordering": "LINEAR|CENTRIC|SEGMENTED|REVERSE_LINEAR|REVERSE_CENTRIC",
    "ReceiveCoilType": "BODY|VOLUME|SURFACE|MULTICOIL",
    "TransmitCoilType": "BODY|VOLUME|SURFACE",
    "KSpaceFiltering": "COSINE|COSINE_SQUARED|FERMI|HAMMING|HANNING|LORENTZIAN|LRNTZ_GAUSS|RIESZ|TUKEY|NONE",
    "RescaleType": "HU|US|OD|HU_MOD|PCT|MGML|Z_EFF|ED|EDW",
    "ResonantNucleus": "1H|3HE|7LI|13C|19F|23NA|31P|129XE",
    "OperatingModeType": "STATIC FIELD|RF|GRADIENT",
    "OperatingMode": "IEC_NORMAL|IEC_FIRST_LEVEL|IEC_SECOND_LEVEL",
    "SpecificAbsorptionRateDefinition": "IEC_WHOLE_BODY|IEC_PARTIAL_BODY|IEC_HEAD|IEC_LOCAL|SMR_B1RMS|SMR_BORELOCAL",
    "GradientOutputType": "DB_DT|ELECTRIC_FIELD|PER_NERVE_STIM",
    "PixelIntensityRelationship": "LIN|LOG|DISP",
    "LossyImageCompression": "00|01",
    "LossyImageCompressionMethod": "ISO_10918_1|ISO_14495_1|ISO_15444_1|ISO_15444_15|ISO_13818_2|ISO_14496_10",
    "SeriesType": "STATIC|DYNAMIC|GATED|WHOLE BODY|IMAGE|REPROJECTION",
    "Units": "CNTS|NONE|CM2|CM2ML|PCNT|CPS|BQML|MGMINML|UMOLMINML|MLMING|MLG|1CM|UMOLML|PROPCNTS|PROPCPS|MLMINML|MLML"
    "|GML|STDDEV",
    "RandomsCorrectionMethod": "NONE|DLYD|SING",
    "DecayCorrection": "NONE|START|ADMIN",
    "SegmentationType": "BINARY|FRACTIONAL|LABELMAP",
    "SegmentAlgorithmType": "AUTOMATIC|SEMIAUTOMATIC|MANUAL",
    "SegmentationFractionalType": "PROBABILITY|OCCUPANCY",
    "RTImagePlane": "NORMAL|NON_NORMAL",
    "DoseUnits": "GY|RELATIVE",
    "DoseType": "PHYSICAL|EFFECTIVE|ERROR",
    "DoseSummationType": "PLAN|MULTI_PLAN|PLAN_OVERVIEW|FRACTION|BEAM|BRACHY|FRACTION_SESSION|BEAM_SESSION"
    "|BRACHY_SESSION|CONTROL_POINT|RECORD",
    "RTPlanGeometry": "PATIENT|TREATMENT_DEVICE",
    "DoseReferenceStructureType": "POINT|VOLUME|COORDINATES|SITE",
    "DoseReferenceType": "TARGET|ORGAN_AT_RISK",
    "RTPlanRelationship": "PRIOR|ALTERNATIVE|PREDECESSOR|VERIFIED_PLAN|CONCURRENT",
    "ContourGeometricType": "POINT|OPEN_PLANAR|OPEN_NONPLANAR|CLOSED_PLANAR|CLOSEDPLANAR_XOR",
    "ROIPhysicalProperty": "REL_MASS_DENSITY|REL_ELEC_DENSITY|EFFECTIVE_Z|EFF_Z_PER_A|REL_STOP_RATIO|ELEM_FRACTION"
    "|MEAN_EXCI_ENERGY",
    "RelationshipType": "CONTAINS|HAS OBS CONTEXT|HAS CONCEPT MOD|HAS PROPERTIES|HAS ACQ CONTEXT|INFERRED FROM"
    "|SELECTED FROM",
    "ValueType": "TEXT|NUM|CODE|DATE|TIME|DATETIME|UIDREF|PNAME|COMPOSITE|IMAGE|WAVEFORM|CONTAINER|SCOORD|SCOORD3D"
    "|TCOORD|NUMERIC|TABLE",
    "ContinuityOfContent": "SEPARATE|CONTINUOUS",
    "CompletionFlag": "COMPLETE|PARTIAL",
    "VerificationFlag": "VERIFIED|UNVERIFIED",
    "PreliminaryFlag": "PRELIMINARY|FINAL",
    "UniversalEntityIDType": "DNS|EUI64|ISO|URI|UUID|X400|X500",
    "GraphicType": "POINT|POLYLINE|INTERPOLATED|CIRCLE|ELLIPSE|MULTIPOINT|POLYGON|ELLIPSOID",
}
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
    "UniversalEntityID": DUMMY,
    "FrameAcquisitionDateTime": "19000101000000", "FrameReferenceDateTime": "19000101000000",
    "ContentDescription": "", "ReceiveCoilManufacturerName": "", "TransmitCoilManufacturerName": "",
    "RadiationMachineName": "", "ContentCreatorName": "",
}  # fmt: skip


class Mandatory:
    """The lists above, by tag."""

    def __init__(self, standard: Standard) -> None:
        tag_of = {keyword: element.tag for keyword, element in standard.by_keyword().items()}
        self._listed = {tag_of[keyword]: frozenset(values.split("|")) for keyword, values in _ENUMERATED.items()}
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
