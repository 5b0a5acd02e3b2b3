"""A patient's number is one in numbers, too; and numbers whose bytes spell a word are no text."""

import struct

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mediator.deid.identifiers import Identifier, Opaque, Own
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.profiles import load_profile
from node.deid.residue import Residue
from node.deid.source_folder import walk
from node.deid.traces import decode_lost, encode_lost
from node.deid.verify import verify_folders
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100, "alpha")
ID = "77001234"
FORMS = [ID, f"00{ID}", f"+{ID}", f"{ID} "]
# elements of each VR that every profile keeps as they stand, one value each
HELD = [
    (0x00181152, "IS", ID.encode()), (0x00180050, "DS", f"{ID}.0".encode()), (0x00180080, "DS", b"7.7001234e7 "),
    (0x00189220, "FD", struct.pack("<d", 77001234)), (0x00289002, "UL", struct.pack("<L", 77001234)),
]  # fmt: skip


def engine_of(profile="eucaim"):
    return open_engine(profile)


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "pseudonymise", "basic"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("form", FORMS)
def test_an_assigned_number_that_is_the_patients_is_none(tmp_path, profile, syntax, form):
    dataset = ct_slice()
    dataset.PatientID = ID
    for tag in (0x00200011, 0x00200012, 0x00200013):
        dataset[tag] = raw_element(tag, "IS", form.encode() + b" " * (len(form) % 2))
    dataset.StudyID = ID
    dataset.ReferencedSeriesSequence = Sequence([Dataset()])
    dataset.ReferencedSeriesSequence[0].SeriesNumber = ID
    engine = engine_of(profile)
    assert engine.write(engine.read(to_bytes(dataset, syntax)), SUBJECT, tmp_path / "a") is None
    out = pydicom.dcmread(tmp_path / "a")
    assert (out.SeriesNumber, out.AcquisitionNumber, out.InstanceNumber) == (0, 0, 0)
    assert ID not in str(out) and ID.encode() not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize(("tag", "vr", "value"), HELD)
def test_any_other_number_that_is_the_patients_holds_the_file(tmp_path, tag, vr, value):
    dataset, engine = ct_slice(), engine_of()
    dataset.PatientID = ID
    dataset[tag] = raw_element(tag, vr, value + b" " * (len(value) % 2))
    refused = engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a")
    assert refused is Exclusion.RESIDUAL_IDENTIFIER
    dataset.PatientID, dataset.PatientName = "77001235", "Nn^Nn"
    assert engine.write(engine.read(to_bytes(dataset)), Subject(KEYED, "other", 100, "alpha"), tmp_path / "b") is None


@pytest.mark.parametrize("number", ["1234", "512", "00512"])
def test_a_number_of_four_digits_is_a_headers_own(tmp_path, number):
    dataset, engine = ct_slice(), engine_of()
    dataset.PatientID, dataset.SeriesNumber = number, number
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a") is None
    assert pydicom.dcmread(tmp_path / "a").SeriesNumber == int(number)


def test_a_number_that_only_a_later_file_tells_takes_the_file_back(tmp_path):
    dataset, engine = ct_slice(), engine_of()
    dataset.SeriesNumber = ID
    dataset.PatientID = "Q-1"
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a") is None
    searcher = engine.searcher()
    assert not searcher.finds(tmp_path / "a")
    searcher.lost([Identifier("number", f"MRN {ID}")])
    assert searcher.finds(tmp_path / "a")


def test_verify_names_a_number_that_is_the_patients(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    dataset, engine = ct_slice(), engine_of()
    dataset.PatientID, dataset.SeriesNumber = ID, ID
    (tmp_path / "in" / "a").write_bytes(to_bytes(dataset))
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "out" / "a") is None
    folders = str(tmp_path / "in"), str(tmp_path / "out")
    assert verify_folders(*folders, load_profile("eucaim"), walk).findings == []
    out = pydicom.dcmread(tmp_path / "out" / "a")
    out.SeriesNumber, out.KVP = ID, f"{ID}.0"
    with config.disable_value_validation():
        out.save_as(tmp_path / "out" / "a")
    found = verify_folders(*folders, load_profile("eucaim"), walk).findings
    assert [one.where for one in found] == ["(0018,0060)", "(0020,0011)"]


@given(st.integers(10_000, 10**9), st.sampled_from(["{}", "00{}", "-{}", "{}.", "{}.00", "{}e0", "+{}"]))
def test_a_numeral_is_the_number_however_it_is_written(number, form):
    own = Own([Identifier("number", f"MRN-{number}/A")])
    assert own.is_number(form.format(number))
    assert not own.is_number(form.format(number + 1)) and not own.is_number(f"{number}.5")


def test_what_is_no_numeral_is_no_number():
    own = Own([Identifier("number", ID)])
    assert not any(map(own.is_number, ["", "-", "1e999", "nan", "inf", "e5", "x"]))


# 0.9, 0.7, 0.2 and what else floats spell: every printable pattern of four and eight bytes
WORDY = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=4).map(str.encode)


@settings(deadline=None)
@given(spelled=WORDY, times=st.integers(1, 4), profile=st.sampled_from(["eucaim", "pseudonymise", "basic"]))
def test_a_number_that_spells_a_word_is_none(tmp_path_factory, spelled, times, profile):
    """The same bytes lost as UN, as OB and as FL of one file, and kept as FL, UL and FD of the next."""
    folder, engine = tmp_path_factory.mktemp("a"), engine_of(profile)
    first, second = ct_slice(), ct_slice()
    first.private_block(0x2005, "SOMEBODY", create=True).add_new(0x0E, "UN", spelled * times)
    first[0x20051001 + 0x20] = raw_element(0x20051021, "OB", spelled * times)
    first[0x20051022] = raw_element(0x20051022, "FL", spelled)
    second.SOPInstanceUID = "1.2.826.0.1.111.2"
    second[0x00189087] = raw_element(0x00189087, "FD", spelled * 2)
    second[0x00186020] = raw_element(0x00186020, "SL", spelled)
    second[0x00189089] = raw_element(0x00189089, "FD", spelled * 6)
    for name, dataset in (("1", first), ("2", second), ("3", first)):
        content = to_bytes(dataset)
        assert engine.write(engine.read(content), SUBJECT, folder / name) is None
    lost = [value for value in engine.lost(SUBJECT) if isinstance(value, bytes)]
    assert decode_lost(encode_lost(lost)) and all(
        isinstance(one, Opaque) for one in decode_lost(encode_lost(lost)) if bytes(one) == spelled * times
    )


def test_a_word_of_somebodys_is_found_in_numbers_all_the_same(tmp_path):
    dataset, engine = ct_slice(), engine_of()
    dataset.PatientName = "Wilhelmina^Q"
    dataset[0x00189089] = raw_element(0x00189089, "FD", b"Wilhelmina".ljust(24))
    refused = engine.write(engine.read(to_bytes(dataset)), SUBJECT, tmp_path / "a")
    assert refused is Exclusion.RESIDUAL_IDENTIFIER


def test_of_equal_values_the_text_counts():
    residue = Residue()
    residue.lost([Opaque(b"wilhelmina")])
    assert residue.opaque == {b"wilhelmina"}
    residue.lost([b"Wilhelmina"])
    assert residue.opaque == set()
    residue.lost([Opaque(b"wilhelmina "), Opaque(b"ab")])
    assert residue.opaque == set() and residue.whole == set()
