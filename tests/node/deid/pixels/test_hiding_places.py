"""Words in every place of a pixel value that decoders ignore, in every syntax: none leaves, the picture does."""

import io
import subprocess
from functools import lru_cache

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGExtended12Bit

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import Source, open_engine
from node.deid.pixels.frames import NotDecoded
from node.deid.pixels.reader import ReaderProcess
from node.deid.pixels.settle import settle
from node.deid.structure import ENCAPSULATED, EXPLICIT, SYNTAXES
from tests.sim import hiding
from tests.sim.hiding import ALL, FRAMES, MAY_BE_HELD, PLACES, WITHOUT_ENCODER, film

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)
# Letters in no order that an encoder makes by chance, eight or more of them: a name.
WORDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ^", min_size=8, max_size=24).filter(lambda word: len(set(word)) > 5)


@pytest.fixture(scope="module")
def engine():
    return open_engine("eucaim")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


def passes(engine, content: bytes, target) -> bool:
    """Whether a file is written and, where only a decoder can say that it holds no more, a decoder says so."""
    target.unlink(missing_ok=True)
    found = engine.read(content)
    assert isinstance(found, Source)
    done = engine.convert(found, SUBJECT, target)
    if done.exclusion is not None:
        assert done.exclusion is Exclusion.PIXELS_INCONSISTENT and not target.exists()
        return False
    try:
        if done.doubtful:
            settle(target)
    except NotDecoded:
        return False
    return True


@lru_cache(maxsize=32)
def unplanted(engine, folder, syntax) -> bytes:
    """What is written of a film without a word: some of those drawn for a test are the standard's own."""
    assert passes(engine, film(syntax, folder).content(), folder / "unplanted.dcm")
    return (folder / "unplanted.dcm").read_bytes()


def decoded(content: bytes, folder) -> np.ndarray:
    """Every bit of every cell; extended JPEG of twelve bits by DCMTK, for pydicom has no decoder of it."""
    data = pydicom.dcmread(io.BytesIO(content))
    if data.file_meta.TransferSyntaxUID == JPEGExtended12Bit:
        (folder / "packed.dcm").write_bytes(content)
        subprocess.run(["/usr/bin/dcmdjpeg", folder / "packed.dcm", folder / "plain.dcm"], check=True)
        data = pydicom.dcmread(folder / "plain.dcm")
    return np.stack(list(pydicom.pixels.iter_pixels(data, correct_unused_bits=False)))


def test_every_syntax_has_its_places():
    assert PLACES.keys() | WITHOUT_ENCODER == SYNTAXES and not PLACES.keys() & WITHOUT_ENCODER
    for syntax, places in PLACES.items():
        wanted = {**hiding.EVERYWHERE, **(hiding.CONTAINER_PLACES if syntax in ENCAPSULATED else hiding.NATIVE_PLACES)}
        assert wanted.items() <= places.items()


@pytest.mark.parametrize(("syntax", "place"), ALL)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(word=WORDS.map(str.encode), at=st.integers(0, 47))
def test_a_word_where_no_decoder_looks_does_not_leave_and_the_picture_does(engine, folder, syntax, place, word, at):
    plain = decoded(film(syntax, folder).content(), folder)
    source, target = film(syntax, folder), folder / "written.dcm"
    PLACES[syntax][place](source, word, at)
    if not passes(engine, source.content(), target):
        assert (syntax, place) in MAY_BE_HELD
        return
    content, usual = target.read_bytes(), unplanted(engine, folder, syntax)
    parts = [word[start:][:8] for start in range(len(word) - 7)]
    assert not any(part in content for part in parts if part not in usual)
    assert len(plain) == FRAMES and np.array_equal(decoded(content, folder), plain)


@pytest.mark.parametrize("syntax", sorted(ENCAPSULATED - WITHOUT_ENCODER))
def test_rows_and_components_that_the_header_does_not_have_do_not_leave(engine, folder, syntax):
    """What a stream says of itself is what the header says, or it is none; one of RLE says nothing, and is cut."""
    plain = decoded(film(syntax, folder).content(), folder)
    fewer, target = film(syntax, folder), folder / "written.dcm"
    fewer.data.Rows -= 4
    if passes(engine, fewer.content(), target):
        assert syntax == "1.2.840.10008.1.2.5"
        assert np.array_equal(decoded(target.read_bytes(), folder), plain[:, :-4])
        assert len(pydicom.dcmread(target).PixelData) < len(fewer.data.PixelData)
    colours = film(syntax, folder)
    colours.data.SamplesPerPixel, colours.data.PlanarConfiguration = 3, 0
    colours.data.PhotometricInterpretation = "RGB"
    assert not passes(engine, colours.content(), target)


BEHIND = {"fill": bytes(600), "blanks": b" " * 600, "a number": b"\1\2\3\4"}
BEFORE_A_MARKER = [syntax for syntax in PLACES if hiding.CODED & PLACES[syntax].keys()]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("syntax", BEFORE_A_MARKER)
def test_a_word_before_a_marker_does_not_leave_whatever_stands_behind_it(engine, folder, syntax, behind):
    for word in (b"JANSEN^WILHELMINA", b"JANSEN^WI", b"JANSEN", b"DEVOS"):
        source, target = film(syntax, folder), folder / "written.dcm"
        hiding.before_the_last_marker(source, word + BEHIND[behind], 1)
        if passes(engine, source.content(), target):
            assert word not in target.read_bytes()
            assert np.array_equal(decoded(target.read_bytes(), folder), decoded(film(syntax, folder).content(), folder))
        else:
            assert syntax in hiding.MAY_BE_HELD_AT_ITS_END


def test_a_word_at_the_end_of_an_earlier_tile_part_does_not_leave(engine, folder):
    source, target = film("1.2.840.10008.1.2.4.90", folder), folder / "written.dcm"
    hiding.in_two_tile_parts(source, b"JANSEN^WI", 1)
    before = decoded(film(source.syntax, folder).content(), folder)
    assert np.array_equal(decoded(source.content(), folder), before)
    if passes(engine, source.content(), target):
        assert b"JANSEN^WI" not in target.read_bytes()
        assert np.array_equal(decoded(target.read_bytes(), folder), before)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("syntax", [syntax for syntax in PLACES if "behind the packets" in PLACES[syntax]])
def test_a_word_in_a_segment_that_nobody_counts_does_not_leave(engine, folder, syntax, place):
    source, target = film(syntax, folder), folder / "written.dcm"
    hiding.j2k_packed(source, b"JANSEN^WILHELMINA", place)
    if passes(engine, source.content(), target):
        assert b"JANSEN" not in target.read_bytes()
        assert np.array_equal(decoded(target.read_bytes(), folder), decoded(source.content(), folder))


@pytest.mark.parametrize("allocated", [8, 16, 24, 32, 40, 64])
def test_a_word_in_bits_that_are_not_stored_does_not_leave_whatever_size_the_cells_have(engine, folder, allocated):
    source, target, size, word = film(EXPLICIT, folder), folder / "written.dcm", allocated // 8, b"JANSEN^WILHELMINA"
    source.data.BitsAllocated, source.data.BitsStored, source.data.HighBit = allocated, 1, 0
    value = bytearray(source.data.Rows * source.data.Columns * FRAMES * size)
    value[size - 1 : len(word) * size : size] = word
    source.frames = [bytes(value)]
    if passes(engine, source.content(), target):
        written = target.read_bytes()
        assert all(word not in written[start::size] for start in range(size))


class Listened(ReaderProcess):
    """Counts the signs of life."""

    alive = 0

    def _hear(self, process):
        message = super()._hear(process)
        self.alive += "alive" in message
        return message


def test_a_film_that_is_decoded_whole_is_not_silent_until_its_last_frame(engine, folder):
    source, target, pictures = film("1.2.840.10008.1.2.4.90", folder), folder / "written.dcm", []
    for number in range(FRAMES):
        hiding.before_the_last_marker(source, b"JANSEN^WI", number)
    target.unlink(missing_ok=True)
    assert engine.convert(engine.read(source.content()), SUBJECT, target).doubtful
    reader = Listened(on_picture=lambda: pictures.append(1))
    try:
        assert reader.settle(target) is True
    finally:
        reader.close()
    assert reader.alive >= 3 * FRAMES and not pictures  # looked at, written, compared; none was read
