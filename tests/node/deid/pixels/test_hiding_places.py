"""Words in every place of a pixel value that decoders ignore, in every transfer syntax: none leaves, the picture does."""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.structure import ENCAPSULATED, SYNTAXES
from tests.sim import hiding
from tests.sim.hiding import ALL, FRAMES, PLACES, WITHOUT_ENCODER, Film, film

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)
# Letters in no order that an encoder makes by chance, eight or more of them: a name.
WORDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ^", min_size=8, max_size=24).map(str.encode)


@pytest.fixture(scope="module")
def engine():
    return open_engine("eucaim")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


def written(engine, source: Film, target) -> Exclusion | None:
    target.unlink(missing_ok=True)
    found = engine.read(source.content())
    return found if isinstance(found, Exclusion) else engine.write(found, SUBJECT, target)


def decoded(content: bytes) -> np.ndarray:
    """Every bit of every cell."""
    data = pydicom.dcmread(io.BytesIO(content))
    return np.stack(list(pydicom.pixels.iter_pixels(data, correct_unused_bits=False)))


def test_every_syntax_has_its_places():
    assert PLACES.keys() | WITHOUT_ENCODER == SYNTAXES and not PLACES.keys() & WITHOUT_ENCODER
    for syntax, places in PLACES.items():
        wanted = {**hiding.EVERYWHERE, **(hiding.CONTAINER_PLACES if syntax in ENCAPSULATED else hiding.NATIVE_PLACES)}
        assert wanted.items() <= places.items()


@pytest.mark.parametrize(("syntax", "place"), ALL)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(word=WORDS, at=st.integers(0, 47))
def test_a_word_where_no_decoder_looks_does_not_leave_and_the_picture_does(engine, folder, syntax, place, word, at):
    plain = decoded(film(syntax, folder).content())
    source, target = film(syntax, folder), folder / "written.dcm"
    PLACES[syntax][place](source, word, at)
    assert written(engine, source, target) is None
    content = target.read_bytes()
    assert not any(word[start:][:8] in content for start in range(len(word) - 7))
    assert len(plain) == FRAMES and np.array_equal(decoded(content), plain)

