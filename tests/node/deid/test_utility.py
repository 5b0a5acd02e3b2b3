"""What a researcher computes is the same after gate 0, in every profile, or the difference is named."""

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mediator.deid.pseudonyms import Pseudonyms
from node.deid.deidentify import Gate0
from node.deid.engine import open_engine
from node.deid.profiles import profile_names
from node.deid.stream import MemoryStream
from tests.sim.dicom import to_bytes
from tests.sim.measurable import MAKERS
from tests.sim.utility import LOST, MEASURES, measured, table

KEYED = Pseudonyms(bytes(32), "liver")


def through(tmp_path, files, profile, syntax):
    """(as a reader has them before, after)"""
    gate, before, after = Gate0(open_engine(profile), KEYED, review=True), [], []
    for number, dataset in enumerate(files):
        raw = to_bytes(dataset, syntax)
        (tmp_path / f"{number}.in").write_bytes(raw)
        outcome = gate.begin(MemoryStream(raw), tmp_path, lambda _, n=number: f"{n}.out")()
        assert outcome.path is not None, outcome.reasons
        before.append(pydicom.dcmread(tmp_path / f"{number}.in"))
        after.append(pydicom.dcmread(outcome.path))
    return before, after


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("profile", profile_names())
def test_what_is_computed_is_equal_or_the_difference_is_named(tmp_path, profile, kind, syntax):
    before, after = through(tmp_path, MAKERS[kind](), profile, syntax)
    for name, measure in MEASURES[kind].items():
        was, now = measured(measure, before), measured(measure, after)
        assert was is not None and was is not False, f"{name} cannot be computed of the file that was made"
        assert (now != was) is (name in LOST[profile]), f"{profile} {name}: {was} became {now}"


def test_the_scan_is_an_hour_after_the_injection_over_midnight_and_a_months_end():
    assert MEASURES["PET"]["injection to scan, h"](MAKERS["PET"]()) == 1


def test_every_measure_has_a_file_and_every_loss_a_measure():
    names = [name for measures in MEASURES.values() for name in measures]
    assert list(MAKERS) == list(MEASURES) and len(names) == len(set(names))
    assert set(LOST) == set(profile_names()) and all(set(lost) <= set(names) for lost in LOST.values())
    assert table(profile_names()).count("\n") == len(names) + 1


def test_the_manual_says_what_is_equal_and_what_is_lost():
    manual = Path(__file__).parents[3] / "deploy" / "docs" / "deidentification.md"
    assert table(profile_names()) in manual.read_text()
