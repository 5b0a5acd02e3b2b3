"""Large everyday objects pass, within the memory of a worker; and item by item comes out what comes out at once."""

import os

import pydicom
import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.values import Subject
from node.deid import reader, rewrite, searcher
from node.deid.engine import Source, open_engine
from node.deid.limits import MAX_PROCESS_BYTES
from tests.node.deid.test_limits import one_file
from tests.sim.containers import planted_study
from tests.sim.large import LARGE, enhanced_mr, segmentation, structure_set

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_object_is_written_within_the_memory_of_a_worker(tmp_path, name):
    path, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    path.write_bytes(LARGE[name]())
    what, peak = one_file(path, target)
    assert what == "written" and peak < MAX_PROCESS_BYTES


@pytest.mark.parametrize("make", [lambda: segmentation(3), lambda: enhanced_mr(3), lambda: structure_set(2, 9, 4)])
def test_small_ones_of_the_same_make_keep_what_they_say(tmp_path, make):
    path = tmp_path / "in.dcm"
    path.write_bytes(make())
    written(path, tmp_path / "out.dcm")
    before, after = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "out.dcm")
    for keyword in ("ROIContourSequence", "PerFrameFunctionalGroupsSequence"):
        assert len(after.get(keyword, ())) == len(before.get(keyword, ()))
    kept = ("ContourData", "DimensionIndexValues", "ImagePositionPatient", "ReferencedSegmentNumber", "RescaleSlope")
    assert told(after, kept) == told(before, kept) != []
    assert "HARTOG" not in str(after).upper()


def told(data, keywords):
    return [(one.keyword, one.value) for one in data.iterall() if one.keyword in keywords]


def written(path, target, profile="eucaim"):
    handle = os.open(path, os.O_RDONLY)
    try:
        engine = open_engine(profile)
        source = engine.open(handle)
        assert isinstance(source, Source)
        assert engine.write(source, SUBJECT, target) is None
        return target.read_bytes(), {value for value in engine.lost(SUBJECT) if isinstance(value, bytes)}
    finally:
        os.close(handle)


@pytest.mark.parametrize("profile", ["eucaim", "eucaim-v5", "basic", "pseudonymise"])
def test_item_by_item_the_same_is_written_and_lost_as_at_once(tmp_path, monkeypatch, profile):
    (tmp_path / "in").mkdir()
    files = dict(planted_study(tmp_path / "in").files)
    for name, content in (("many", structure_set(2, 9, 4)), ("mr", enhanced_mr(5))):
        files[name] = tmp_path / "in" / name
        files[name].write_bytes(content)
    for kind, path in files.items():
        at_once = written(path, tmp_path / f"{kind}.once", profile)
        with monkeypatch.context() as patch:
            for module in (reader, rewrite, searcher):
                patch.setattr(module, "LARGE_BYTES", 60)
            patch.setattr(rewrite, "_SEVERAL_BYTES", 90)
            assert written(path, tmp_path / f"{kind}.items", profile) == at_once, kind
