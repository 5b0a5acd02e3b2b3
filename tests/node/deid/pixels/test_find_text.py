"""Few pictures stand for many frames, and a hit in any of them reads every frame of its chunk."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from node.deid.pixels.find_text import TextFinder
from node.deid.pixels.frames import open_film
from node.deid.pixels.ocr import Box
from node.deid.pixels.projections import CHUNK_FRAMES, chunks, landmarks, projections
from tests.sim.pictures import as_file, dataset

MARK = (slice(10, 14), slice(20, 30))
WHERE = Box(20, 10, 30, 14, True)


@dataclass
class MarkReader:
    """Reads one word: a bright bar where `MARK` is. Counts what it was shown."""

    shown: list[np.ndarray] = field(default_factory=list)
    readable: bool = True

    def read(self, picture):
        self.shown.append(picture)
        around = picture[6:18, 16:34].astype(int)
        bar = picture[MARK]
        if bar.min() > np.median(around) + 60:
            return [Box(20, 10, 30, 14, self.readable)]
        return []


def cine(tmp_path, frames, marked=(), value=255):
    values = np.full((frames, 32, 48), 40, dtype=np.uint8)
    values += np.random.default_rng(1).integers(0, 20, values.shape, dtype=np.uint8)
    for frame in marked:
        values[frame][MARK] = value
    return open_film(as_file(tmp_path / f"{frames}-{len(marked)}.dcm", dataset("US-cine", values)))


@pytest.mark.parametrize("count", [1, 6, 31, 32, 33, 64, 65, 1000])
def test_chunks_hold_every_frame_once_and_at_most_32(count):
    runs = chunks(count)
    assert [frame for run in runs for frame in run] == list(range(count))
    assert max(map(len, runs)) <= CHUNK_FRAMES and len({len(run) for run in runs}) <= 2


def test_projections_show_what_is_bright_dark_or_unlike_the_rest_on_one_frame():
    frames = [np.full((8, 8), 100, dtype=np.uint8) for _ in range(9)]
    frames[3][2, 2], frames[4][5, 5] = 140, 60
    highest, lowest, above = projections(frames)
    assert highest[2, 2] == 140 and lowest[5, 5] == 60
    assert above[2, 2] == 255 and np.count_nonzero(above) == 1


@pytest.mark.parametrize("frame", [0, 1, 57, 99])
def test_text_on_a_single_frame_of_a_hundred_is_found_on_that_frame(tmp_path, frame):
    reader = MarkReader()
    sight = TextFinder(reader).look([cine(tmp_path, 100, [frame])])[0]
    assert sight.text == {frame: [WHERE]}
    assert not sight.unconfirmed
    # four chunks of 25: three projections each, the landmarks, and the frames of one chunk
    assert len(reader.shown) <= 4 * 3 + 3 + 25 == 40


def test_what_nobody_can_name_reads_every_frame_of_its_chunk_as_text_does(tmp_path):
    reader = MarkReader(readable=False)
    sight = TextFinder(reader).look([cine(tmp_path, 100, [57])])[0]
    assert sight.doubtful == {57: [Box(20, 10, 30, 14, False)]} and not sight.text
    assert len(reader.shown) == 4 * 3 + 3 + 25 - 1 or len(reader.shown) == 4 * 3 + 3 + 25


def test_nothing_to_find_costs_three_pictures_a_chunk_and_the_landmarks(tmp_path):
    reader = MarkReader()
    sight = TextFinder(reader).look([cine(tmp_path, 100)])[0]
    assert not sight.text and len(reader.shown) == 4 * 3 + len(landmarks(100)) == sight.read


def test_every_frame_means_every_frame(tmp_path):
    reader = MarkReader()
    TextFinder(reader, every_frame=True).look([cine(tmp_path, 40)])
    assert len(reader.shown) == 40


def test_a_series_is_read_as_if_its_files_were_frames(tmp_path):
    films = []
    for number in range(40):
        values = np.full((32, 48), 40, dtype=np.uint8)
        if number == 17:
            values[MARK] = 250
        films.append(open_film(as_file(tmp_path / f"{number}.dcm", dataset("CT", values))))
    sights = TextFinder(MarkReader()).look(films)
    assert [place for place, sight in enumerate(sights) if sight.text] == [17]


def test_files_of_different_shapes_are_never_laid_over_one_another(tmp_path):
    shapes = [(32, 48), (32, 48), (40, 40), (32, 48)]
    films = [
        open_film(as_file(tmp_path / f"{number}.dcm", dataset("CT", np.zeros(shape, dtype=np.uint8))))
        for number, shape in enumerate(shapes)
    ]
    assert len(TextFinder(MarkReader()).look(films)) == 4


def test_text_that_only_a_projection_shows_is_told_apart(tmp_path):
    """Half of the word on one frame, half on another: no frame shows it whole, so a person decides."""
    values = np.full((20, 32, 48), 40, dtype=np.uint8)
    values[5, 10:14, 20:25], values[9, 10:14, 25:30] = 255, 255
    film = open_film(as_file(tmp_path / "halves.dcm", dataset("US-cine", values)))
    sight = TextFinder(MarkReader()).look([film])[0]
    assert not sight.text and sight.unconfirmed


def test_a_frame_to_be_read_again_is_read_whatever_the_projections_show(tmp_path):
    reader = MarkReader()
    TextFinder(reader).look([cine(tmp_path, 100)], again={(0, 71)})
    assert len(reader.shown) == 4 * 3 + 3 + 1


def test_a_drawing_in_bits_above_the_stored_ones_is_seen_and_a_sign_is_none(tmp_path):
    values = np.random.default_rng(2).integers(0, 2000, (32, 48), dtype=np.uint16)
    plain = open_film(as_file(tmp_path / "plain.dcm", dataset("CT", values, bits=12)))
    drawn = values.copy()
    drawn[MARK] |= 0x4000
    hidden = open_film(as_file(tmp_path / "hidden.dcm", dataset("CT", drawn, bits=12)))
    signed = values.astype(np.int16) - 1000
    sign = open_film(as_file(tmp_path / "signed.dcm", dataset("CT", signed, bits=12)))
    assert [TextFinder(MarkReader()).look([film])[0].overlay for film in (plain, hidden, sign)] == [False, True, False]
