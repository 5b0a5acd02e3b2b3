"""`cloister deid verify`: on any tool's output, and with its key on our own."""

import io
import os

import pydicom
import pytest

from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import instances, options, plain_slice, put
from tests.node.cli.deid_desk import key as key
from tests.sim.containers import planted_study
from tests.sim.dicom import to_bytes


def dated(**values):
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def test_verify_finds_what_another_tool_left(cloister, tmp_path):
    source, output = tmp_path / "source", tmp_path / "other"
    put(source, "1", plain_slice(AnatomicRegionSequence=[dated(AcquisitionDateTime="20240301101530")]))
    clean = plain_slice(
        PatientName="X", PatientID="0", PatientBirthDate="", AccessionNumber="", StudyDate="20200101",
        SeriesDate="20200207", SOPInstanceUID="9.1", StudyInstanceUID="9.2", SeriesInstanceUID="9.3",
        FrameOfReferenceUID="9.4", PatientAge="060Y",
    )  # fmt: skip
    put(output, "1", clean)
    said = cloister("deid", "verify", source, output, "--profile", "eucaim", "--json")
    assert said.code == 0 and said.json["outputs_matched"] == 1, said.out
    for change, place in (
        ({"PatientComments": "about mrs HARTOG"}, "value (0010,4000)"),
        ({"StudyDate": "20240301"}, "date (0008,0020)"),
        ({"SeriesDate": "20200208"}, "interval (0008,0021)"),
        ({"AnatomicRegionSequence": [dated(AcquisitionDateTime="20240301101530")]}, "date (0008,2218) > (0008,002A)"),
        ({"FrameOfReferenceUID": "1.2.826.0.1.444.1"}, "value (0020,0052)"),
    ):
        leaking = pydicom.dcmread(io.BytesIO(to_bytes(clean)))
        for name, value in change.items():
            setattr(leaking, name, value)
        put(output, "1", leaking)
        said = cloister("deid", "verify", source, output, "--profile", "eucaim", "--json")
        assert said.code == 3 and said.json["findings"] == [f"dst#0001 {place}"], place
        assert "artog" not in said.out.lower() + said.err.lower()
    put(output, "1", to_bytes(clean) + b"Hartog^Wilhelmina")
    (output / "1").rename(output / "HX-77001234.dcm")
    said = cloister("deid", "verify", source, output, "--profile", "eucaim", "--json")
    assert said.json["findings"] == ["dst#0001 value file name", "dst#0001 value after the pixels"]


@pytest.mark.parametrize(
    ("profile", "wrong", "with_pixels"),
    [
        ("eucaim", {"StudyDate": "19990101"}, True),
        ("eucaim", {"StudyTime": "101531"}, False),
        ("eucaim-v5", {"StudyDate": "20240302"}, False),
        ("basic", {"StudyDate": "20230301"}, False),
        ("basic", {"ContentTime": "101530"}, True),
        ("pseudonymise", {"StudyDate": "20240302"}, False),
    ],
)
def test_with_its_key_verify_compares_each_date_of_our_own_output(cloister, key, tmp_path, profile, wrong, with_pixels):
    source, output = tmp_path / "source", tmp_path / "out"
    if with_pixels:
        put(source, "1", plain_slice(ContentTime="101530", ContentDate="20240229"))
    else:
        source.mkdir()
        os.link(planted_study(tmp_path).files["rtplan"], source / "1")
    cloister("deid", "run", source, output, *options(key, profile=profile))
    check = ("--profile", profile, "--key", key, "--project", "liver", "--site", "alpha", "--json")
    said = cloister("deid", "verify", source, output, *check)
    assert (said.code, said.json["outputs_matched"], said.json["findings"]) == (0, 1, [])
    ((name, out),) = instances(output).items()
    for keyword, value in wrong.items():
        setattr(out, keyword, value)
    out.save_as(output / name)
    said = cloister("deid", "verify", source, output, *check)
    assert said.code == 3 and len(said.json["findings"]) == 1, said.out
    assert said.json["findings"][0].split()[1] in ("date", "interval")


@pytest.mark.parametrize("wrong", ["key", "project", "site", ""])
def test_a_key_that_made_none_of_the_files_is_no_good_news(cloister, key, tmp_path, wrong):
    source, output, other = tmp_path / "source", tmp_path / "out", tmp_path / "other.key"
    put(source, "1", plain_slice())
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    cloister("deid", "run", source, output, *options(key))
    given = {"profile": "eucaim", "key": key, "project": "liver", "site": "alpha"}
    given |= {name: value for name, value in (("key", other), ("project", "p2"), ("site", "beta")) if name == wrong}
    check = [word for name, value in given.items() for word in (f"--{name}", value)]
    said = cloister("deid", "verify", source, output, *check, "--json")
    assert said.json["made_with_key"] is not bool(wrong)
    assert (said.code, "made none of these 1 files" in said.err) == ((3, True) if wrong else (0, False))
    ((name, out),) = instances(output).items()
    out.StudyDate = "20240301"
    out.save_as(output / name)
    said = cloister("deid", "verify", source, output, *check, "--json")
    assert said.code == 3 and said.json["outputs_matched"] == 1  # the pixels say whose it is
    assert any("(0008,0020)" in one for one in said.json["findings"])
