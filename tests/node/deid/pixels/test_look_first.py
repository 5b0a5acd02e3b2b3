"""A quick look at every slice, with the real detector: text on any of them is found, whatever the headers say."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelGate, PixelState
from node.deid.pixels.find_text import TextFinder
from node.deid.pixels.frames import window
from node.deid.pixels.look_first import ROUNDS, SeriesLook
from node.deid.pixels.ocr import RapidReader
from node.deid.pixels.quick_look import Patch, QuickLook, SmallDetector, grey
from node.deid.pixels.reader import ReaderProcess
from node.deid.pixels.values import is_slice, needs_check
from tests.sim.pictures import NAME, as_file, dataset, draw
from tests.sim.volumes import volume

SLICE = ("ORIGINAL", "PRIMARY", "AXIAL")
BRIGHT = {"CT": 1500, "MR": 1300, "PT": 3000}


class Counting:
    """A text reader that counts what it is shown."""

    def __init__(self, reader):
        self.reader, self.shown = reader, 0

    def read(self, picture):
        self.shown += 1
        return self.reader.read(picture)


@pytest.fixture(scope="module")
def engine():
    return RapidReader()


@pytest.fixture
def looked(tmp_path, engine):
    """Writes slices as files of one series and looks at them: their paths, the verdicts, and the pictures read."""

    def look(slices, **elements):
        paths = [as_file(tmp_path / f"{n:03d}.dcm", dataset("CT", one, **elements)) for n, one in enumerate(slices)]
        reader = Counting(engine)
        verdicts = SeriesLook(SmallDetector(engine.detector), TextFinder(reader)).examine(paths, doubt=False)
        return paths, verdicts, reader.shown

    return look


def with_text(verdicts):
    return [place for place, verdict in enumerate(verdicts) if verdict.state is not PixelState.CLEAN]


def written(slices, places, kind="CT", at=(40, 60), height=14):
    for place in places:
        draw(slices[place], NAME[:17], at, height, BRIGHT[kind])
    return slices


@pytest.mark.parametrize(("kind", "place"), [("CT", 0), ("CT", 29), ("MR", 17), ("PT", 44)])
def test_a_name_on_one_slice_of_many_is_found_by_few_pictures_and_no_other_slice_changes(looked, kind, place):
    slices = written(volume(kind, 45, 1, 256), [place], kind)
    paths, verdicts, shown = looked(slices)
    assert with_text(verdicts) == [place] and verdicts[place].state is PixelState.BLACKED_OUT
    assert shown <= 12 and all(verdict.read for verdict in verdicts)
    for one, path in enumerate(paths):
        after = pydicom.dcmread(path)
        assert [item.CodeValue for item in after.DeidentificationMethodCodeSequence] == ["113101"]
        assert one == place or np.array_equal(after.pixel_array, slices[one])


@pytest.mark.parametrize("places", [range(9), range(3, 7), range(0, 9, 2)], ids=["all", "a run", "every second"])
def test_a_name_on_many_slices_goes_from_all_of_them(looked, places):
    _paths, verdicts, _shown = looked(written(volume("CT", 9, 2, 160), places, at=(5, 60), height=12))
    assert with_text(verdicts) == list(places)


@pytest.mark.parametrize("height", [9, 100])
def test_letters_may_be_small_or_large(looked, height):
    slices = volume("CT", 20, 11, 384)
    draw(slices[3], "JANSEN"[:4] if height > 50 else NAME[:17], (20, 120), height, 1500)
    assert with_text(looked(slices)[1]) == [3]


@pytest.mark.parametrize("kind", ["CT", "MR"])
@pytest.mark.parametrize("without", [(), (10,), (8, 9, 10, 11, 12), range(0, 20, 2)], ids=["all", "1", "5", "half"])
def test_a_name_on_most_slices_is_suspected_though_the_middle_one_lacks_it(engine, kind, without):
    places = [place for place in range(20) if place not in without]
    slices = written(volume(kind, 20, 1, 256), places, kind)
    low, high = window(list(slices[:: len(slices) - 1]))
    look = QuickLook(SmallDetector(engine.detector), [grey(one, low, high) for one in slices])
    suspects = look.suspects()
    assert suspects and {place for one in suspects for place in look.alike(one)} >= set(places)


@pytest.mark.parametrize("part", [0.05, 0.1, 0.2])
def test_a_name_on_a_slice_whose_values_are_a_part_of_the_others_is_found(looked, part):
    slices = written(volume("MR", 12, 5, 192), [3], "MR", at=(20, 60))
    slices[3] = slices[3] * part
    assert with_text(looked(slices, Modality="MR")[1]) == [3]


def test_two_names_in_two_places_of_two_slices_are_both_found(looked):
    slices = written(written(volume("CT", 30, 3, 256), [4]), [21], at=(60, 160), height=20)
    assert with_text(looked(slices)[1]) == [4, 21]


@pytest.mark.parametrize("kind", ["CT", "MR", "PT"])
def test_slices_without_text_are_clean_and_hardly_read(looked, kind):
    _paths, verdicts, shown = looked(volume(kind, 40, 4, 256))
    assert not with_text(verdicts) and shown <= 10


def sheet(size):
    """A dose sheet: lines of letters on black, and no picture."""
    page = np.full((size, size), -1024, np.int16)
    for line, text in enumerate(("DOSE REPORT", NAME[:17], "ID 4711-0815", "CTDIvol 12.3 mGy", "DLP 456 mGy*cm")):
        draw(page, text, (10, 12 + 24 * line), 14, 1500)
    return page


def test_a_dose_sheet_and_an_annotated_localizer_that_pass_for_slices_are_found_among_them(looked):
    slices = volume("CT", 30, 5, 256)
    slices[9], slices[23] = sheet(256), slices[20].T
    draw(slices[23], NAME[:17], (20, 220), 12, 1500)
    assert with_text(looked(slices)[1]) == [9, 23]


def test_a_drawing_in_bits_that_are_not_stored_is_found_on_one_slice(looked):
    slices = np.abs(volume("MR", 12, 6, 128)).astype(np.uint16) & 0xFFF
    hidden = np.zeros((128, 128), np.uint16)
    draw(hidden, "JANSEN", (10, 40), 20, 1)
    slices[5] |= hidden << 13
    _paths, verdicts, _shown = looked(slices, Modality="MR", BitsStored=12, HighBit=11)
    assert with_text(verdicts) == [5] and verdicts[5].finding.value == "overlay_in_pixels"


def test_what_does_not_decode_is_held_and_the_rest_is_looked_at(tmp_path, looked, engine):
    paths, _verdicts, _shown = looked(volume("CT", 10, 7, 192))
    paths[3].write_bytes(paths[3].read_bytes()[:-500])
    paths[6].write_bytes(b"no DICOM")
    look = SeriesLook(SmallDetector(engine.detector), TextFinder(engine))
    verdicts = look.examine(paths, doubt=False)
    assert with_text(verdicts) == [3, 6] and {verdicts[n].finding.value for n in (3, 6)} == {"pixels_not_decoded"}


class Blotter:
    """A detector for which every bright spot is text."""

    def find(self, shown, side=0):
        ys, xs = np.nonzero(shown > 180)
        return [Patch(int(xs.min()), int(ys.min()), int(xs.max()) + 5, int(ys.max()) + 5)] if len(xs) else []


def test_where_the_chunk_keeps_being_suspected_every_slice_of_it_is_read(tmp_path):
    random = np.random.default_rng(1)
    slices = [np.full((32, 48), 40, np.int16) for _ in range(12)]
    for one in slices:
        one[tuple(random.integers(9, 23, 2))] = 4000
    paths = [as_file(tmp_path / f"{n}.dcm", dataset("CT", one)) for n, one in enumerate(slices)]

    class Suspicious:
        shown = 0

        def read(self, picture):
            from node.deid.pixels.ocr import Box

            self.shown += 1
            return [Box(2, 2, 8, 8, True)] if self.shown < 40 else []

    reader = Suspicious()
    verdicts = SeriesLook(Blotter(), TextFinder(reader)).examine(paths, doubt=False)
    assert all(verdict.state is not PixelState.CLEAN for verdict in verdicts[:ROUNDS])
    assert all(verdict.read for verdict in verdicts)


def test_few_slices_are_read_properly_at_once(looked):
    _paths, verdicts, shown = looked(volume("CT", 6, 8, 64))
    assert shown == 6 and [verdict.read for verdict in verdicts] == [1] * 6


def test_slices_too_small_for_two_letters_are_no_riddle():
    look = QuickLook(Blotter(), [np.zeros((4, 4), np.uint8)] * 9)
    assert look.suspects() == [] and look.read == 0


def test_grey_values_are_those_of_the_slow_way():
    from node.deid.pixels.frames import picture, window

    frames = list(volume("CT", 3, 9, 64))
    low, high = window(frames)
    for frame in frames:
        assert np.abs(grey(frame, low, high).astype(int) - picture(frame, low, high)).max() <= 1


def test_every_picture_is_to_be_looked_at_unless_somebody_decided_to_believe_its_header():
    says_no = Facts(modality="CT", has_pixels=True, burned_in="NO", image_type=SLICE)
    assert needs_check(says_no) and not needs_check(says_no, believe_no=True)
    assert not needs_check(Facts(modality="CT", burned_in="NO"))
    for other in (
        Facts(modality="CT", has_pixels=True),
        Facts(modality="US", has_pixels=True, burned_in="NO"),
        Facts(modality="CT", has_pixels=True, burned_in="NO", image_type=("ORIGINAL", "SECONDARY")),
    ):
        assert needs_check(other, believe_no=True)


@pytest.mark.parametrize(
    ("facts", "quick"),
    [
        ({}, True),
        ({"burned_in": "NO"}, True),
        ({"burned_in": "YES"}, False),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, False),
        ({"image_type": ("ORIGINAL", "PRIMARY", "CT_SOM5 TOPOGRAM")}, False),
        ({"image_type": ("DERIVED", "PRIMARY", "MPR")}, False),
        ({"image_type": ("ORIGINAL", "SECONDARY", "AXIAL")}, False),
        ({"has_conversion_type": True}, False),
        ({"modality": "DX"}, False),
        ({"modality": "SEG", "image_type": ("DERIVED", "PRIMARY")}, True),
    ],
)
def test_localizers_computed_and_captured_pictures_are_looked_at_properly(facts, quick):
    assert is_slice(Facts(**({"modality": "CT", "has_pixels": True, "image_type": SLICE} | facts))) is quick


def test_two_readers_look_at_parts_of_a_series_side_by_side_and_find_the_same(tmp_path):
    slices = written(volume("CT", 70, 10, 128), [3, 66], at=(5, 20), height=12)
    facts = Facts(modality="CT", has_pixels=True, burned_in="NO", image_type=SLICE)
    found = []
    for count in (1, 2):
        paths = [as_file(tmp_path / f"{count}-{n:02d}.dcm", dataset("CT", one)) for n, one in enumerate(slices)]
        with PixelGate(readers=[ReaderProcess() for _ in range(count)]) as gate:
            found.append(gate.examine([Instance(path, facts) for path in paths]))
            assert len(gate.reader_pids) == count
        assert not any(Path(f"/proc/{pid}").exists() for pid in gate.reader_pids)
    assert found[0] == found[1] and with_text(found[0]) == [3, 66]
