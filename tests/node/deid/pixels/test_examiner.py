"""Verdicts on whole files, with a reader that sees one bright bar: what is written, and what is held."""

import os

import numpy as np
import pydicom
import pytest

from node.deid.pixels.examiner import ROUNDS, examine
from node.deid.pixels.find_text import TextFinder
from node.deid.pixels.ocr import Box
from node.deid.pixels.values import PixelFinding, PixelState
from tests.sim.pictures import as_file, dataset

BAR = (slice(10, 14), slice(20, 30))
AROUND = (slice(7, 17), slice(17, 33))  # with a margin of three


class BarReader:
    def read(self, picture):
        grey = picture if picture.ndim == 2 else picture.max(axis=2)
        bright = grey[BAR].min() > np.median(grey[6:18, 16:34]) + 60
        return [Box(20, 10, 30, 14, True)] if bright else []


class StubbornReader:
    """Sees text somewhere else whenever it is asked again."""

    def __init__(self):
        self.times = 0

    def read(self, picture):
        self.times += 1
        return [Box(self.times, 2, self.times + 4, 6, True)]


class UnsureReader:
    def __init__(self, marker=False):
        self.marker = marker

    def read(self, picture):
        return [Box(4, 4, 8, 8, False, self.marker)]


def picture(kind=np.uint8, value=255):
    frame = np.full((32, 48), 40, dtype=kind)
    frame[0, 0] = 7
    frame[BAR] = value
    return frame


def colours():
    return np.dstack([picture(), picture() // 2, picture()])


def one(path, reader=None, doubt=False):
    return examine(TextFinder(reader or BarReader()), [path], doubt=doubt)[0]


def test_colours_by_plane_are_blacked_out_too(tmp_path):
    data = dataset("US", colours(), PlanarConfiguration=1)
    data.PixelData = np.moveaxis(colours(), -1, 0).tobytes()
    path = as_file(tmp_path / "a.dcm", data)
    verdict = one(path)
    after = pydicom.dcmread(path).pixel_array
    expected = colours()
    expected[AROUND] = 0
    assert verdict.state is PixelState.BLACKED_OUT and np.array_equal(after, expected)


def test_black_is_what_the_display_shows_as_black(tmp_path):
    for photometric, black in (("MONOCHROME1", 255), ("MONOCHROME2", 7)):
        path = as_file(tmp_path / f"{photometric}.dcm", dataset("US", picture(), PhotometricInterpretation=photometric))
        one(path)
        assert set(np.unique(pydicom.dcmread(path).pixel_array[AROUND])) == {black}


def test_black_in_luminance_and_chrominance_has_no_colour(tmp_path):
    data = dataset("US", colours(), PhotometricInterpretation="YBR_FULL")
    path = as_file(tmp_path / "a.dcm", data)
    values = np.frombuffer(data.PixelData, np.uint8).reshape(32, 48, 3)

    class Reader:
        def read(self, picture):
            again = (picture[AROUND] == picture[AROUND][0, 0]).all()
            return [] if again else [Box(20, 10, 30, 14, True)]

    assert one(path, Reader()).state is PixelState.BLACKED_OUT
    after = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8).reshape(32, 48, 3)
    assert (after[AROUND] == (0, 128, 128)).all()
    assert np.array_equal(after[20:], values[20:])


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32])
def test_wide_pixels_change_in_the_box_alone(tmp_path, kind):
    path = as_file(tmp_path / "a.dcm", dataset("CT", picture(kind, 2000)))
    expected = picture(kind, 2000)
    expected[AROUND] = 7
    assert one(path).state is PixelState.BLACKED_OUT and np.array_equal(pydicom.dcmread(path).pixel_array, expected)


def test_pixels_that_cannot_be_changed_without_loss_are_held_as_they_are(tmp_path):
    bits = (picture() > 100).astype(np.uint8)
    mask = dataset("US", bits, PhotometricInterpretation="MONOCHROME2")
    mask.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    mask.BitsAllocated = mask.BitsStored = 1
    mask.HighBit = 0
    paths = [
        as_file(tmp_path / "mask.dcm", mask),
        as_file(tmp_path / "swapped.dcm", dataset("US", picture()), "1.2.840.10008.1.2.2"),
    ]
    for path in paths:
        before = path.read_bytes()
        verdict = one(path)
        assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.TEXT_REMAINS), path.name
        assert verdict.regions and path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["mask.dcm", "swapped.dcm"]


def test_text_that_keeps_coming_back_is_held_after_some_rounds_and_nothing_was_changed(tmp_path):
    path, reader = as_file(tmp_path / "a.dcm", dataset("US", picture())), StubbornReader()
    before = path.read_bytes()
    verdict = one(path, reader)
    assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.TEXT_REMAINS)
    assert reader.times == ROUNDS and path.read_bytes() == before and os.listdir(tmp_path) == ["a.dcm"]


@pytest.mark.parametrize("kind", ["US", "CT"])
def test_what_nobody_can_name_is_held_wherever_it_stands(tmp_path, kind):
    path = as_file(tmp_path / "a.dcm", dataset(kind, picture()))
    before = path.read_bytes()
    for doubt in (True, False):
        verdict = one(path, UnsureReader(), doubt=doubt)
        assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.TEXT_UNREADABLE)
        assert [(box.left, box.bottom) for box in verdict.regions] == [(1, 11)] and path.read_bytes() == before


def test_a_single_letter_is_held_where_text_is_usual_and_passes_elsewhere(tmp_path):
    path = as_file(tmp_path / "a.dcm", dataset("US", picture()))
    assert one(path, UnsureReader(marker=True), doubt=True).finding is PixelFinding.TEXT_UNREADABLE
    assert one(path, UnsureReader(marker=True)).state is PixelState.CLEAN


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE"])
def test_a_ring_in_a_segmentation_or_a_dose_is_an_organ(tmp_path, modality):
    path = as_file(tmp_path / "a.dcm", dataset("CT", picture(), Modality=modality))
    assert one(path, UnsureReader()).state is PixelState.CLEAN


def test_a_word_that_only_a_projection_shows_holds_the_file(tmp_path):
    values = np.full((20, 32, 48), 40, dtype=np.uint8)
    values[5, 10:14, 20:25], values[9, 10:14, 25:30] = 255, 255
    path = as_file(tmp_path / "a.dcm", dataset("US-cine", values))
    verdict = one(path)
    assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.TEXT_UNREADABLE)


def test_a_drawing_in_spare_bits_holds_the_file(tmp_path):
    frame = np.random.default_rng(1).integers(0, 2000, (32, 48)).astype(np.uint16)
    frame[BAR] |= 0x8000
    verdict = one(as_file(tmp_path / "a.dcm", dataset("CT", frame, bits=12)))
    assert verdict.finding is PixelFinding.OVERLAY_IN_PIXELS


def test_a_copy_left_by_a_process_that_died_is_no_obstacle(tmp_path):
    path = as_file(tmp_path / "a.dcm", dataset("US", picture()))
    (tmp_path / "a.dcm.px").write_bytes(b"half")
    assert one(path).state is PixelState.BLACKED_OUT and os.listdir(tmp_path) == ["a.dcm"]


def test_no_files_have_no_verdicts():
    assert examine(TextFinder(BarReader()), [], doubt=False) == []
