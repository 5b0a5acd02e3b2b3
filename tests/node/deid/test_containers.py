"""Every container a DICOM object can be, planted, de-identified, searched and scored."""

import os

import pydicom
import pytest
from pydicom import config

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Facts
from mediator.deid.values import Subject
from node.deid.engine import Source, open_engine
from node.deid.pixels import Instance, PixelGate, PixelState
from tests.sim.containers import planted_study
from tests.sim.pictures import as_file, cr, dataset, draw, us
from tests.sim.scorer import ACTIONS, PROMISES, REMOVAL, Score, score, score_hidden
from tests.sim.search import search

KEYED = Pseudonyms(bytes(32), "liver")


PROFILES = ["eucaim", "eucaim-v5", "basic", "pseudonymise"]
# The Basic Profile alone removes what refers (PS3.15 Table E.1-1 without Clean Structured Content).
KEEP_REFERENCES = ["eucaim", "eucaim-v5", "pseudonymise"]


@pytest.fixture(params=PROFILES)
def study(request, tmp_path):
    """(what was planted, output by kind, the folder of the output)."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    planted = planted_study(source)
    engine = open_engine(request.param)
    subject = Subject(KEYED, KEYED.patient("HX-77001234"), KEYED.shift_days("HX-77001234"), "alpha")
    written = {}
    for kind, path in planted.files.items():
        handle = os.open(path, os.O_RDONLY)
        found = engine.open(handle)
        assert isinstance(found, Source), kind
        written[kind] = target / f"{KEYED.uid(found.facts.sop_instance)}.dcm"
        assert engine.write(found, subject, written[kind]) is None, kind
        os.close(handle)
    return planted, written, target, request.param


def test_no_token_is_in_any_byte_of_what_was_written(study):
    planted, _written, target, _profile = study
    assert len(planted.tokens) > 150
    assert search([target], planted.tokens) == []
    assert search([target], ["Hartog", "Wilhelmina", "HX-77001234", "19310503"]) == []


def test_what_is_drawn_still_finds_its_layer(study):
    _planted, written, _target, _profile = study
    out = pydicom.dcmread(written["presentation"])
    (drawn,) = out.GraphicAnnotationSequence
    assert [drawn.GraphicLayer] == [layer.GraphicLayer for layer in out.GraphicLayerSequence] and drawn.GraphicLayer


@pytest.mark.parametrize("study", KEEP_REFERENCES, indirect=True)
def test_references_between_objects_stay_intact(study):
    planted, written, _target, _profile = study
    out = {kind: pydicom.dcmread(path) for kind, path in written.items()}
    for kind, to in planted.references:
        referred = {element.value for element in out[kind].iterall() if element.keyword == "ReferencedSOPInstanceUID"}
        assert out[to].SOPInstanceUID in referred, (kind, to)
    frames = {str(one.FrameOfReferenceUID) for one in out.values() if "FrameOfReferenceUID" in one}
    assert len(frames) == 1
    assert out["rtstruct"].StructureSetROISequence[0].ReferencedFrameOfReferenceUID in frames


def test_the_score_is_whole_on_removal_and_999_in_1000_overall(study):
    planted, written, _target, profile = study
    with config.disable_value_validation():
        pairs = {kind: (pydicom.dcmread(planted.files[kind]), pydicom.dcmread(path)) for kind, path in written.items()}
        found = score(pairs, planted.tokens, PROMISES[profile])
    assert found.share(REMOVAL) == 1, found.wrong
    assert found.share() >= 0.999, found.wrong
    unasked = {"pixels_hidden"}  # asked below, of pictures
    assert {action for action in ACTIONS if not found.asked[action]} == unasked


@pytest.mark.parametrize("profile", PROFILES)
def test_the_scorer_marks_down_what_is_left_and_what_is_lost(tmp_path, profile):
    """The judge is judged: the originals themselves fail on removal, an emptied copy on retention."""
    planted = planted_study(tmp_path)
    before = pydicom.dcmread(planted.files["seg"])
    emptied = pydicom.Dataset()
    emptied.preamble, emptied.file_meta, emptied.PatientID = bytes(128), before.file_meta, "x"
    with config.disable_value_validation():
        left = score({"seg": (before, before)}, planted.tokens, PROMISES[profile])
        lost = score({"seg": (before, emptied)}, planted.tokens, PROMISES[profile])
    assert left.share(["text_removed"]) < 1 and left.share(["uid_changed"]) == 0
    assert left.share(["date_shifted"]) <= 2 / 3 and left.share(["tag_retained"]) == 1
    assert lost.share(["tag_retained"]) == lost.share(["text_retained"]) == lost.share(["pixels_retained"]) == 0


def test_names_drawn_into_pixels_are_hidden_as_the_scorer_asks(tmp_path):
    """The tenth action, over pictures that the engine wrote and the pixel gate looked at."""
    found = Score()
    with PixelGate() as gate:
        for kind, frame, at in (("US", us(3), (120, 150)), ("CR", cr(3), (300, 460))):
            ink = draw(frame, "HARTOG 19310503", at, 28, float(frame.max()))
            path = as_file(tmp_path / f"{kind}.dcm", dataset(kind, frame))
            verdict = gate.examine([Instance(path, Facts(modality=kind, has_pixels=True))])[0]
            assert verdict.state is PixelState.BLACKED_OUT
            rows, columns = ink.nonzero()
            drawn = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            score_hidden(found, pydicom.dcmread(path).pixel_array, [drawn])
    assert found.asked["pixels_hidden"] == 2 and found.share(["pixels_hidden"]) == 1
