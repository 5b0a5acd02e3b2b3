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
from mediator.deid.screening import Exclusion, sort
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.profiles import profile_names
from tests.sim.clinical_classes import clinical_classes
from tests.sim.containers import planted_study

KEYED = Pseudonyms(bytes(32), "liver")
SAMPLES = os.environ.get("CLOISTER_DICOM_SAMPLES", "")
FOLDERS = [Path(pydicom.__file__).parent / "data" / "test_files", *([Path(SAMPLES)] if SAMPLES else [])]
# its stream says other columns than its header: refused while it is written
MALFORMED = {"JPEG2000-embedded-sequence-delimiter.dcm"}
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*") if path.is_file())


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


def new_errors(engine, path: Path, out: Path) -> set[str] | None:
    """What dciodvfy says of the output and did not say of the input; None where gate 0 writes nothing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        source = engine.open(handle)
        if isinstance(source, Exclusion) or sort(source.facts, source.finding).place == "refuse":
            return None
        subject = Subject(KEYED, KEYED.patient(source.facts.patient_id), 100, "alpha")
        assert engine.write(source, subject, out) is None, path.name
    finally:
        os.close(handle)
    before = errors(path)
    if any("dataset read failed" in line for line in before):
        return set()  # a deflated file: it has nothing to compare with
    return set(errors(out) - before)


@pytest.mark.parametrize("profile", profile_names())
def test_generated_objects_of_every_kind_gain_no_error(tmp_path, profile):
    (tmp_path / "in").mkdir()
    engine, planted, checked, told = open_engine(profile), planted_study(tmp_path / "in"), set(), set()
    for kind, path in planted.files.items():
        new = new_errors(engine, path, tmp_path / f"{kind}.dcm")
        told |= {(kind, *new)} if new else set()
        checked |= {kind} if new is not None else set()
    assert checked == set(planted.files) - {"pdf", "cda", "dicomdir"} and not told


@pytest.mark.parametrize("profile", profile_names())
def test_objects_of_the_rarer_clinical_classes_gain_no_error(tmp_path, profile):
    (tmp_path / "in").mkdir()
    engine, made = open_engine(profile), clinical_classes(tmp_path / "in")
    new = {kind: new_errors(engine, path, tmp_path / f"{kind}.dcm") for kind, path in made.items()}
    assert len(new) >= 12 and None not in new.values()
    assert not {kind: told for kind, told in new.items() if told}


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "files"), [("eucaim", FILES[::2]), ("pseudonymise", FILES[1::2])])
def test_output_is_as_valid_as_input_and_opens_everywhere(tmp_path, profile, files):
    engine, checked, told = open_engine(profile), 0, set()
    for number, path in enumerate(path for path in files if path.name not in MALFORMED):
        out = tmp_path / f"{number}.dcm"
        if (new := new_errors(engine, path, out)) is None:
            continue
        told |= {(path.name, *new)} if new else set()
        assert all(after or not before for before, after in zip(opens(path), opens(out), strict=True)), path.name
        checked += 1
    assert checked >= 30 and not told
