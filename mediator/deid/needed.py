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
    " ActualFrameDuration DoseCalibrationFactor PatientWeight PatientSize"
    " DiffusionBValue DiffusionGradientOrientation DiffusionBValueXX DiffusionBValueXY DiffusionBValueXZ"
    " DiffusionBValueYY DiffusionBValueYZ DiffusionBValueZZ EchoTime EffectiveEchoTime RepetitionTime InversionTime"
    " FlipAngle TriggerTime TemporalPositionIdentifier TemporalResolution KVP"
    " TargetPrescriptionDose BeamDose BeamMeterset CumulativeMetersetWeight"
)


def needed(standard: Standard) -> frozenset[int]:
    """The tags of these elements."""
    by_keyword = standard.by_keyword()
    return frozenset(by_keyword[word].tag for word in f"{_DECODING} {_GEOMETRY} {_VALUES}".split())
