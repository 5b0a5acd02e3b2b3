"""The benchmark over a folder of samples, over files that are made here: it says of each what became of it, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.bench import samples
from tests.sim.dicom import ct_slice, to_bytes

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def put(folder: Path, name: str, syntax: str = ExplicitVRLittleEndian, **changes: object) -> None:
    dataset = ct_slice()
    dataset.BurnedInAnnotation, dataset.SOPInstanceUID = "NO", f"1.2.826.0.1.5.{sum(name.encode())}"
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(to_bytes(dataset, syntax))


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, samples.Fate]:
    folder = tmp_path_factory.mktemp("samples")
    put(folder / "a", "good.dcm")
    put(folder / "a", "copy.dcm", ImplicitVRLittleEndian, SOPInstanceUID="1.2.826.0.1.5.777")
    put(folder / "b", "another-copy.dcm", SOPInstanceUID="1.2.826.0.1.5.777")
    put(folder / "b", "nobody.dcm", PatientID="")
    put(folder / "b", "capture.dcm", SOPClassUID=CAPTURE)
    put(folder / "b", "slide.dcm", SOPClassUID=SLIDE)
    put(folder / "b", "no-pixels.dcm", PixelData=None)
    put(folder / "b", "no-study.dcm", StudyInstanceUID="")
    (folder / "b" / "notes.md").write_text("not a picture")
    found = samples.measured(folder, ["eucaim"], "auto", dciodvfy=True)
    assert len(found) == 9
    return {Path(fate.name).name: fate for fate in found}


def test_each_file_has_its_outcome_its_reason_and_whether_that_is_true(fates: dict[str, samples.Fate]) -> None:
    told = {name: (one.kind, one.outcome, one.reasons[:1], one.reason_holds) for name, one in fates.items()}
    assert told.pop("notes.md")[:2] == ("broken", "refused")
    assert told == {
        "good.dcm": ("clinical", "written", (), ""),
        "copy.dcm": ("clinical", "written", (), ""),
        "another-copy.dcm": ("clinical", "written", (), ""),
        "nobody.dcm": ("clinical", "review", ("patient_id_missing",), "true"),
        "capture.dcm": ("capture", "review", ("secondary_capture",), "true"),
        "slide.dcm": ("planned", "refused", ("whole_slide_image",), "true"),
        "no-pixels.dcm": ("broken", "refused", ("pixels_missing",), "true"),
        "no-study.dcm": ("broken", "refused", ("uids_missing",), "true"),
    }
    written = [fate for fate in fates.values() if fate.outcome != "refused"]
    assert {fate.values for fate in written} == {"same"} and not any(fate.new_errors for fate in written)


def test_a_summary_counts_the_clinical_ones(fates: dict[str, samples.Fate]) -> None:
    (row,) = samples.summary(list(fates.values()))
    assert (row["clinical"], row["written"], row["review"], row["refused"], row["written_or_true"]) == (4, 3, 1, 0, 1)
    assert row["reasons"] == {"review patient_id_missing": 1}


def test_the_judge_tells_another_value_and_a_reason_that_is_none(tmp_path: Path) -> None:
    put(tmp_path, "before.dcm")
    changed = np.frombuffer(ct_slice().PixelData, "<i2").copy()
    changed[7] += 1
    put(tmp_path, "after.dcm", PixelData=changed.tobytes())
    before, after = tmp_path / "before.dcm", tmp_path / "after.dcm"
    assert samples.same_values(before, before) is True and samples.same_values(before, after) is False
    header = pydicom.dcmread(before)
    for reason in ("patient_id_missing", "uids_missing", "secondary_capture", "pixels_missing", "truncated"):
        assert samples.reason_holds(reason, header, before) is False
    assert samples.reason_holds("pixel_text_unreadable", header, before) is None
