"""The demo's sources: what is said of every picture is what the file beside it holds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deploy.demo import data


def test_every_studys_mean_and_variance_are_those_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PATIENTS", 5)
    source = data.make_source(tmp_path / "aster", "aster", seed=1)
    with (source.folder / data.CLINICAL).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    slices: dict[str, list[np.ndarray]] = {row["StudyInstanceUID"]: [] for row in rows}
    for path in source.folder.glob("ASTER*/*/*.dcm"):
        read = pydicom.dcmread(path)
        slices[str(read.StudyInstanceUID)].append(read.pixel_array)
    volumes = [np.stack(slices[row["StudyInstanceUID"]]) for row in rows]
    expected = [(int(row["lesion"]), volume.mean(), volume.var()) for row, volume in zip(rows, volumes, strict=True)]
    np.testing.assert_allclose(source.statistics, expected)
