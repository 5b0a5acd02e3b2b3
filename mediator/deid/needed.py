"""Elements that geometry, pixel values or decoding depend on: where one cannot be read, a file is not simply published.

A reader that does not find a slope takes 1, one that does not find a spacing takes what it likes; neither says so.
By keyword of PS3.6, from the modules of PS3.3 that place pixels in space (C.7.6.2, C.7.6.16.2), say what a stored value
means (C.7.6.16.2.11, C.8.8.3, C.8.9, C.8.13.5.9, C.11.1), or how to decode it (C.7.6.3).
"""

from __future__ import annotations

from mediator.deid.tables import Standard

_DECODING = (
    "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PlanarConfiguration"
    " PhotometricInterpretation NumberOfFrames TotalPixelMatrixRows TotalPixelMatrixColumns"
    " RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor"
    " BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData"
    " BluePaletteColorLookupTableData LUTDescriptor LUTData"
)
_GEOMETRY = (
    "PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing ImagePositionPatient ImageOrientationPatient"
    " SliceThickness SpacingBetweenSlices GridFrameOffsetVector ContourData NumberOfContourPoints"
    " EstimatedRadiographicMagnificationFactor DistanceSourceToDetector DistanceSourceToPatient"
    " FrameOfReferenceTransformationMatrix PhysicalDeltaX PhysicalDeltaY PhysicalUnitsXDirection"
    " PhysicalUnitsYDirection RegionLocationMinX0 RegionLocationMinY0 RegionLocationMaxX1 RegionLocationMaxY1"
    " ImagePositionVolume ImageOrientationVolume DetectorElementSpacing GantryDetectorTilt"
    " ReferencedSegmentNumber SegmentNumber DimensionIndexValues ReferencedROINumber ROINumber GraphicData"
    " VectorGridData GridDimensions GridResolution IsocenterPosition"
)
_VALUES = (
    "RescaleSlope RescaleIntercept RealWorldValueSlope RealWorldValueIntercept RealWorldValueFirstValueMapped"
    " RealWorldValueLastValueMapped DoubleFloatRealWorldValueFirstValueMapped"
    " DoubleFloatRealWorldValueLastValueMapped RealWorldValueLUTData PixelPaddingValue PixelPaddingRangeLimit"
    " DoseGridScaling MaximumFractionalValue DVHData DVHDoseScaling NumericValue FloatingPointValue"
    " RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction DecayFactor FrameReferenceTime"
    " ActualFrameDuration DoseCalibrationFactor"
    " DiffusionBValue DiffusionGradientOrientation DiffusionBValueXX DiffusionBValueXY DiffusionBValueXZ"
    " DiffusionBValueYY DiffusionBValueYZ DiffusionBValueZZ EchoTime EffectiveEchoTime RepetitionTime InversionTime"
    " FlipAngle TriggerTime TemporalPositionIdentifier TemporalResolution KVP"
    " TargetPrescriptionDose BeamDose BeamMeterset CumulativeMetersetWeight"
)

# an uptake is by weight, lean mass or surface; in other images nobody measures with these
_UPTAKE = "PatientWeight PatientSize"
_EMISSION = frozenset({"PT", "NM"})


class Needed:
    """The lists above, by tag."""

    def __init__(self, standard: Standard) -> None:
        by_keyword = standard.by_keyword()
        self.always = frozenset(by_keyword[word].tag for word in f"{_DECODING} {_GEOMETRY} {_VALUES}".split())
        self._uptake = frozenset(by_keyword[word].tag for word in _UPTAKE.split())

    def is_needed(self, tag: int, modality: str) -> bool:
        """Whether something is computed from this element in images of this modality."""
        return tag in self.always or (tag in self._uptake and modality in _EMISSION)
