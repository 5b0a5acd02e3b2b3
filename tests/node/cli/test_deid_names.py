"""Names that are terms, through `cloister deid run` and `verify`: in whatever order and folder the files come."""

import io

import pydicom
import pytest

from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import files, instances, options, plain_slice, put, report
from tests.node.cli.deid_desk import key as key
from tests.sim.dicom import to_bytes

VERIFY = ("--profile", "eucaim", "--json")


def study():
    """Two slices: the one has words that only the other says are somebody's."""
    typed = plain_slice(SeriesDescription="HAND CHEST li", BodyPartExamined="HAND", StudyDescription="B31 CT AB12")
    told = plain_slice(SOPInstanceUID="1.2.826.0.1.111.2", InstanceNumber=2, SeriesDescription="HAND CHEST")
    told.OperatorsName, told.OtherPatientIDs, told.AccessionNumber = "Li^Händ", "B31", "AB-12"
    return typed, told


def test_the_order_of_the_files_of_one_folder_says_nothing_of_what_stays(cloister, key, tmp_path):
    for folder, order in (("a", (0, 1)), ("b", (1, 0))):
        for name, place in zip("12", order, strict=True):
            put(tmp_path / folder, name, study()[place])
        said = cloister("deid", "run", tmp_path / folder, tmp_path / f"out-{folder}", *options(key))
        assert said.json["written"] == 2, said.out
    assert files(tmp_path / "out-a") == files(tmp_path / "out-b")
    (typed,) = (one for one in instances(tmp_path / "out-a").values() if one.InstanceNumber == 1)
    assert (typed.SeriesDescription, typed.BodyPartExamined, typed.StudyDescription) == ("CHEST", "HAND", "CT")
    again = cloister("deid", "run", tmp_path / "a", tmp_path / "out-a", *options(key))
    assert again.json["written"] == 2  # given twice it ends the same


@pytest.mark.parametrize("order", ["12", "21"])
def test_what_another_folders_first_file_says_is_a_name_goes(cloister, key, tmp_path, order):
    for name, dataset in zip(order, study(), strict=True):
        put(tmp_path / "in", f"{name}/slice", dataset)
    said = cloister("deid", "run", tmp_path / "in", tmp_path / "out", *options(key))
    assert said.json["written"] == 2
    assert {one.SeriesDescription for one in instances(tmp_path / "out").values()} == {"CHEST"}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("order", ["12", "21"])
def test_what_a_later_file_of_another_folder_says_is_a_name_holds_the_file(cloister, key, tmp_path, order, jobs):
    """Whichever worker had which folder first."""
    typed, told = study()
    put(tmp_path / "in", f"{order[0]}/slice", typed)
    put(tmp_path / "in", f"{order[1]}/1", plain_slice(SOPInstanceUID="1.2.826.0.1.111.3", InstanceNumber=3))
    put(tmp_path / "in", f"{order[1]}/2", told)
    said = cloister("deid", "run", tmp_path / "in", tmp_path / "out", *options(key, "--jobs", jobs))
    assert (said.json["written"], said.json["refused_reasons"]) == (2, {"residual_identifier": 1})
    assert {int(one.InstanceNumber) for one in instances(tmp_path / "out").values()} == {2, 3}
    assert len(report(tmp_path / "out")) == 3


def test_one_study_under_two_patients_knows_the_names_of_both(cloister, key, tmp_path):
    typed, told = study()
    told.PatientID = "OTHER-4711"
    for folder, pair in (("a", (typed, told)), ("b", (told, typed))):
        for name, dataset in zip("12", pair, strict=True):
            put(tmp_path / folder, name, dataset)
        cloister("deid", "run", tmp_path / folder, tmp_path / f"out-{folder}", *options(key))
    held, also = (tmp_path / f"out-{folder}.review" for folder in "ab")  # a person says whether it is one patient
    assert files(held) == files(also) and not files(tmp_path / "out-a")
    assert {one.SeriesDescription for one in instances(held).values()} == {"CHEST"}


def verified(cloister, source, output, *more):
    said = cloister("deid", "verify", source, output, *VERIFY, *more)
    assert said.code == (3 if said.json["findings"] else 0)
    return [finding.removeprefix("dst#0001 value ") for finding in said.json["findings"]]


def clean(**changes):
    return plain_slice(
        PatientName="X", PatientID="0", PatientBirthDate="", AccessionNumber="", StudyDate="20200101",
        SeriesDate="20200207", SOPInstanceUID="9.1", StudyInstanceUID="9.2", SeriesInstanceUID="9.3",
        FrameOfReferenceUID="9.4", PatientAge="060Y", **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "keyword", "value", "found"),
    [
        ("White^Black", "SeriesDescription", "CT WHITE CHEST", True),
        ("Hand^X", "SeriesDescription", "HAND", True),
        ("Hand^X", "BodyPartExamined", "HAND", False),
        ("White^X", "BodyPartExamined", "WHITE", True),
        ("Li^X", "SeriesDescription", "CT LI", True),
        ("Li^X", "SeriesDescription", "CT LIVER", False),
        ("Müller^X", "SeriesDescription", "MUELLER", True),
        ("Müller^X", "PatientComments", "seen: Muller", True),
        ("Mueller^X", "PatientComments", "seen: Müller", True),
        ("Mary^X", "ImageType", ["ORIGINAL", "PRIMARY"], False),
        ("van Hooft^X", "PatientComments", "van hier", False),
        ("X^Y", "PatientName", "Li^Wu", False),
        ("Li^Wu", "PatientName", "Li", True),
        ("Tran^X", "SeriesDescription", "TRANSVERSE", True),
        ("X^Y", "SeriesDescription", "CT HAND", False),
    ],
)
def test_verify_names_what_another_tool_took_for_a_term(cloister, tmp_path, name, keyword, value, found):
    source, output = tmp_path / "source", tmp_path / "other"
    put(source, "1", plain_slice(PatientName=name))
    dataset = clean()
    setattr(dataset, keyword, value)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    put(output, "1", dataset)
    tag = dataset[keyword].tag
    assert verified(cloister, source, output) == ([f"({tag.group:04X},{tag.element:04X})"] if found else [])


def test_verify_tells_patients_apart(cloister, tmp_path):
    """A term is a name only in the output of who is called so; whose it is, pixels say, or others of the same id."""
    source, output = tmp_path / "source", tmp_path / "other"
    pixels = {one: bytes([number] * 128) for number, one in enumerate(["Hand^X", "Foot^X"])}
    for name, value in pixels.items():
        dataset = plain_slice(PatientName=name, PatientID=f"ID-{name}", SOPInstanceUID=f"1.2.{len(value)}.{value[0]}")
        dataset[0x7FE00010]._value = value
        put(source, name, dataset)
        dataset = clean(SeriesDescription="HAND")
        dataset[0x7FE00010]._value, dataset.PatientID = value, f"P{value[0]}"
        put(output, f"{value[0]}-pixels", dataset)
        del dataset.PixelData, dataset.Rows
        put(output, f"{value[0]}-none", dataset)
    said = cloister("deid", "verify", source, output, *VERIFY)
    assert said.json["findings"] == ["dst#0001 value (0008,103E)", "dst#0002 value (0008,103E)"]


def test_verify_lets_no_name_stand_because_pixels_are_equal(cloister, tmp_path):
    """The same picture of two patients (a blank one, a phantom): each one's name may stand in neither."""
    source, output = tmp_path / "source", tmp_path / "other"
    for number, name in enumerate(["White^X", "Black^X"]):
        put(source, name, plain_slice(PatientName=name, PatientID=f"ID-{name}", SOPInstanceUID=f"1.2.3.{number}"))
        put(output, str(number), clean(SeriesDescription=name.replace("^X", " CHEST").upper()))
    said = cloister("deid", "verify", source, output, *VERIFY)
    assert said.json["findings"] == ["dst#0001 value (0008,103E)", "dst#0002 value (0008,103E)"]


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "basic", "pseudonymise"])
def test_verify_finds_nothing_in_our_own_output_of_everybody(cloister, key, tmp_path, profile, keyed):
    source, output = tmp_path / "source", tmp_path / "out"
    for number, name in enumerate(["Hand^White", "Li^Liver", "Anonymous", "Chest^CT^^^SR", "Primary^Original"]):
        dataset = plain_slice(PatientName=name, PatientID=f"P{number:03d}", AccessionNumber=f"T{number}")
        dataset.SOPInstanceUID, dataset.StudyInstanceUID = f"1.2.{number}.1", f"1.2.{number}.2"
        dataset.SeriesDescription, dataset.BodyPartExamined = f"HAND LIVER CHEST P{number:03d}", "HAND"
        dataset[0x7FE00010]._value = bytes([number] * 128)
        put(source, str(number), dataset)
    said = cloister("deid", "run", source, output, *options(key, profile=profile))
    assert said.json["written"] == 5
    more = ("--key", key, "--project", "liver", "--site", "alpha") if keyed else ()
    said = cloister("deid", "verify", source, output, "--profile", profile, "--json", *more)
    assert said.json["findings"] == [] and said.code == 0 and said.json["outputs_matched"] == 5
    name, dataset = next(iter(instances(output).items()))
    leaking = pydicom.dcmread(io.BytesIO(to_bytes(dataset, dataset.file_meta.TransferSyntaxUID)))
    leaking.SeriesDescription = "P000 P001 P002 P003 P004"
    leaking.save_as(output / name)
    said = cloister("deid", "verify", source, output, "--profile", profile, "--json", *more)
    assert said.code == 3 and [one.split(" ", 1)[1] for one in said.json["findings"]] == ["value (0008,103E)"]
