"""An issuer that one file of a study says and another does not: one patient, one shift; two ids are told."""

import json

import pydicom
import pytest

from tests.node.cli.deid_desk import cloister as cloister
from tests.node.cli.deid_desk import key as key
from tests.node.cli.deid_desk import plain_slice, put


def run(cloister, key, tmp_path, profile="eucaim", jobs=1):
    rooms = tmp_path / "source", tmp_path / "out"
    more = ["--profile", profile, "--project", "liver", "--site", "alpha", "--key", key, "--jobs", jobs, "--json"]
    said = cloister("deid", "run", *rooms, *more)
    written = [pydicom.dcmread(path) for path in sorted((tmp_path / "out").rglob("*.dcm"))]
    return said, written


def studied(number, **changes):
    """A file of one study."""
    return plain_slice(SOPInstanceUID=f"1.2.826.0.1.111.{number}", InstanceNumber=number, **changes)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("folders", ["one", "two"])
def test_an_absent_issuer_is_the_studys(cloister, key, tmp_path, order, folders):
    """Whichever comes first, in one batch or in two; and `verify` sees it the same way."""
    inside = order if folders == "two" else (".", ".")
    put(tmp_path / "source", f"{inside[0]}/{order[0]}.dcm", studied(1, IssuerOfPatientID="ST ELSEWHERE"))
    put(tmp_path / "source", f"{inside[1]}/{order[1]}.dcm", studied(2, SeriesInstanceUID="1.2.826.0.1.333.9"))
    said, written = run(cloister, key, tmp_path)
    assert said.code == 0 and said.json["written"] == 2 and said.json["patient_split"] == 0
    assert len({one.PatientID for one in written}) == len({one.StudyDate for one in written}) == 1
    checked = cloister(
        "deid", "verify", tmp_path / "source", tmp_path / "out", "--profile", "eucaim", "--key", key,
        "--project", "liver", "--site", "alpha", "--json",
    )  # fmt: skip
    assert checked.code == 0 and checked.json["made_with_key"] is True


@pytest.mark.parametrize(
    "others",
    [
        ({"PatientID": "OTHER-1"},),
        ({"IssuerOfPatientID": "ST ELSEWHERE"}, {"IssuerOfPatientID": "ST OTHERWHERE"}),
    ],
)
def test_two_patients_in_one_study_are_for_a_person(cloister, key, tmp_path, others):
    for number, changes in enumerate(({}, *others), start=1):
        put(tmp_path / "source", f"{number}.dcm", studied(number, **changes))
    put(tmp_path / "source", "9.dcm", studied(9, StudyInstanceUID="1.2.826.0.1.222.9"))
    for _again in range(2):  # giving it twice does no harm
        said, written = run(cloister, key, tmp_path)
        assert said.code == 0 and said.json["patient_split"] == 1 and len(written) == said.json["written"] == 1
        assert said.json["review_reasons"] == {"patient_split": 1 + len(others)}
        assert len(list((tmp_path / "out.review").rglob("*.dcm"))) == 1 + len(others)
        lines = [json.loads(line) for line in (tmp_path / "out.report.jsonl").read_text().splitlines()]
        assert [one.get("reasons") for one in lines] == [["patient_split"]] * (1 + len(others)) + [None]


def test_files_without_an_id_split_nobody(cloister, key, tmp_path):
    put(tmp_path / "source", "1.dcm", studied(1))
    put(tmp_path / "source", "2.dcm", studied(2, PatientID=""))
    said, written = run(cloister, key, tmp_path)
    assert said.json["patient_split"] == 0 and len(written) == 1
    assert said.json["review_reasons"] == {"patient_id_missing": 1}
