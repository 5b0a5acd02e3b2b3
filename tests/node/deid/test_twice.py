"""De-identifying what was de-identified changes nothing more, but for what a key computes."""

import io

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction
from mediator.deid.values import Subject
from node.deid.engine import ProfileEngine
from node.deid.profiles import load_profile, profile_names, standard
from tests.sim.dicom import ct_slice, to_bytes

KEYED = Pseudonyms(bytes(32), "liver", "alpha")
# what a second key, or the same key a second time, makes anew from what it finds
COMPUTED = {
    ElementAction.PSEUDONYM, ElementAction.ACCESSION, ElementAction.LABEL, ElementAction.REPLACE_UID,
    ElementAction.SHIFT_DATE, ElementAction.SITE_HASH,
}  # fmt: skip


def rich_slice() -> Dataset:
    dataset = ct_slice()
    dataset.SeriesDescription, dataset.StudyDescription = "Chest Hartog 5mm B30f", "CT of mrs Hartog"
    dataset.StationName, dataset.DeviceSerialNumber, dataset.InstitutionName = "CT1", "4711", "Hartog Hospital"
    dataset.PatientWeight, dataset.KVP, dataset.SliceThickness = "70", "120", "5"
    dataset.TimezoneOffsetFromUTC, dataset.AcquisitionDateTime = "+0100", "20240229101112.5+0100"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "10200004", "SCT", "Liver"
    local = Dataset()
    local.CodeValue, local.CodingSchemeDesignator, local.CodeMeaning = "HX7", "99HOSP", "as Hartog likes it"
    dataset.AnatomicRegionSequence = Sequence([code, local])
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "800")
    block.add_new(0x0F, "SH", "Hartog")
    return dataset


def passed(path, profile: str, content: bytes) -> tuple[pydicom.Dataset, bytes]:
    engine = ProfileEngine(load_profile(profile), standard())
    source = engine.read(content)
    subject = Subject(KEYED, KEYED.patient(source.facts.patient_id, source.facts.issuer), 77, "alpha")
    assert engine.write(source, subject, path) is None
    raw = path.read_bytes()
    return pydicom.dcmread(io.BytesIO(raw)), raw


def told(dataset: Dataset, profile: str) -> list[tuple[object, ...]]:
    """Every element at any depth, with its value unless a key computes it."""
    table = load_profile(profile)
    return [
        (element.tag, element.VR, None if table.rule(element.tag).action in COMPUTED else str(element.value))
        for element in dataset.iterall()
        if element.VR != "SQ"
    ]


@pytest.mark.parametrize("profile", profile_names())
def test_a_second_pass_changes_nothing_more(tmp_path, profile):
    once, raw = passed(tmp_path / "once", profile, to_bytes(rich_slice()))
    twice, again = passed(tmp_path / "twice", profile, raw)
    assert told(once, profile) == told(twice, profile)
    assert len(raw) == pytest.approx(len(again), abs=64)  # UIDs differ in length
    assert b"artog" not in raw.replace(b"Anonymous", b"") and b"99HOSP" not in raw


@pytest.mark.parametrize("profile", profile_names())
def test_codes_and_safe_private_elements_are_where_the_profile_has_them(tmp_path, profile):
    out, raw = passed(tmp_path / "once", profile, to_bytes(rich_slice()))
    known, local = out.AnatomicRegionSequence
    assert (known.CodeValue, known.CodingSchemeDesignator, known.CodeMeaning) == ("10200004", "SCT", "Liver")
    assert (local.CodeValue, local.CodingSchemeDesignator) == ("REMOVED", "99REMOVED")
    private = [element for element in out.iterall() if element.tag.is_private]
    if profile != "basic":
        assert [(element.tag, element.value) for element in private] == [
            (0x00190010, "SIEMENS MR HEADER"),
            (0x0019100C, 800),
        ]
        assert "113111" in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
    else:
        assert private == [] and b"SIEMENS MR" not in raw


def test_an_age_above_89_is_capped_in_every_profile_that_keeps_ages(tmp_path):
    for profile in profile_names():
        out, _ = passed(tmp_path / profile, profile, to_bytes(rich_slice()))
        assert out.get("PatientAge") == (None if profile == "basic" else "090Y")
