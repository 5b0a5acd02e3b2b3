"""`cloister deid run` over studies and series: what only several files together, or several frames, can tell."""

import numpy as np
import pytest

from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import instances, options, plain_slice, put, report
from tests.node.cli.deid_desk import key as key
from tests.sim.dicom import element, raw_file, to_bytes
from tests.sim.pictures import as_file, dataset, draw, us
from tests.sim.search import search

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
    other = {"PatientID": "OTHER-77", "StudyInstanceUID": "1.2.826.0.1.222.77"}
    series = {
        "missing_slices": ((0, {}), (5, {}), (15, {}), (20, {})),
        "doubled_slices": ((0, {}), (5, {}), (10, {}), (10, {})),
        "mixed_series": ((0, {}), (5, {}), (10, other), (15, other)),
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


def test_a_name_on_a_single_frame_is_found_when_every_frame_is_read_and_its_region_told(cloister, key, tmp_path):
    frames = np.stack([np.roll(us(4, 256, 320), shift, axis=1) for shift in range(7)])
    before = frames.copy()
    draw(frames[5], "HARTOG 1931", (10, 10), 16, 255)
    (tmp_path / "source").mkdir()
    as_file(tmp_path / "source" / "cine", dataset("US-cine", frames, BurnedInAnnotation="NO"))
    said = cloister("deid", "run", tmp_path / "source", tmp_path / "out", *options(key), "--ocr", "every-frame")
    assert (said.json["written"], said.json["pixels"]) == (1, {"blacked_out": 1})
    (line,) = report(tmp_path / "out")
    assert line["pixels"] == "blacked_out" and {region[0] for region in line["regions"]} == {5}
    (out,) = instances(tmp_path / "out").values()
    others = np.arange(7) != 5
    assert np.array_equal(out.pixel_array[others], before[others]) and out.BurnedInAnnotation == "NO"
    assert out.pixel_array[5, 12:24, 12:100].max() == out.pixel_array[5].min()
    assert "113101" in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]


def test_what_was_looked_at_is_counted_and_where_a_profile_believes_the_header_nothing_is_claimed(
    cloister, key, tmp_path
):
    source, own = tmp_path / "source", tmp_path / "believing.toml"
    own.write_text('look_at = "unless-no"\n' + CARELESS.replace("careless", "believing").replace("Comments", "Sex"))
    for number in range(3):
        put(source, str(number), plain_slice(SOPInstanceUID=f"1.2.3.{number}"))
    put(source, "said", plain_slice(SOPInstanceUID="1.2.3.9", BurnedInAnnotation="YES"))
    asked = {"auto": ("eucaim", "auto"), "believing": (str(own), "auto"), "off": ("eucaim", "off")}
    told = {}
    for name, (profile, ocr) in asked.items():
        given = options(key, "--ocr", ocr, profile=profile)
        told[name] = cloister("deid", "run", source, tmp_path / name, *given).json
        codes = {
            tuple(item.CodeValue for item in one.get("DeidentificationMethodCodeSequence", ()))
            for one in instances(tmp_path / name).values()
        }
        assert all(("113101" in stated) is (name == "auto") for stated in codes)
        assert len([line for line in report(tmp_path / name) if line.get("pixels") == "not_looked_at"]) == (
            0 if name == "auto" else 3
        )
    assert told["auto"]["pixels"] == {"clean": 3, "review": 1} and told["auto"]["notes"] == {}
    assert told["believing"]["notes"] == told["off"]["notes"] == {"pixels_not_looked_at": 3}
    assert told["believing"]["pixels"] == told["off"]["pixels"] == {"not_looked_at": 3, "review": 1}
