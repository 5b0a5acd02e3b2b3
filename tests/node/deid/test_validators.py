"""What others say of our output: dciodvfy, dcmtk and GDCM. Debian's dicom3tools, dcmtk and libgdcm-tools are required.

`CLOISTER_DICOM_SAMPLES` may name a folder of further files.
"""

import collections
import os
import re
import subprocess
from pathlib import Path

import pydicom
import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine

KEYED = Pseudonyms(bytes(32), "liver")
SAMPLES = os.environ.get("CLOISTER_DICOM_SAMPLES", "")
FOLDERS = [Path(pydicom.__file__).parent / "data" / "test_files", *([Path(SAMPLES)] if SAMPLES else [])]
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*") if path.is_file())
# What is not ours to write: (0028,0301) says that pixels were looked at, which the pixel gate does afterwards.
# What goes and may not come back: ICC profiles (free bytes), dates that are no dates, an orientation that is none.
ACCEPTED = re.compile(r"BurnedInAnnotation|ICCProfile|DateTime>|PatientOrientation|Laterality|incorrect value length")


def errors(path: Path) -> collections.Counter[str]:
    said = subprocess.run(["/usr/bin/dciodvfy", "-new", path], capture_output=True, check=False).stderr.decode(
        "latin-1"
    )
    lines = [line for line in said.splitlines() if line.startswith("Error")]
    return collections.Counter(re.sub(r"\[\d+\]|= ?.*$|Module.*", "", line) for line in lines)


def opens(path: Path) -> tuple[bool, bool]:
    """Whether dcmtk and GDCM read a file."""
    tools = (["/usr/bin/dcmdump", "-q", path], ["/usr/bin/gdcminfo", path])
    dcmtk, gdcm = (subprocess.run(tool, capture_output=True, check=False).returncode == 0 for tool in tools)
    return dcmtk, gdcm


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "files"), [("eucaim", FILES[::2]), ("pseudonymise", FILES[1::2])])
def test_output_is_as_valid_as_input_and_opens_everywhere(tmp_path, profile, files):
    engine, checked = open_engine(profile), 0
    for number, path in enumerate(files):
        handle = os.open(path, os.O_RDONLY)
        try:
            source = engine.open(handle)
            if isinstance(source, Exclusion) or source.finding is not None or not source.facts.sop_instance:
                continue
            if source.facts.modality in ("ECG", "HD", "ANN"):
                continue  # held back by screening: their content is bytes nobody can clean
            out = tmp_path / f"{number}.dcm"
            subject = Subject(KEYED, KEYED.patient(source.facts.patient_id), 100)
            assert engine.write(source, subject, out) is None, path.name
        finally:
            os.close(handle)
        new = {line for line in errors(out) - errors(path) if not ACCEPTED.search(line)}
        assert not new, (path.name, new)
        assert all(after or not before for before, after in zip(opens(path), opens(out), strict=True)), path.name
        checked += 1
    assert checked >= 30
