"""The classes and syntaxes of everyday cancer imaging through a whole run: out, nothing of the patient in them, or held
with a true reason."""

import json
import struct
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from node.deid.pixels.frames import decode, open_film
from tests.sim.clinical_classes import clinical_classes
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.hiding import film
from tests.sim.rare_syntaxes import XL_FILE, deflated, xl

NOTES = {"no-preamble": ["read_without_preamble"], "dataset-alone": ["read_without_preamble", "read_without_meta"]}
NOTES |= {"deflated-frames": ["frames_inflated"]}
WORDS = (b"Hartog", b"HARTOG", b"Wilhelmina", b"77001234", b"Vos", b"LINAC", b"nodule")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What goes in, by kind."""
    folder = tmp_path_factory.mktemp("in")
    found = clinical_classes(folder)
    flat = np.add.outer(np.arange(3), np.add.outer(np.arange(16), np.arange(16))).astype(np.uint16)
    whole = to_bytes(ct_slice())
    more = {
        "jpeg-12-bits": film("1.2.840.10008.1.2.4.51", folder).content(),
        "htj2k": film("1.2.840.10008.1.2.4.201", folder).content(),
        "deflated-frames": deflated(flat, 16),
        "jpeg-xl": xl(XL_FILE),
        "no-preamble": whole[132:],
        "dataset-alone": whole[144 + struct.unpack_from("<L", whole, 140)[0] :],
        "text": b"Dear colleague",
    }
    for number, (kind, content) in enumerate(more.items()):
        uid, own = b"1.2.826.0.1.111.1", f"1.2.826.0.1.111.{number + 2}".encode()
        (folder / f"{kind}.dcm").write_bytes(content.replace(uid, own))
        found[kind] = folder / f"{kind}.dcm"
    for path in folder.glob("1.2.*"):  # what encoders left
        path.unlink()
    return found


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """The summary of a run over all of them, and each file's line, by kind."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "key").write_bytes(bytes(range(32)))
    (folder / "key").chmod(0o600)
    source = next(iter(files.values())).parent
    asked = ["deid", "run", source, folder / "out", "--profile", "eucaim", "--project", "p", "--site", "s"]
    command = [sys.executable, "-m", "node.cli", *map(str, asked), "--key", str(folder / "key"), "--json"]
    summary = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    lines = map(json.loads, (folder / "out.report.jsonl").read_text().splitlines())
    return folder, summary, dict(zip(sorted(files), lines, strict=True))


def test_all_come_out_but_what_is_none_and_what_nobody_decodes(files, run):
    _folder, summary, lines = run
    held = {kind: line["reasons"] for kind, line in lines.items() if line["outcome"] != "written"}
    assert held == {"jpeg-xl": ["pixels_not_decoded"], "text": ["not_dicom"]}
    assert summary["written"] == len(files) - 2 >= 17
    assert {kind: line["notes"] for kind, line in lines.items() if "notes" in line} == NOTES


def test_nothing_of_the_patient_is_in_them_and_their_pictures_are_the_same(files, run):
    folder, _summary, lines = run
    compared = 0
    for kind, line in lines.items():
        if line["outcome"] == "refused":
            continue
        out = folder / ("out.review" if line["outcome"] == "review" else "out") / line["name"]
        assert not [word for word in WORDS if word in out.read_bytes()], kind
        before = pydicom.dcmread(files[kind], force=True)
        if "PixelData" in before and kind not in ("jpeg-xl", "deflated-frames", "no-preamble", "dataset-alone"):
            frames = int(before.get("NumberOfFrames", 1))
            was, became = (list(decode(open_film(path), range(frames))) for path in (files[kind], out))
            assert np.array_equal(was, became), kind
            compared += 1
    assert compared >= 8
