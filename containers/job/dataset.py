"""Published datasets, as a job sees them in `/data`.

/data/manifest.json                    the studies in view: {"studies": [{"study", "patient", "split", "folder", …}]}
/data/clinical.parquet                 the columns that the permit names, one row a study (or patient)
/data/studies/<study>/<nnnn>.dcm       de-identified DICOM instances

data = Dataset()
labels = data.column("lesion")         {"study pseudonym": 1, …}
for study in data.studies:
    volume = data.volume(study)        (slices, rows, columns) float32, HU for CT
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom


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

    def volume(self, study: Study) -> npt.NDArray[np.float32]:
        """The study's images, (slices, rows, columns) float32 in the modality's units (CT: HU), in anatomical order.

        Raises `ValueError` if the slices differ in size: which of them belong together is the researcher's to say.
        """
        instances = [pydicom.dcmread(path) for path in sorted(study.folder.glob("*.dcm"))]
        instances.sort(key=_position)
        return np.stack([_pixels(instance) for instance in instances])

    def column(self, name: str) -> Mapping[str, Any]:
        """One column of the clinical table by study. Raises `KeyError` for a column that the permit does not name."""
        import pyarrow.parquet as parquet

        table = parquet.read_table(self._folder / "clinical.parquet")
        key = "study" if "study" in table.column_names else "patient"
        by_key = dict(zip(table.column(key).to_pylist(), table.column(name).to_pylist(), strict=True))
        wanted = {study.id: study.id if key == "study" else study.patient for study in self.studies}
        return {study: by_key[value] for study, value in wanted.items() if value in by_key}


def _position(instance: Any) -> tuple[float, int]:
    """Along the stack: the patient's axis where the standard gives it (PS3.3 C.7.6.2), else the instance number."""
    place = instance.get("ImagePositionPatient")
    return (float(place[2]) if place else 0.0, int(instance.get("InstanceNumber") or 0))


def _pixels(instance: Any) -> npt.NDArray[np.float32]:
    """Stored values to modality units: value × slope + intercept (PS3.3 C.11.1)."""
    slope, intercept = float(instance.get("RescaleSlope", 1)), float(instance.get("RescaleIntercept", 0))
    return np.asarray(instance.pixel_array, dtype=np.float32) * np.float32(slope) + np.float32(intercept)
