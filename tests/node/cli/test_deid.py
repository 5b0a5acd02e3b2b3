"""`cloister deid` as a person runs it: folders in, folders out, and not one identifier in what is said."""

import json
import multiprocessing
import os
import re
import stat
import zlib

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from mediator import canonical
from mediator.signatures import VerifyKey
from mediator.traceability import NO_TRACEABILITY, key_id
from node.deid.deidentify_folder import deidentify_folder
from node.deid.processes import WorkerProcesses
from node.deid.run import FolderRun, list_files
from node.deid.worker_settings import table_of
from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import files, instances, options, plain_slice, put, report
from tests.node.cli.deid_desk import key as key
from tests.sim.cohort import write_cohort
from tests.sim.dicom import PIXELS, element, raw_file, to_bytes
from tests.sim.planting import plant
from tests.sim.pydicom_files import copy_pydicom_files
from tests.sim.search import search


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
    put(source, "other", plain_slice(SOPInstanceUID="1.2.3.9", PatientID="HX-1", StudyInstanceUID="1.2.3"))
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


def test_a_worker_that_is_killed_ends_no_run(key, tmp_path):
    source = tmp_path / "source"
    for number in range(6):
        put(source / str(number % 3), str(number), plain_slice(SOPInstanceUID=f"1.2.3.{number + 1}"))
    order = FolderRun(str(source), tmp_path / "out", "eucaim", key.read_bytes(), "liver", "alpha", "off")
    with order.sink as sink, WorkerProcesses(order.settings(table_of("eucaim")), 1) as workers:
        running = deidentify_folder(list_files(order.source), sink, workers, {})
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
