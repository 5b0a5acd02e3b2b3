"""Real files of many makers: those in the pydicom wheel. Nothing crashes, pixels stay, no false alarm."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion, screen
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.profiles import load_profile

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(FOLDER.rglob("*.dcm"))
KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("1"), 10)
# more bytes than its pixels
PADDED = {"MR_small_padded.dcm"}
# a stream of 3.7 milliards of columns: it was made to trip over a delimiter inside it
MALFORMED = {"JPEG2000-embedded-sequence-delimiter.dcm"}
# nothing here decodes them for pydicom: twelve bits
NOT_COMPARED = {"JPEG-lossy.dcm", "JPGExtended.dcm"}


def private_elements(dataset):
    """(creator, group, element within its block) of everything private but the reservations."""
    return {
        (element.private_creator, element.tag.group, element.tag.elem & 0xFF)
        for element in dataset.iterall()
        if element.tag.is_private and not element.tag.is_private_creator
    }


@pytest.mark.parametrize("profile", ["eucaim", "basic"])
def test_every_sample_is_written_whole_or_refused_with_a_reason(tmp_path, profile):
    engine, written, refused = open_engine(profile), 0, {}
    listed = set(load_profile(profile).private)
    assert bool(listed) == (profile == "eucaim")
    for number, path in enumerate(FILES):
        source = engine.read(path.read_bytes())
        if isinstance(source, Exclusion) or source.finding or source.parsed.pixels is None:
            refused[path.name] = source if isinstance(source, Exclusion) else source.finding
            continue
        target = tmp_path / f"{number}.dcm"
        if path.name in MALFORMED:
            assert engine.write(source, SUBJECT, target) is Exclusion.PIXELS_INCONSISTENT and not target.exists()
            continue
        assert engine.write(source, SUBJECT, target) is None, path.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before, after = pydicom.dcmread(path), pydicom.dcmread(target)
            assert private_elements(after) <= listed, path.name
            if path.name in PADDED or before.file_meta.TransferSyntaxUID.is_compressed:
                # streams of such files hold comments, free fields and tables nobody names
                assert path.name in NOT_COMPARED or np.array_equal(after.pixel_array, before.pixel_array), path.name
            else:
                assert after.get("PixelData") == before.get("PixelData"), path.name
            if before.file_meta.TransferSyntaxUID.is_implicit_VR == after.file_meta.TransferSyntaxUID.is_implicit_VR:
                assert after.Rows == before.Rows
        written += 1
    assert written >= 55
    assert refused["MR_truncated.dcm"] is refused["rtplan_truncated.dcm"] is Exclusion.TRUNCATED
    assert refused["no_meta.dcm"] is Exclusion.NOT_DICOM


def test_computed_tomography_and_magnetic_resonance_pass_the_screen():
    engine = open_engine("eucaim")
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "693_J2KI.dcm"):
        source = engine.read((FOLDER / name).read_bytes())
        assert not screen(source.facts, source.finding), name
    source = engine.read((FOLDER / "SC_rgb_rle.dcm").read_bytes())
    assert Exclusion.SECONDARY_CAPTURE in screen(source.facts, source.finding)
