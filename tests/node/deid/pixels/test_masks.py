"""Segmentations are masks, and nobody reads letters in them; unless their maker says that there are some."""

import numpy as np
import pytest

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelGate, PixelState
from node.deid.pixels.reader import ReaderProcess
from node.deid.pixels.values import needs_check
from tests.sim.pictures import as_file, dataset

STORAGE = "1.2.840.10008.5.1.4.1.1."
MASKS = (STORAGE + "66.4", STORAGE + "66.7")


class Nobody(ReaderProcess):
    """Is not asked."""

    def ask(self, paths, **_how):
        raise AssertionError("a mask is read")


@pytest.mark.parametrize("sop_class", MASKS)
@pytest.mark.parametrize("burned_in", ["", "NO"])
def test_a_mask_of_many_frames_costs_no_look(tmp_path, sop_class, burned_in):
    data = dataset("CT", np.zeros((300, 64, 64), np.uint8))
    data.SOPClassUID, data.Modality = sop_class, "SEG"
    path = as_file(tmp_path / "mask.dcm", data)
    before = path.read_bytes()
    facts = Facts(sop_class, modality="SEG", has_pixels=True, burned_in=burned_in, image_type=("DERIVED", "PRIMARY"))
    with PixelGate(readers=[Nobody()]) as gate:
        (verdict,) = gate.examine([Instance(path, facts)])
    assert verdict.state is PixelState.CLEAN and not verdict.read
    assert path.read_bytes() == before and b"113101" not in before  # nobody looked, and nobody says so


@pytest.mark.parametrize(
    "facts",
    [
        Facts(MASKS[0], modality="SEG", has_pixels=True, burned_in="YES"),
        Facts(STORAGE + "2", modality="SEG", has_pixels=True),  # a picture that says it is one
        Facts(STORAGE + "6.1", modality="SEG", has_pixels=True, burned_in="NO"),
    ],
)
def test_what_has_text_by_its_makers_word_or_is_another_class_is_read(facts):
    assert needs_check(facts)
