"""What goes with images is published with them, references intact; what no table can clean is refused by its name."""

import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import MRSpectroscopyStorage

from mediator.import_orders import IngestOrder
from node.intake.run_import import IntakeFolders
from tests.sim.containers import planted_study
from tests.sim.deid_workers import InProcess
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.intake import steps_of
from tests.sim.search import search

COMPANIONS = {"seg": "SEG", "rtstruct": "RTSTRUCT", "rtplan": "RTPLAN", "rtdose": "RTDOSE", "sr": "SR"}
COMPANIONS |= {"presentation": "PR", "key-objects": "KO"}


def ingest(source: Path, tmp_path: Path, profile: str):
    """(the report, what was published by modality)"""
    (tmp_path / "handover").mkdir()
    order = IngestOrder("order-1", "alpha", "liver", "cohort", str(source), profile, None, (), 0.2)
    where = IntakeFolders(tmp_path / "quarantine", tmp_path / "handover")
    *_, last = steps_of(order, where, workers=InProcess)
    files = sorted((tmp_path / "handover" / "order-1").rglob("*.dcm"))
    return last.report, {one.Modality: one for one in map(pydicom.dcmread, files)}


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "pseudonymise"])
def test_a_study_is_published_with_its_companions_and_every_reference_holds(tmp_path, profile):
    source = tmp_path / "source"
    source.mkdir()
    planted = planted_study(source)
    report, out = ingest(source, tmp_path, profile)
    assert set(out) == {"CT", *COMPANIONS.values()}
    assert report.instances_excluded == {"encapsulated_document": 2, "media_directory": 1, "secondary_capture": 1}
    assert (report.studies_published, report.instances_published) == (1, 8)
    by_kind = {"image": out["CT"]} | {kind: out[modality] for kind, modality in COMPANIONS.items()}
    for kind, to in planted.references:
        named = {element.value for element in by_kind[kind].iterall() if element.keyword == "ReferencedSOPInstanceUID"}
        assert by_kind[to].SOPInstanceUID in named, (kind, to)
    assert len({one.StudyInstanceUID for one in out.values()}) == 1
    assert len({one.FrameOfReferenceUID for one in out.values()}) == 1
    assert search([tmp_path / "handover"], planted.tokens) == []


def test_each_thing_that_cannot_be_cleaned_is_refused_under_its_own_name_and_the_rest_goes_on(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "image").write_bytes(to_bytes(ct_slice()))
    classes = {
        "pdf": "104.1", "cda": "104.2", "stl": "104.3", "ecg": "9.1.1", "slide": "77.1.6", "raw": "66",
    }  # fmt: skip
    for number, (name, tail) in enumerate(classes.items(), start=2):
        one = ct_slice()
        one.SOPClassUID, one.SOPInstanceUID = f"1.2.840.10008.5.1.4.1.1.{tail}", f"1.2.826.0.1.111.{number}"
        (source / name).write_bytes(to_bytes(one))
    one.SOPClassUID, one.SOPInstanceUID = MRSpectroscopyStorage, "1.2.826.0.1.111.99"
    (source / "spectra").write_bytes(to_bytes(one))
    shutil.copy(Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR", source)
    report, out = ingest(source, tmp_path, "eucaim")
    assert set(out) == {"CT"} and report.instances_excluded == {
        "encapsulated_document": 3, "media_directory": 1, "raw_data": 2, "waveform": 1, "whole_slide_image": 1,
    }  # fmt: skip
