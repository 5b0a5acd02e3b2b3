"""`cloister deid check` as a person runs it: gaps and copies are named, and nobody's name is."""

import json
import sys

import numpy as np
import pytest

from node.cli import main
from tests.sim.pictures import as_file, ct, dataset


@pytest.fixture
def check(monkeypatch, capfd):
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cloister", "deid", "check", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capfd.readouterr()

    return run


def a_slice(folder, number, *, name="", series="1.2.3", place=None, syntax="1.2.840.10008.1.2.1", plugin=""):
    elements = {"SOPInstanceUID": f"1.2.3.4.{number}", "SeriesInstanceUID": series, "PatientID": "JANSEN-1931"}
    elements |= {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, place or number]}
    elements |= {"InstanceNumber": number}
    folder.mkdir(exist_ok=True)
    data = dataset("CT", ct(number, 64), **elements)
    return as_file(folder / (name or f"JANSEN{number:02d}.dcm"), data, syntax, plugin)


def test_a_whole_folder_has_no_findings(tmp_path, check):
    for number in range(1, 6):
        a_slice(tmp_path / "in", number)
    code, out, err = check(tmp_path / "in", "--json")
    assert code == 0 and json.loads(out) == {"files": 5, "findings": {}, "details": []}
    assert "5 files, 0 findings" in err


def test_gaps_strangers_and_copies_in_another_syntax_are_named_and_no_path_or_value_is(tmp_path, check):
    folder = tmp_path / "in"
    for number in (1, 2, 4, 5):
        a_slice(folder, number)
    a_slice(folder, 2, name="X-copy.dcm", series="1.2.9", syntax="1.2.840.10008.1.2.4.80", plugin="pyjpegls")
    (folder / "Z-JANSEN.txt").write_text("no DICOM at all")
    code, out, err = check(folder, "--json", "--source-index", tmp_path / "index")
    told = json.loads(out)
    assert code == 0 and told["findings"] == {
        "duplicate_pixels": 1,
        "missing_slices": 1,
        "pixels_not_decoded": 1,
        "unreadable_header": 1,
    }
    assert {"finding": "duplicate_pixels", "sources": ["src#0005"], "same_as": "src#0002"} in told["details"]
    assert "JANSEN" not in out + err and "JANSEN" in (tmp_path / "index").read_text()
    code, out, err = check(folder)
    assert code == 0 and "missing_slices in series#0001: src#0001 and 3 more" in out and "JANSEN" not in out + err


def test_a_picture_of_another_project_is_known_by_its_keyed_hash_alone(tmp_path, check):
    key, seen = tmp_path / "site.key", tmp_path / "seen"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    a_slice(tmp_path / "liver", 1)
    a_slice(tmp_path / "lung", 1, series="1.9", syntax="1.2.840.10008.1.2.5", plugin="pydicom")
    assert json.loads(check(tmp_path / "liver", "--key", key, "--seen", seen, "--json")[1])["findings"] == {}
    told = json.loads(check(tmp_path / "lung", "--key", key, "--seen", seen, "--json")[1])
    assert told["findings"] == {"pixels_seen_before": 1}
    assert seen.stat().st_size == 16 and seen.stat().st_mode & 0o777 == 0o600
    assert np.frombuffer(seen.read_bytes(), np.uint8).size == 16


def test_a_key_without_its_store_is_a_mistake(tmp_path, check):
    a_slice(tmp_path / "in", 1)
    code, _out, err = check(tmp_path / "in", "--seen", tmp_path / "seen")
    assert code == 2 and "belong together" in err
