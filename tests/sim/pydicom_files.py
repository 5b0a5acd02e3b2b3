"""Real DICOM without a download: the sample files inside the installed pydicom wheel (MIT)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom


def copy_pydicom_files(folder: Path) -> int:
    """Copy every `.dcm` file of pydicom's test data into `folder`; how many there are."""
    source = Path(pydicom.__file__).parent / "data" / "test_files"
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, path in enumerate(sorted(source.rglob("*.dcm")), start=1):
        shutil.copyfile(path, folder / f"{count:03d}-{path.name}")
    return count
