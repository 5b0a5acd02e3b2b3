"""Published datasets, as a job sees them in `/data`.

/data/manifest.json                    the studies in view: {"studies": [{"study", "patient", "split", "folder", …}]}
/data/clinical.parquet                 the columns that the permit names, one row a study (or patient)
/data/studies/<study>/<nnnn>.dcm       de-identified DICOM instances

data = Dataset()
labels = data.column("lesion")         {"study pseudonym": 1, …}
for study in data.studies:
    volume = data.volume(study)        (slices, rows, columns) float32, HU for CT
    spacing = data.spacing(study)      (between slices, between rows, between columns) in mm

A study may hold several series (a scout beside the scan, a scan with and without contrast): `data.series(study)` names
them, and `volume` and `spacing` take one of the names. `loader.batches` makes arrays of many studies. What goes with
the images (segmentations, structures, doses, reports) is no slice of a volume: `data.companions(study, "SEG")`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# They have rows and columns and are no pictures: segmentations, label maps, parametric maps, doses.
_COMPUTED = frozenset({_STORAGE + "66.4", _STORAGE + "66.7", _STORAGE + "30", _STORAGE + "481.2"})


@dataclass(frozen=True)
class Study:
    """One study in view: its pseudonymous id, its patient's pseudonym, its split (`train`, `test`, …)."""

    id: str
    patient: str
    split: str
    folder: Path


class Dataset:
    """The view of one dataset version that this job was given."""

    def __init__(self, folder: str | Path = "/data") -> None:
        self._folder = Path(folder)
        manifest = json.loads((self._folder / "manifest.json").read_text(encoding="utf-8"))
        self.studies = tuple(
            Study(entry["study"], entry["patient"], entry["split"], self._folder / entry["folder"])
            for entry in manifest["studies"]
        )

    def __len__(self) -> int:
        return len(self.studies)

    def series(self, study: Study) -> tuple[str, ...]:
        """The Series Instance UIDs of the study's images, the one with the most instances first."""
        found = Counter(str(header.get("SeriesInstanceUID", "")) for header in _read(study, pixels=False))
        return tuple(name for name, _ in sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def volume(self, study: Study, series: str | None = None) -> npt.NDArray[np.float32]:
        """The images of a study, or of one of its series: (slices, rows, columns) float32, in anatomical order, in the
        modality's units: HU for CT, Bq/ml where a PET says so, arbitrary for MR.

        Raises `ValueError` if the slices differ in size: which of them belong together is the researcher's to say.
        """
        return np.stack([_pixels(instance) for instance in _read(study, series)])

    def spacing(self, study: Study, series: str | None = None) -> tuple[float, float, float]:
        """Millimetres between neighbouring slices, rows and columns, in the order of `volume`'s axes.

        The first is the median distance of neighbouring positions along the stack (PS3.3 C.7.6.2.1.1), or the slice
        thickness of a single slice. Raises `ValueError` where the files do not say.
        """
        headers = _read(study, series, pixels=False)
        between_pixels, places = headers[0].get("PixelSpacing"), [_position(header)[0] for header in headers]
        gaps = np.abs(np.diff(places))
        between_slices = float(np.median(gaps)) if len(gaps) else float(headers[0].get("SliceThickness") or 0)
        if not between_pixels or between_slices <= 0:
            raise ValueError("the study does not say its spacing")
        return between_slices, float(between_pixels[0]), float(between_pixels[1])

    def companions(self, study: Study, modality: str) -> list[Any]:
        """What goes with the images, whole, as pydicom reads it: `SEG`, `RTSTRUCT`, `RTPLAN`, `RTDOSE`, `SR`, `PR`.

        Their references (Referenced SOP Instance UID) name images of the same study.
        """
        found = [pydicom.dcmread(path) for path in sorted(study.folder.glob("*.dcm"))]
        return [one for one in found if not _is_image(one) and one.get("Modality") == modality]

    def column(self, name: str) -> Mapping[str, Any]:
        """One column of the clinical table by study. Raises `KeyError` for a column that the permit does not name."""
        import pyarrow.parquet as parquet

        table = parquet.read_table(self._folder / "clinical.parquet")
        key = "study" if "study" in table.column_names else "patient"
        by_key = dict(zip(table.column(key).to_pylist(), table.column(name).to_pylist(), strict=True))
        wanted = {study.id: study.id if key == "study" else study.patient for study in self.studies}
        return {study: by_key[value] for study, value in wanted.items() if value in by_key}


def _read(study: Study, series: str | None = None, *, pixels: bool = True) -> list[Any]:
    """The images of a study or series in anatomical order. Raises `ValueError` if there is none."""
    paths = sorted(study.folder.glob("*.dcm"))
    instances = [pydicom.dcmread(path, stop_before_pixels=not pixels) for path in paths]
    images = [one for one in instances if _is_image(one)]
    chosen = [one for one in images if series is None or one.get("SeriesInstanceUID") == series]
    if not chosen:
        raise ValueError("the study has no such series")
    return sorted(chosen, key=_position)


def _is_image(instance: Any) -> bool:
    return "Rows" in instance and instance.get("SOPClassUID") not in _COMPUTED


def _position(instance: Any) -> tuple[float, int]:
    """Along the stack, in mm: the position's distance along the normal of the image plane (PS3.3 C.7.6.2.1.1), then the
    instance number."""
    place, axes = instance.get("ImagePositionPatient"), instance.get("ImageOrientationPatient")
    number = int(instance.get("InstanceNumber") or 0)
    if not place:
        return 0.0, number
    plane = [float(value) for value in axes] if axes else [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    normal = np.cross(plane[:3], plane[3:])
    return float(np.dot(normal, [float(value) for value in place])), number


def _pixels(instance: Any) -> npt.NDArray[np.float32]:
    """Stored values to modality units: value × slope + intercept (PS3.3 C.11.1)."""
    slope, intercept = float(instance.get("RescaleSlope", 1)), float(instance.get("RescaleIntercept", 0))
    return np.asarray(instance.pixel_array, dtype=np.float32) * np.float32(slope) + np.float32(intercept)
