"""What a researcher computes, before and after: the scorer of use beside that of leaks (`tests/sim/scorer.py`).

Each measure is computed from datasets as a reader gives them, by the formulas that the field uses, and knows nothing of
what made them. A number that a profile cannot keep is written down here (`LOST`, with the reason), and asserted, too: a
profile that keeps more than it says is as wrong as one that keeps less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

Files = Sequence[Dataset]
Measure = Callable[[Files], Any]


# --- time ------------------------------------------------------------------------------------------------------------


def moment(dataset: Dataset, what: str) -> datetime:
    """The date and time of `Acquisition`, `Series`, `Study` as one."""
    return _time(str(dataset[f"{what}Date"].value) + str(dataset[f"{what}Time"].value))


def _time(text: str) -> datetime:
    return datetime.strptime(text[:14], "%Y%m%d%H%M%S")


# --- CT and everything in space --------------------------------------------------------------------------------------


def values(dataset: Dataset) -> np.ndarray:
    """What stored pixels mean: Hounsfield units, becquerel, arbitrary ones."""
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def hounsfield(files: Files) -> float:
    return float(np.mean([values(one) for one in files]))


def voxel_mm3(files: Files) -> float:
    """By the distance of slices along their normal, not by what thickness says."""
    first, second = sorted(files, key=lambda one: int(one.InstanceNumber))[:2]
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    step = np.array(second.ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)
    return float(abs(step @ np.cross(row, column)) * math.prod(map(float, first.PixelSpacing)))


def corner_mm(files: Files) -> list[float]:
    """The last pixel of the first slice in patient coordinates (PS3.3 C.7.6.2.1.1)."""
    one = files[0]
    row, column = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
    down, right = map(float, one.PixelSpacing)
    corner = (
        np.array(one.ImagePositionPatient, float) + row * right * (one.Columns - 1) + column * down * (one.Rows - 1)
    )
    return [float(number) for number in corner]


# --- MR --------------------------------------------------------------------------------------------------------------


def adc(files: Files) -> float:
    """Of mono-exponential decay, in mm²/s, by the maker's own b values."""
    weights = [float(one.private_block(0x19, "SIEMENS MR HEADER")[0x0C].value) for one in files]
    return float(-np.polyfit(weights, np.log([np.mean(one.pixel_array) for one in files]), 1)[0])


def wash_in(files: Files) -> float:
    """Rise of the signal in percent of the first picture per minute, by acquisition times."""
    minutes = [(moment(one, "Acquisition") - moment(files[0], "Acquisition")) / timedelta(minutes=1) for one in files]
    signal = [float(np.mean(one.pixel_array)) for one in files]
    return float(np.polyfit(minutes, 100 * np.array(signal) / signal[0], 1)[0])


def philips_true(files: Files) -> float:
    """(stored x slope + intercept) / (slope x scale slope)"""
    scale = float(files[0].private_block(0x2005, "Philips MR Imaging DD 001")[0x0E].value)
    return float(np.mean(values(files[0])) / (float(files[0].RescaleSlope) * scale))


# --- PET -------------------------------------------------------------------------------------------------------------


def uptake(files: Files, per: Callable[[Dataset], float]) -> float:
    """Mean activity concentration, by the dose that is left when the scan begins, times what it is normed by."""
    one, (agent,) = files[0], files[0].RadiopharmaceuticalInformationSequence
    passed = moment(one, "Series") - _time(str(agent.RadiopharmaceuticalStartDateTime))
    left = float(agent.RadionuclideTotalDose) * 0.5 ** (passed.total_seconds() / float(agent.RadionuclideHalfLife))
    return float(np.mean(values(one)) / left * per(one))


def by_weight(one: Dataset) -> float:
    return float(one.PatientWeight) * 1000


def by_lean_mass(one: Dataset) -> float:
    """Janmahasatian 2005, in grams."""
    weight, size = float(one.PatientWeight), float(one.PatientSize)
    index, (a, b) = weight / size**2, {"F": (8780, 244), "M": (6680, 216)}[one.PatientSex]
    return 9270 * weight / (a + b * index) * 1000


def by_surface(one: Dataset) -> float:
    """Du Bois 1916, in cm²."""
    return 71.84 * float(one.PatientWeight) ** 0.425 * (float(one.PatientSize) * 100) ** 0.725


def injection_to_scan_h(files: Files) -> float:
    start = _time(str(files[0].RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime))
    return (moment(files[0], "Series") - start) / timedelta(hours=1)


# --- MG and US -------------------------------------------------------------------------------------------------------


def mm_in_the_breast(files: Files) -> float:
    one = files[0]
    return float(one.ImagerPixelSpacing[0]) / float(one.EstimatedRadiographicMagnificationFactor) * one.Rows


def breast(files: Files) -> list[Any]:
    """What density and dose models take: thickness, force, dose, energy, side and view."""
    one = files[0]
    numbers = [one.BodyPartThickness, one.CompressionForce, one.OrganDose, one.KVP]
    return [*map(float, numbers), one.ImageLaterality, one.ViewPosition, one.PatientAge]


def diameter_cm(files: Files) -> float:
    (region,) = files[0].SequenceOfUltrasoundRegions
    centimetre = region.PhysicalUnitsXDirection == region.PhysicalUnitsYDirection == 3
    return math.hypot(30 * float(region.PhysicalDeltaX), 40 * float(region.PhysicalDeltaY)) if centimetre else math.nan


# --- radiotherapy and segmentations ----------------------------------------------------------------------------------


def dose_gy(files: Files) -> float:
    return float(np.max(files[0].pixel_array) * float(files[0].DoseGridScaling)) * (files[0].DoseUnits == "GY")


def dose_planes_mm(files: Files) -> list[float]:
    """Where the planes of the dose lie."""
    return [float(files[0].ImagePositionPatient[2]) + float(offset) for offset in files[0].GridFrameOffsetVector]


def contour_mm2(files: Files) -> float:
    """Area of the first contour (shoelace)."""
    data = np.array(files[0].ROIContourSequence[0].ContourSequence[0].ContourData, float).reshape(-1, 3)
    x, y = data[:, 0], data[:, 1]
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def segment_ml(files: Files) -> float:
    seg = files[0]
    (shared,) = seg.SharedFunctionalGroupsSequence
    (pixel,) = shared.PixelMeasuresSequence
    voxel = math.prod(map(float, pixel.PixelSpacing)) * float(pixel.SpacingBetweenSlices)
    return float(np.count_nonzero(seg.pixel_array)) * voxel / 1000


def segment_is_of(files: Files) -> bool:
    """Whether the segmentation refers to the picture beside it."""
    (series,) = files[0].ReferencedSeriesSequence
    (instance,) = series.ReferencedInstanceSequence
    refers = instance.ReferencedSOPInstanceUID == files[1].SOPInstanceUID
    return refers and series.SeriesInstanceUID == files[1].SeriesInstanceUID


def days_between(files: Files) -> int:
    return abs((moment(files[1], "Study") - moment(files[0], "Study")).days)


MEASURES: Mapping[str, Mapping[str, Measure]] = {
    "CT": {"mean HU": hounsfield, "voxel, mm³": voxel_mm3, "position of a voxel, mm": corner_mm},
    "MR DWI": {"ADC, mm²/s": adc},
    "MR DCE": {"wash-in, %/min": wash_in},
    "MR Philips": {"true value": philips_true},
    "PET": {
        "SUV by weight": lambda files: uptake(files, by_weight),
        "SUV by lean body mass": lambda files: uptake(files, by_lean_mass),
        "SUV by body surface": lambda files: uptake(files, by_surface),
        "injection to scan, h": injection_to_scan_h,
    },
    "MG": {"size in the breast, mm": mm_in_the_breast, "thickness, force, dose, view, age": breast},
    "US": {"diameter, cm": diameter_cm},
    "RT dose": {"maximum, Gy": dose_gy, "planes, mm": dose_planes_mm},
    "RT structures": {"contour, mm²": contour_mm2},
    "SEG": {"volume, ml": segment_ml, "refers to its picture": segment_is_of},
    "two visits": {"days between": days_between},
}
_NO_DATES = "dates are removed"
_NO_PRIVATE = "no private element stays"
# what a profile cannot keep, by profile and measure, and why; everything else is equal
LOST: Mapping[str, Mapping[str, str]] = {
    "basic": {
        "ADC, mm²/s": _NO_PRIVATE,
        "true value": _NO_PRIVATE,
        "wash-in, %/min": _NO_DATES,
        "injection to scan, h": _NO_DATES,
        "SUV by weight": "dates and weight are removed",
        "SUV by lean body mass": "dates, weight, size and sex are removed",
        "SUV by body surface": "dates, weight and size are removed",
        "thickness, force, dose, view, age": "age is removed",
        "days between": _NO_DATES,
    },
    "eucaim-v5": {"days between": "each visit's date is cut to its month"},
    "eucaim": {},
    "pseudonymise": {},
}


def measured(measure: Measure, files: Files) -> Any:
    """The number; None where it cannot be computed."""
    try:
        return measure(files)
    except (AttributeError, KeyError, ValueError, TypeError, ZeroDivisionError):
        return None


def table(profiles: Iterable[str]) -> str:
    """What is equal and what is lost, for the manual."""
    names = list(profiles)
    lines = [f"| | computed | {' | '.join(f'`{name}`' for name in names)} |", "|---|---|" + "---|" * len(names)]
    for kind, measures in MEASURES.items():
        for place, measure in enumerate(measures):
            said = [LOST[name].get(measure, "equal") for name in names]
            lines.append(f"| {'' if place else kind} | {measure} | {' | '.join(said)} |")
    return "\n".join(lines)
