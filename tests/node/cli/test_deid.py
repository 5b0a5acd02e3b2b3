"""`cloister deid` as a person runs it: folders in, folders out, and not one identifier in what is said."""

import io
import json
import multiprocessing
import os
import re
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from mediator import canonical
from mediator.deid.traceability import NO_TRACEABILITY, key_id
from mediator.signatures import VerifyKey
from node.cli import main
from node.usecases.deidentify_folder import Rooms, deidentify_folder
from node.wiring.deid import Processes, list_files
from node.wiring.deid_worker import Settings
from tests.sim.cohort import write_cohort
from tests.sim.containers import planted_study
from tests.sim.dicom import PIXELS, ct_slice, element, raw_file, to_bytes
from tests.sim.planting import plant
from tests.sim.pydicom_files import copy_pydicom_files
from tests.sim.search import search


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cloister(monkeypatch, capfd):
    """The command line in this process; worker processes are real."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["cloister", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Said(stop.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "site.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def plain_slice(**changes):
    """A CT slice that says that nothing is burned in: it needs no reading."""
    dataset = ct_slice()
    dataset.BurnedInAnnotation = "NO"
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def put(folder: Path, name: str, dataset) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dataset if isinstance(dataset, bytes) else to_bytes(dataset))


def options(key: Path, *more: object, profile: str = "eucaim", project: str = "liver", site: str = "alpha"):
    return ("--profile", profile, "--project", project, "--site", site, "--key", key, "--ocr", "off", "--json", *more)


def instances(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(path.relative_to(folder)): pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))}


def report(folder: Path) -> list[dict]:
    return [json.loads(line) for line in folder.with_name(f"{folder.name}.report.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "basic", "pseudonymise"])
def test_nothing_planted_is_written_or_said(cloister, key, tmp_path, profile):
    source, output = tmp_path / "in" / "source", tmp_path / "told" / "out"
    output.parent.mkdir()
    write_cohort(source, "alpha", 12, seed=5)
    copy_pydicom_files(source / "pydicom")
    for path in source.rglob("*.dcm"):  # so that some pass without anybody reading their pixels
        dataset = pydicom.dcmread(path, force=True)
        if dataset.get("Modality") == "CT" and "pydicom" not in path.parts:
            dataset.BurnedInAnnotation = "NO"
            dataset.save_as(path)
    tokens = plant(source, 400, seed=5)
    said = cloister("deid", "run", source, output, *options(key, "--jobs", 2, profile=profile))
    (output.parent / "said.txt").write_text(said.out + said.err)
    assert said.code == 0 and said.json["written"] >= 24
    if profile == "pseudonymise":  # stage 1 keeps dates: one of the places holds nothing else
        tokens = [token for token in tokens if not re.fullmatch(r"19[0-9]{12}\.[0-9]+", token)]
    assert search([output.parent], tokens) == []
    counted = said.json
    assert counted["files"] == counted["written"] + counted["review"] + counted["refused"] == len(report(output))
    assert sum(counted["refused_reasons"].values()) == counted["refused"]
    assert [line["source"] for line in report(output)] == [f"src#{n:04d}" for n in range(1, counted["files"] + 1)]
    assert "residual_identifier" not in counted["refused_reasons"]
    assert len(instances(output)) == counted["written"]
    assert len(instances(output.with_name("out.review"))) == counted["review"]
    again = cloister("deid", "verify", source, output, "--profile", profile, "--json")
    assert (again.code, again.json["findings"]) == (0, [])


def test_a_second_run_finds_everything_there_and_changes_nothing(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    for number in range(3):
        put(source, f"{number}", plain_slice(SOPInstanceUID=f"1.2.826.0.1.111.{number + 1}"))
    first = cloister("deid", "run", source, output, *options(key))
    before = files(output)
    second = cloister("deid", "run", source, output, *options(key, "--jobs", 2))
    assert first.json["written"] == second.json["written"] == 3 and files(output) == before
    assert sorted(os.listdir(tmp_path)) == ["out", "out.report.jsonl", "out.summary.json", "site.key", "source"]


def test_another_file_in_the_place_of_an_output_is_never_written_over(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    put(source, "1", plain_slice())
    cloister("deid", "run", source, output, *options(key))
    (name,) = files(output)
    (output / name).write_bytes(b"somebody's")
    said = cloister("deid", "run", source, output, *options(key))
    assert (said.code, said.json["refused_reasons"]) == (3, {"output_exists": 1})
    assert (output / name).read_bytes() == b"somebody's"


def test_bad_input_is_a_finding_and_the_rest_goes_on(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    put(source, "good", plain_slice())
    put(source, "good again", plain_slice())
    put(source, "truncated", to_bytes(plain_slice())[:-10])
    put(source, "notes.txt", b"Hartog was here")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(300)) + bomb.flush()
    put(source, "bomb", raw_file(packed, "1.2.840.10008.1.2.1.99"))
    put(source, "giant", raw_file(element(0x00080005, b"UT", b"x", length=0xFFFFFFFE)))
    deep = b""
    for _ in range(3000):
        item = b"\xfe\xff\x00\xe0" + len(deep).to_bytes(4, "little") + deep
        deep = element(0x00400555, b"SQ", item)
    put(source, "deep", raw_file(deep))
    (source / "climbs").symlink_to("../../etc/passwd")
    os.mkfifo(source / "pipe")
    said = cloister("deid", "run", source, output, *options(key, "--jobs", 2))
    told = said.json
    assert said.code == 0 and (told["files"], told["written"], told["review"]) == (9, 1, 0)
    reasons = told["refused_reasons"]
    assert reasons["not_a_file"] == 2 and reasons["duplicate_instance"] == 1 and reasons["not_dicom"] == 1
    assert reasons["truncated"] >= 2 and reasons["too_deep"] == 1 and sum(reasons.values()) == 8
    assert "Hartog" not in said.out + said.err and not (tmp_path / ".out.partial").exists()


def test_when_nothing_can_be_written_the_exit_code_is_3(cloister, key, tmp_path):
    put(tmp_path / "source", "Hartog.txt", b"Hartog")
    said = cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key))
    assert said.code == 3 and said.json["refused_reasons"] == {"not_dicom": 1}
    assert "Hartog" not in said.out + said.err and "nothing could be written" in said.err


def test_what_a_person_must_see_lies_in_review_de_identified_with_its_reason(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    put(source, "1", plain_slice(SOPClassUID=SecondaryCaptureImageStorage))
    put(source, "2", plain_slice(SOPInstanceUID="1.2.826.0.1.111.2", ConversionType="WSD"))
    put(source, "3", plain_slice(SOPInstanceUID="1.2.826.0.1.111.3", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]))
    put(source, "4", plain_slice(SOPInstanceUID="1.2.826.0.1.111.4", PatientID=""))
    put(source, "5", plain_slice(SOPInstanceUID="1.2.826.0.1.111.5", PatientID=""))
    put(source, "6", plain_slice(SOPInstanceUID="1.2.826.0.1.111.6", ImageType=["DERIVED", "PRIMARY", "MPR"]))
    put(source, "7", ct_slice_needing_eyes())
    for profile in ("basic", "eucaim", "eucaim-v5", "pseudonymise"):
        target = output.with_name(f"{profile}-out")
        said = cloister("deid", "run", source, target, *options(key, profile=profile))
        expected = {"secondary_capture": 3, "patient_id_missing": 2, "pixel_text_not_checked": 1}
        assert said.json["review_reasons"] == expected, profile
        assert said.json["written"] == 1
        reviewed = instances(target.with_name(f"{profile}-out.review"))
        assert len(reviewed) == 6 and all("Hartog" not in str(dataset) for dataset in reviewed.values())
        assert len({dataset.PatientID for dataset in reviewed.values()}) == 3  # Hartog, and two who are nobody
        reasons = {line["name"]: line["reasons"] for line in report(target) if line["outcome"] == "review"}
        assert set(reasons) == set(reviewed) and all(reasons.values())


def ct_slice_needing_eyes():
    dataset = plain_slice(SOPInstanceUID="1.2.826.0.1.111.7")
    del dataset.BurnedInAnnotation
    return dataset


def test_stage_1_and_stage_2_are_one_engine_with_two_profiles(cloister, key, tmp_path):
    source, local = tmp_path / "source", tmp_path / "local"
    for number, day in ((1, "20240301"), (2, "20240407")):
        put(source, str(number), plain_slice(SOPInstanceUID=f"1.2.3.{number}", StudyDate=day, IssuerOfPatientID="HIS"))
    put(source, "other", plain_slice(SOPInstanceUID="1.2.3.9", PatientID="HX-1"))
    for project in ("liver", "lung"):  # whatever the project, the hospital's pseudonym is one
        target = local if project == "liver" else tmp_path / "local-lung"
        cloister("deid", "run", source, target, *options(key, profile="pseudonymise", project=project))
    assert files(local) == files(tmp_path / "local-lung")
    first = list(instances(local).values())
    assert len({one.PatientID for one in first}) == 2 and {one.IssuerOfPatientID for one in first} == {"alpha"}
    assert {one.StudyDate for one in first} == {"20240301", "20240407"}
    seen = {}
    for project, site in (("liver", "alpha"), ("lung", "alpha"), ("liver", "beta")):
        target = tmp_path / f"{project}-{site}"
        cloister("deid", "run", local, target, *options(key, project=project, site=site))
        second = list(instances(target).values())
        patients = {one.PatientID for one in second}
        assert len(patients) == 2 and not patients & {one.PatientID for one in first}
        by_patient = {
            p: sorted(pydicom.valuerep.DA(one.StudyDate) for one in second if one.PatientID == p) for p in patients
        }
        (days,) = (dates for dates in by_patient.values() if len(dates) == 2)
        assert (days[1] - days[0]).days == 37 and days[0].strftime("%Y%m%d") != "20240301"
        seen[project, site] = (
            patients | {one.StudyInstanceUID for one in second} | {one.SOPInstanceUID for one in second}
        )
    one, two, three = seen.values()
    assert not one & two and not one & three and not two & three


def test_eucaim_v5_means_what_the_public_script_means(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    put(source, "1", plain_slice(InstitutionName="Hartog Hospital", TimezoneOffsetFromUTC="+0100"))
    cloister("deid", "run", source, output, *options(key, profile="eucaim-v5"))
    (out,) = instances(output).values()
    assert out.PatientID.startswith("EUCAIM-") and str(out.PatientName) == f"{out.PatientID}^Anonymous"
    assert (out.StudyDate, out.SeriesDate, out.StudyTime) == ("20240301", "20240401", "101530.25")
    assert (out.PatientSex, out.PatientAge, out.TimezoneOffsetFromUTC) == ("F", "090Y", "+0100")
    assert len(out.InstitutionName) == 16 and out.LongitudinalTemporalInformationModified == "MODIFIED"


def test_a_sites_own_profile_is_a_file(cloister, key, tmp_path):
    own = tmp_path / "own.toml"
    text = 'format = 1\nname = "{}"\nversion = 1\ntitle = "ours"\nscope = "project"\noptions = ["uids", "full-dates"]\n'
    text += 'dates = "kept"\n[elements]\nPatientID = "pseudonym"\n[vr]\nUS = "keep"\n'
    own.write_text(text.format("our-own"))
    put(tmp_path / "source", "1", plain_slice())
    said = cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key, profile=str(own)))
    assert said.code == 0 and said.json["profile"] == "our-own/1"
    ((name, out),) = instances(tmp_path / "out").items()
    assert out.StudyDate == "20240301" and out.StudyInstanceUID == "1.2.826.0.1.222.1"
    assert out.file_meta.MediaStorageSOPInstanceUID == out.SOPInstanceUID == "1.2.826.0.1.111.1"
    assert [item.CodeValue for item in out.DeidentificationMethodCodeSequence] == ["113100", "113106", "113110"]
    assert out.LongitudinalTemporalInformationModified == "UNMODIFIED" and "1.2.826" not in name
    own.write_text(text.format("eucaim"))
    said = cloister("deid", "run", tmp_path / "source", tmp_path / "out2", *options(key, profile=str(own)))
    assert said.code == 2 and "another name" in said.err


CARELESS = (
    'format = 1\nname = "careless"\nversion = 1\ntitle = "keeps a comment"\nscope = "project"\noptions = []\n'
    'dates = "removed"\n[elements]\nPatientID = "pseudonym"\nPatientName = "pseudonym"\nPatientComments = "keep"\n'
    '[vr]\nUS = "keep"\nUI = "replace-uid"\n'
)


@pytest.mark.parametrize("where", ["a/1", "b/1"], ids=["in one batch", "in two batches"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_name_that_only_a_later_file_of_the_study_loses_takes_the_earlier_one_out_again(
    cloister, key, tmp_path, where, jobs
):
    source, own = tmp_path / "source", tmp_path / "careless.toml"
    own.write_text(CARELESS)
    put(source, "a/0", plain_slice(PatientComments="seen by VERMEULEN, feels well"))
    put(source, "a/00", plain_slice(PatientComments="feels well", SOPInstanceUID="1.2.826.0.1.111.3"))
    put(source, where, plain_slice(SOPInstanceUID="1.2.826.0.1.111.2", OperatorsName="Vermeulen^Piet"))
    said = cloister("deid", "run", source, tmp_path / "out", *options(key, "--jobs", jobs, profile=str(own)))
    told = said.json
    assert (told["files"], told["written"], told["refused_reasons"]) == (3, 2, {"residual_identifier": 1})
    lines = report(tmp_path / "out")
    assert lines[0] == {"source": "src#0001", "outcome": "refused", "reasons": ["residual_identifier"]}
    assert [line["outcome"] for line in lines] == ["refused", "written", "written"]
    assert set(instances(tmp_path / "out")) == {line["name"] for line in lines[1:]}
    assert search([tmp_path / "out"], ["VERMEULEN", "Vermeulen"]) == []
    assert not (tmp_path / ".out.partial").exists()


def test_the_source_index_is_private_and_the_only_place_of_paths(cloister, key, tmp_path):
    source, index = tmp_path / "source", tmp_path / "index.jsonl"
    put(source, "Hartog^Wilhelmina/1", plain_slice())
    said = cloister("deid", "run", source, tmp_path / "out", *options(key, "--source-index", index))
    assert json.loads(index.read_text()) == {"source": "src#0001", "path": "Hartog^Wilhelmina/1"}
    assert stat.S_IMODE(index.stat().st_mode) == 0o600 and "Hartog" not in said.out + said.err
    said = cloister("deid", "run", source, tmp_path / "out", *options(key, "--source-index", index))
    assert said.code == 2


@pytest.mark.parametrize("wrong", ["mode", "length", "missing", "link"])
def test_a_key_that_is_not_exactly_one_is_refused(cloister, key, tmp_path, wrong):
    put(tmp_path / "source", "1", plain_slice())
    if wrong == "mode":
        key.chmod(0o640)
    elif wrong == "length":
        key.write_bytes(bytes(33))
    elif wrong == "missing":
        key.unlink()
    else:
        key.rename(tmp_path / "real")
        key.symlink_to(tmp_path / "real")
    said = cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key))
    assert said.code == 2 and not (tmp_path / "out").exists()


def test_src_and_dst_are_strangers(cloister, key, tmp_path):
    source = tmp_path / "source"
    put(source, "1", plain_slice())
    before = files(source)
    for target in (source, source / "below", tmp_path):
        assert cloister("deid", "run", source, target, *options(key)).code == 2
    (tmp_path / "out").symlink_to(source)
    assert cloister("deid", "run", source, tmp_path / "out", *options(key)).code == 2
    assert files(source) == before
    said = cloister("deid", "run", source, key / "out", *options(key))
    assert said.code == 2 and "DST cannot be written" in said.err


def test_a_key_is_made_once_and_destroyed_on_record(cloister, tmp_path):
    path, source = tmp_path / "k", tmp_path / "source"
    put(source, "1", plain_slice())
    assert cloister("deid", "key", "new", path).code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(path.read_bytes()) == 32
    assert cloister("deid", "key", "new", path).code == 2  # never over another
    said = cloister("deid", "run", source, tmp_path / "out", *options(path))
    assert said.json["traceability"].startswith("pseudonymous") and said.json["key"] == key_id(path.read_bytes())
    summary = tmp_path / "out.summary.json"
    retired = cloister("deid", "key", "retire", path, "--yes", "--report", summary)
    assert retired.code == 0 and not path.exists()
    line = json.loads((tmp_path / "k.retired.jsonl").read_text())
    signature = bytes.fromhex(line.pop("signature"))
    checks = VerifyKey.from_text((tmp_path / "k.pub").read_text().strip())
    assert checks.verifies(signature, canonical.dumps(line)) and line["key"] == said.json["key"]
    assert json.loads(summary.read_text())["traceability"] == line["traceability"] == NO_TRACEABILITY


def test_a_report_of_another_key_keeps_the_key_alive(cloister, key, tmp_path):
    put(tmp_path / "source", "1", plain_slice())
    cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key))
    cloister("deid", "key", "new", tmp_path / "k")
    said = cloister("deid", "key", "retire", tmp_path / "k", "--yes", "--report", tmp_path / "out.summary.json")
    assert said.code == 2 and (tmp_path / "k").exists() and not (tmp_path / "k.retired.jsonl").exists()


def test_explain_names_the_rule_for_each_element_and_no_value_unasked(cloister, tmp_path):
    dataset = plain_slice()
    block = dataset.private_block(0x0009, "Hartog creator", create=True)
    block.add_new(1, "LO", "Hartog text")
    put(tmp_path, "Hartog.dcm", dataset)
    said = cloister("deid", "explain", tmp_path / "Hartog.dcm", "--json")
    assert said.code == 0 and "Hartog" not in said.out + said.err and said.json["verdict"] == "passes"
    rows = {row["tag"]: row for row in said.json["elements"]}
    assert rows["(0010,0020)"]["action"] == "pseudonym" and rows["(0010,0020)"]["rule"] == "eucaim: PatientID"
    assert rows["(0008,0020)"]["rule"] == "PS3.15 E.1-1: modified-dates C"
    assert rows["(0009,1001)"]["rule"] == "default: no rule names it"
    assert len(rows) >= len(dataset)
    with_values = cloister("deid", "explain", tmp_path / "Hartog.dcm", "--values", "--profile", "basic")
    assert "Hartog^Wilhelmina" in with_values.out and "remove" in with_values.out


def test_profiles_are_listed_and_told(cloister):
    assert [row["profile"] for row in cloister("deid", "profiles", "--json").json] == [
        "basic", "eucaim", "eucaim-v5", "pseudonymise",
    ]  # fmt: skip
    assert "| (0010,0020) | PatientID | LO | pseudonym |" in cloister("deid", "profiles", "eucaim").out
    assert len(cloister("deid", "profiles", "--options", "--json").json) == 12
    assert cloister("deid", "profiles", "nobodys").code == 2


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


def test_a_series_that_is_not_whole_is_told(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    for name, places in (("whole", (0, 5, 10, 15)), ("gap", (0, 5, 15, 20))):
        for number, place in enumerate(places, start=1):
            dataset = plain_slice(SOPInstanceUID=f"1.2.3.{len(name)}.{number}", SeriesInstanceUID=f"1.2.4.{len(name)}")
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, place], [1, 0, 0, 0, 1, 0]
            dataset.InstanceNumber = number
            put(source / name, str(number), dataset)
    told = cloister("deid", "run", source, output, *options(key)).json
    ((name, findings),) = told["series_findings"].items()
    assert (told["series"], told["written"], findings) == (2, 8, ["missing_slices"])
    assert (output / name).is_dir()


def test_each_way_a_series_or_a_file_is_not_whole_has_its_name(cloister, key, tmp_path):
    source, output = tmp_path / "source", tmp_path / "out"
    series = {
        "missing_slices": ((0, {}), (5, {}), (15, {}), (20, {})),
        "doubled_slices": ((0, {}), (5, {}), (10, {}), (10, {})),
        "mixed_series": ((0, {}), (5, {}), (10, {"PatientID": "OTHER-77"}), (15, {"PatientID": "OTHER-77"})),
        "strangers": ((0, {}), (5, {}), (10, {}), (15, {"FrameOfReferenceUID": "1.2.826.0.1.444.2"})),
    }
    for kind, (name, slices) in enumerate(series.items(), start=1):
        for number, (place, changes) in enumerate(slices, start=1):
            dataset = plain_slice(SOPInstanceUID=f"1.2.3.{kind}.{number}", SeriesInstanceUID=f"1.2.4.{kind}", **changes)
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, place], [1, 0, 0, 0, 1, 0]
            put(source / name, str(number), dataset)
    whole = to_bytes(plain_slice())
    put(source, "video", whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.100"[:20]))
    put(source, "short", whole[:-10])
    put(source, "no picture", to_bytes(plain_slice(Rows=9)))
    astray = element(0x00100010, b"PN", b"Hartog^Wilhelmina ") + element(0x00041140, b"CS", b"ABCD")
    put(source, "damaged", raw_file(astray))
    told = cloister("deid", "run", source, output, *options(key)).json
    findings = {finding for found in told["series_findings"].values() for finding in found}
    assert sorted(findings) == ["doubled_slices", "missing_slices", "mixed_series"] and told["written"] == 16
    assert [len(found) for found in told["series_findings"].values()] == [1] * 5  # the two patients are told apart
    assert told["refused_reasons"] == {
        "malformed": 1, "pixels_inconsistent": 1, "syntax_not_supported": 1, "truncated": 1,
    }  # fmt: skip


def test_a_worker_that_is_killed_ends_no_run(key, tmp_path):
    source = tmp_path / "source"
    for number in range(6):
        put(source / str(number % 3), str(number), plain_slice(SOPInstanceUID=f"1.2.3.{number + 1}"))
    settings = Settings(str(source), tmp_path / "out", "eucaim", key.read_bytes(), "liver", "alpha", "off")
    files_in = list_files(settings.source)
    with Processes(settings, 1) as workers:
        running = deidentify_folder(files_in, Rooms(settings.output), workers, {})
        events = [next(running)]
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        events += running
    assert events[-1]["written"] == 6 and events[-1]["refused"] == 0
    assert [event.number for event in events[:-1]] == [1, 2, 3, 4, 5, 6]


def test_pixels_are_the_same_bytes(cloister, key, tmp_path):
    put(tmp_path / "source", "1", to_bytes(plain_slice(), ExplicitVRLittleEndian))
    cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key))
    (out,) = instances(tmp_path / "out").values()
    assert out.PixelData == PIXELS
