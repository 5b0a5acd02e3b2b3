"""Icons compressed as their picture is (PS3.5 A.4, PS3.3 C.7.6.1.1.6): fragments inside an item. A file that has one is
a good file, wherever the icon stands, and nothing of the icon leaves."""

import dataclasses
import io
import struct

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import ProfileEngine, Source, open_engine
from node.deid.profiles import load_profile, standard
from tests.sim.dicom import ct_slice, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 10)
ENGINE = open_engine("eucaim")
WORD = b"HartogZqabcdefghi"


def with_icon(fragments: list[bytes], place: str, *, open_ended: bool, strange: bool = False) -> bytes:
    """A slice whose icon, of encapsulated pixels, stands at the top or in a reference; `strange`: also an element with
    a VR nobody knows, so that the patient reader has to take the file."""
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation, icon.Rows, icon.Columns = 1, "MONOCHROME2", 8, 8
    icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    icon.PixelData = encapsulate(fragments)
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    icon.is_undefined_length_sequence_item = open_ended
    holder = dataset = ct_slice()
    if place != "image":
        holder = Dataset()
        setattr(dataset, place, Sequence([holder]))
        dataset[place].is_undefined_length = holder.is_undefined_length_sequence_item = open_ended
    holder.IconImageSequence = Sequence([icon])
    holder["IconImageSequence"].is_undefined_length = open_ended
    raw = to_bytes(dataset, ExplicitVRLittleEndian)
    return raw.replace(b"\x08\0\x60\0CS", b"\x08\0\x60\0C?") if strange else raw


def gate(raw: bytes, tmp_path, engine: ProfileEngine = ENGINE) -> bytes:
    source = engine.read(raw)
    assert isinstance(source, Source) and source.finding is None, source
    target = tmp_path / "out.dcm"
    target.unlink(missing_ok=True)
    assert engine.write(source, SUBJECT, target) is None
    return target.read_bytes()


@settings(max_examples=60, deadline=None)
@example(fragments=[b"\xff\x4f\xff\x51" + WORD], place="image", open_ended=True, strange=False)
@example(fragments=[b"\xff\x4f\xff\x51" + WORD], place="image", open_ended=False, strange=True)
@given(
    st.lists(st.binary(min_size=1, max_size=60).map(lambda chance: chance + WORD), min_size=1, max_size=4),
    st.sampled_from(["image", "ReferencedImageSequence", "ReferencedSeriesSequence"]),
    st.booleans(),
    st.booleans(),
)
def test_a_file_with_a_compressed_icon_is_written_and_the_icon_is_gone(
    tmp_path_factory, fragments, place, open_ended, strange
):
    written = gate(with_icon(fragments, place, open_ended=open_ended, strange=strange), tmp_path_factory.mktemp("icon"))
    out = pydicom.dcmread(io.BytesIO(written))
    assert out.PixelData == ct_slice().PixelData and out.Modality == "CT"
    assert not [element for element in out.iterall() if element.keyword == "IconImageSequence"]
    assert WORD not in written


def test_a_profile_that_keeps_icons_keeps_no_pixels_of_theirs(tmp_path):
    table = load_profile("eucaim")
    rules = dict(table.rules) | {0x00880200: dataclasses.replace(table.rules[0x00081140])}
    engine = ProfileEngine(dataclasses.replace(table, rules=rules), standard())
    written = gate(with_icon([b"\xff\x4f\xff\x51" + WORD], "image", open_ended=True), tmp_path, engine)
    (icon,) = pydicom.dcmread(io.BytesIO(written)).IconImageSequence
    assert icon.Rows == 8 and "PixelData" not in icon and WORD not in written


@pytest.mark.parametrize("broken", ["no delimiter", "a fragment without a length", "a fragment beyond its item"])
def test_fragments_that_do_not_end_are_refused(broken):
    raw = with_icon([b"\xff\x4f\xff\x51" + WORD], "image", open_ended=True)
    delimiter, item = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), struct.pack("<HHL", 0xFFFE, 0xE000, len(WORD) + 5)
    assert raw.count(item) == 1
    changed = {
        "no delimiter": raw.replace(delimiter, b"", 1),
        "a fragment without a length": raw.replace(item, item[:4] + b"\xff\xff\xff\xff"),
        "a fragment beyond its item": raw.replace(item, item[:4] + b"\xff\xff\0\0"),
    }[broken]
    source = ENGINE.read(changed)
    assert (source if isinstance(source, Exclusion) else source.finding) in (
        Exclusion.PIXELS_INCONSISTENT, Exclusion.TRUNCATED, Exclusion.MALFORMED,
    )  # fmt: skip
