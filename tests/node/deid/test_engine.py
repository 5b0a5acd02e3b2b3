"""Gate 0's engine on single files: what goes, what stays, and that nothing else is there."""

import io
import stat

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion, screen
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from tests.sim.dicom import PIXELS, ct_slice, raw_element, to_bytes
from tests.sim.profiles import careless_engine

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), KEYED.shift_days("HX-77001234"))


def run(path, dataset=None, syntax=ExplicitVRLittleEndian, profile="eucaim", content=None, engine=None):
    """De-identify a dataset; the output as pydicom reads it, and its bytes."""
    engine = engine or open_engine(profile)
    source = engine.read(content or to_bytes(dataset if dataset is not None else ct_slice(), syntax))
    assert engine.write(source, SUBJECT, path) is None
    raw = path.read_bytes()
    return pydicom.dcmread(io.BytesIO(raw)), raw


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("profile", ["eucaim", "basic"])
def test_identifiers_go_and_pixels_stay_as_they_were(tmp_path, syntax, profile):
    out, raw = run(tmp_path / "a", syntax=syntax, profile=profile)
    assert out.PatientID == SUBJECT.patient and str(out.PatientName) == f"{SUBJECT.patient}^Anonymous"
    assert out.PatientBirthDate == "" and out.AccessionNumber != "ACC998877"
    assert out.PixelData == PIXELS and (out.Rows, out.SeriesNumber) == (8, 2)
    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == KEYED.uid("1.2.826.0.1.111.1")
    assert out.SOPClassUID == out.file_meta.MediaStorageSOPClassUID == CTImageStorage
    for trace in (b"Hartog", b"Wilhelmina", b"77001234", b"ACC998877", b"19310503", b"1.2.826"):
        assert trace not in raw


def test_what_was_done_is_said_truthfully(tmp_path):
    out, _ = run(tmp_path / "a")
    assert (out.PatientIdentityRemoved, out.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    codes = [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113103", "113104", "113105", "113107", "113108", "113111"]
    assert len(out.DeidentificationMethod) <= 64
    out, _ = run(tmp_path / "b", profile="basic")
    assert out.LongitudinalTemporalInformationModified == "REMOVED"
    assert [item.CodeValue for item in out.DeidentificationMethodCodeSequence] == ["113100"]


def test_claims_of_an_earlier_deidentifier_are_not_carried_on(tmp_path):
    dataset = ct_slice()
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "NO", "by hand, ask Hartog"
    out, raw = run(tmp_path / "a", dataset)
    assert out.PatientIdentityRemoved == "YES" and b"by hand" not in raw


@pytest.mark.parametrize("profile", ["basic", "eucaim", "eucaim-v5", "pseudonymise"])
@pytest.mark.parametrize(("said", "stays"), [("NO", "NO"), ("YES", "YES"), ("Hartog", ""), (None, None)])
def test_of_burned_in_text_only_what_its_maker_said_stays_and_nothing_is_claimed(tmp_path, profile, said, stays):
    dataset = ct_slice()
    if said is not None:
        dataset[0x00280301] = raw_element(0x00280301, "CS", said.encode())
    out, _ = run(tmp_path / "a", dataset, profile=profile)
    assert out.get("BurnedInAnnotation") == stays
    assert "113101" not in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]


def test_free_places_of_a_list_of_codes_stay_free(tmp_path):
    dataset = ct_slice()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "", "HARTOG"]
    out, _ = run(tmp_path / "a", dataset)
    assert out.ImageType == ["ORIGINAL", "PRIMARY", "", "OTHER"]


def test_dates_of_a_patient_move_together_and_times_stay(tmp_path):
    out, _ = run(tmp_path / "a")
    study, series = (pydicom.valuerep.DA(value) for value in (out.StudyDate, out.SeriesDate))
    assert (series - study).days == 37 and out.StudyDate != "20240301" and out.StudyTime == "101530.25"
    assert out.PatientAge == "090Y"


def test_uid_references_stay_consistent_and_class_uids_unchanged(tmp_path):
    dataset = ct_slice()
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "1.2.826.0.1.111.2"
    dataset.ReferencedImageSequence = Sequence([item])
    dataset.SourceImageSequence = Sequence([item])
    first, _ = run(tmp_path / "a", dataset)
    other = ct_slice()
    other.SOPInstanceUID = "1.2.826.0.1.111.2"
    second, _ = run(tmp_path / "b", other)
    for sequence in (first.ReferencedImageSequence, first.SourceImageSequence):
        assert sequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
        assert sequence[0].ReferencedSOPClassUID == CTImageStorage
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID != "1.2.826.0.1.444.1"


@pytest.mark.parametrize("depth", [1, 2, 8, 15])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_names_at_any_depth_go(tmp_path, depth, syntax):
    item = Dataset()
    item.PatientName, item.PatientComments = "Buried^Name", "buried comment"
    item.private_block(0x0011, "BURIED CREATOR", create=True).add_new(1, "LO", "buried private")
    for _ in range(depth):
        outer = Dataset()
        outer.AnatomicRegionSequence = Sequence([item])
        item = outer
    dataset = ct_slice()
    dataset.AnatomicRegionSequence = item.AnatomicRegionSequence
    out, raw = run(tmp_path / "a", dataset, syntax)
    assert b"uried" not in raw and b"BURIED" not in raw
    for _ in range(depth):
        out = out.AnatomicRegionSequence[0]
    assert out.PatientName == f"{SUBJECT.patient}^Anonymous"


def test_the_old_name_in_original_attributes_goes(tmp_path):
    former, record, dataset = Dataset(), Dataset(), ct_slice()
    former.PatientName = "Former^Name"
    record.ModifiedAttributesSequence = Sequence([former])
    record.ModifyingSystem, record.ReasonForTheAttributeModification = "PACS of Former", "CORRECT"
    dataset.OriginalAttributesSequence = Sequence([record])
    _, raw = run(tmp_path / "a", dataset)
    assert b"Former" not in raw


def test_private_elements_go_with_and_without_a_creator(tmp_path):
    dataset, item = ct_slice(), Dataset()
    item.PatientName = "Secret^Name"
    block = dataset.private_block(0x0009, "Secret creator", create=True)
    for number, (vr, value) in enumerate(
        [("LO", "Secret text"), ("OB", b"Secret bytes"), ("UN", b"Secret unknown "), ("SQ", Sequence([item]))]
    ):
        block.add_new(number, vr, value)
    dataset.add_new(0x00131001, "LO", "Secret without creator")
    public = Dataset()
    public.private_block(0x0015, "Secret inner", create=True).add_new(1, "LO", "Secret inside public")
    dataset.ReferencedImageSequence = Sequence([public])
    out, raw = run(tmp_path / "a", dataset)
    assert b"Secret" not in raw and not [element for element in out.iterall() if element.tag.is_private]


def test_unknown_even_elements_and_un_values_go(tmp_path):
    dataset = ct_slice()
    dataset.add_new(0x00187777, "LO", "Hidden one")
    dataset[0x00107776] = raw_element(0x00107776, "UN", b"Hidden two")
    dataset[0x00102180] = raw_element(0x00102180, "UN", b"Hidden three")
    dataset[0x00180050] = raw_element(
        0x00180050, "UN", b"5.0 "
    )  # SliceThickness by one who did not know it: kept by rule, parsed
    dataset[0x00180060] = raw_element(0x00180060, "UN", b"Hidden")  # KVP that is no number
    out, raw = run(tmp_path / "a", dataset)
    assert b"Hidden" not in raw and out.SliceThickness == 5 and out.KVP is None


def test_everything_around_the_dataset_goes(tmp_path):
    dataset = ct_slice()
    for tag, vr in ((0x60000022, "LO"), (0x60004000, "LT"), (0x50000022, "LO"), (0x00080080, "LO")):
        dataset.add_new(tag, vr, "Around it")
    dataset.add_new(0x60003000, "OW", b"Around it ")
    dataset.add_new(0xFFFCFFFC, "OB", b"Around it ")
    to_bytes(dataset)
    dataset.preamble = b"Around it ".ljust(128, b"\0")
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = "Around it"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3.4", b"Around it "
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    out, raw = run(tmp_path / "a", content=buffer.getvalue() + b"Around it")
    assert b"Around" not in raw and raw[:128] == bytes(128)
    assert sorted(element.keyword for element in out.file_meta) == [
        "FileMetaInformationGroupLength", "FileMetaInformationVersion", "ImplementationClassUID",
        "ImplementationVersionName", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID",
    ]  # fmt: skip
    assert raw.endswith(PIXELS)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Björling^Åsa"),
        ("ISO_IR 192", "Иванов^Пётр"),
        ("GB18030", "王小东^晓"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (None, "Vermeulen^Pieter"),
    ],
)
def test_names_in_every_character_set_go(tmp_path, charset, name):
    dataset = ct_slice()
    if charset is None:
        del dataset.SpecificCharacterSet
    else:
        dataset.SpecificCharacterSet = charset
    dataset.PatientName = name
    dataset.OperatorsName = [name, name]
    dataset.SeriesDescription = name.replace("^", " ")
    content = to_bytes(dataset)
    out, raw = run(tmp_path / "a", content=content)
    before = pydicom.dcmread(io.BytesIO(content))
    for value in before.PatientName.original_string.replace(b"^", b"=").split(b"="):
        assert value not in raw
    assert "SeriesDescription" not in out or not out.SeriesDescription


def test_known_words_of_a_description_stay(tmp_path):
    dataset = ct_slice()
    dataset.SeriesDescription = "Chest Hartog 5mm"
    out, _ = run(tmp_path / "a", dataset)
    assert out.SeriesDescription == "Chest 5mm"


def test_the_patients_name_in_a_kept_text_is_caught_on_disk_and_the_file_is_gone(tmp_path):
    """A site's own profile keeps a comment as it is: the residual check is what stands between it and the outside."""
    engine = careless_engine()
    dataset = ct_slice()
    dataset.PatientComments = "nothing special"
    out, _ = run(tmp_path / "a", dataset, engine=engine)
    assert out.PatientComments == "nothing special"
    dataset.PatientComments = "mrs HARTOG feels well"
    path = tmp_path / "b"
    assert engine.write(engine.read(to_bytes(dataset)), SUBJECT, path) is Exclusion.RESIDUAL_IDENTIFIER
    assert not path.exists()


def test_a_second_pass_changes_nothing_more_but_keyed_values(tmp_path):
    first, raw = run(tmp_path / "a", profile="basic")
    second, _ = run(tmp_path / "b", content=raw, profile="basic")
    assert [(e.tag, e.VR) for e in first] == [(e.tag, e.VR) for e in second]
    once, twice = ([e.value for e in out if e.VR not in ("UI", "PN", "LO", "SQ")] for out in (first, second))
    assert once == twice


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert run(tmp_path / "a")[1] == run(tmp_path / "b")[1]


def test_output_is_private_and_never_written_over_anything(tmp_path):
    path = tmp_path / "a"
    run(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    engine, before = open_engine("eucaim"), path.read_bytes()
    with pytest.raises(FileExistsError):
        engine.write(engine.read(to_bytes(ct_slice())), SUBJECT, path)
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        engine.write(engine.read(to_bytes(ct_slice())), SUBJECT, tmp_path / "link")
    assert path.read_bytes() == before and (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize(("rows", "frames"), [(9, None), (4, None), (8, 2), (0, None)])
def test_pixels_of_another_size_than_declared_are_a_finding(rows, frames):
    dataset = ct_slice()
    dataset.Rows = rows
    if frames:
        dataset.NumberOfFrames = frames
    assert open_engine("eucaim").read(to_bytes(dataset)).finding is Exclusion.PIXELS_INCONSISTENT


@pytest.mark.parametrize(("bit", "held"), [(12, False), (15, False), (3, True), (11, True), (99, True)])
def test_an_overlay_in_a_bit_that_is_stored_holds_the_instance_and_in_another_it_goes(bit, held):
    dataset = ct_slice()
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.add_new(0x60000102, "US", bit)
    source = open_engine("eucaim").read(to_bytes(dataset))
    assert (Exclusion.OVERLAY_IN_PIXELS in screen(source.facts, source.finding)) == held
