"""Other de-identifiers, each over a whole folder in one process: run by `deid.py` with the interpreter of their venv.

usage: peers.py NAME SOURCE TARGET
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from timing import timed

sys.path.pop(0)  # this folder: its deid.py is not the package of that name


def pydicom(files: list[Path], target: Path) -> None:
    """Read and write, nothing else: what anything built on pydicom cannot beat."""
    from pydicom import dcmread

    for path in files:
        dcmread(path).save_as(target / path.name)


def dicom_anonymizer(files: list[Path], target: Path) -> None:
    from dicomanonymizer import anonymize_dicom_file

    for path in files:
        anonymize_dicom_file(str(path), str(target / path.name))


def dicognito(files: list[Path], target: Path) -> None:
    from dicognito.anonymizer import Anonymizer
    from pydicom import dcmread

    anonymizer = Anonymizer()
    for path in files:
        dataset = dcmread(path)
        anonymizer.anonymize(dataset)
        dataset.save_as(target / path.name)


def deid(files: list[Path], target: Path) -> None:
    from deid.config import DeidRecipe
    from deid.dicom import get_identifiers, replace_identifiers

    recipe = DeidRecipe()
    names = [str(path) for path in files]
    found = get_identifiers(names)
    replace_identifiers(dicom_files=names, deid=recipe, ids=found, save=True, output_folder=str(target), overwrite=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, source, out = sys.argv[1:]
    peers = {"pydicom": pydicom, "dicom-anonymizer": dicom_anonymizer, "dicognito": dicognito, "deid": deid}
    files = sorted(Path(source).iterdir())
    __import__({"dicom-anonymizer": "dicomanonymizer"}.get(name, name))
    timed(lambda: peers[name](files, Path(out)))
