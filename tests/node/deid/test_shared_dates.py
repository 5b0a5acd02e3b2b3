"""What two patients have in common must not tell by how many days each was moved."""

import pydicom
import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.profiles import profile_names
from tests.sim.dicom import ct_slice, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
CALIBRATED, INSTALLED, VERSION = "20240102", "20190304", "20020904000000"


def written(profile, patient, days, folder):
    dataset = ct_slice()
    dataset.PatientID, dataset.StudyDate = patient, "20240307"
    dataset.DateOfLastCalibration, dataset.DateOfInstallation = CALIBRATED, INSTALLED
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-32000", "SRT", "Heart"
    code.ContextIdentifier, code.MappingResource, code.ContextGroupVersion = "4031", "DCMR", VERSION
    dataset.AnatomicRegionSequence = [code]
    engine, target = open_engine(profile), folder / f"{patient}.dcm"
    source = engine.read(to_bytes(dataset))
    assert engine.write(source, Subject(KEYED, KEYED.patient(patient), days), target) is None
    return pydicom.dcmread(target)


def dates(dataset):
    """Every date but the study's, by keyword."""
    return {
        element.keyword: str(element.value)[:8]
        for element in dataset.iterall()
        if element.VR in ("DA", "DT") and element.keyword != "StudyDate" and str(element.value)
    }


@pytest.mark.parametrize("profile", profile_names())
def test_days_from_the_date_of_a_vocabulary_or_of_a_scanner(tmp_path, profile):
    """Somebody knows the date itself, or holds two patients of one scanner beside each other."""
    first, second = (
        written(profile, patient, days, tmp_path) for patient, days in (("0012345", 100), ("0067890", 731))
    )
    shared = {"DateOfLastCalibration", "DateOfInstallation", "ContextGroupVersion"}
    there, here = dates(first), dates(second)
    assert {key: there.get(key) for key in shared} == {key: here.get(key) for key in shared}
    if profile == "eucaim":
        assert first.StudyDate != second.StudyDate  # days were shifted, and by different numbers
        assert not {CALIBRATED, INSTALLED, VERSION[:8]} & {*there.values(), *here.values()}


def test_a_series_whose_files_have_several_study_dates_is_written_as_each_file_alone(tmp_path):
    """What a run of elements says of dates is remembered from slice to slice; another date is another run."""
    subject = Subject(Pseudonyms(bytes(32), "liver"), "p", 10)
    together = open_engine("eucaim-v5")
    for number, day in enumerate(["20240430", "20240430", "20240501", "20240430", "", "20240501", "20240615"]):
        dataset = ct_slice()
        dataset.StudyDate, dataset.AcquisitionDate, dataset.SOPInstanceUID = day, "20240502", f"1.2.826.0.1.7.{number}"
        raw, written = to_bytes(dataset), []
        for engine in (together, open_engine("eucaim-v5")):
            target = tmp_path / f"{number}-{len(written)}.dcm"
            assert engine.write(engine.read(raw), subject, target) is None
            written.append(target.read_bytes())
        assert written[0] == written[1], day
