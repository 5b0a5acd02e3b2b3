"""Text that nobody can name goes to a person, in any script and modality; anatomy that resembles letters passes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mediator.deid.screening import Facts
from node.deid.pixels import Instance, PixelFinding, PixelGate, PixelState
from node.deid.pixels.second_look import LEGIBLE_PX, evened, is_drawn, sharpness
from tests.sim import lettering
from tests.sim.lettering import ANGLES, CONTRASTS, KINDS, SCRIPTS, SLICES, cases, stamp
from tests.sim.pictures import NAME, as_file, cr, ct, dataset, draw, mr, pt, us

INKS = Path(lettering.__file__).with_name("inks")
ANYTHING, NOTHING = (lambda grey: np.ones(grey.shape, np.float32)), (lambda grey: np.zeros(grey.shape, np.float32))


@pytest.fixture(scope="module")
def gate():
    with PixelGate() as one:
        assert one.engine
        yield one


def ink(name):
    return np.asarray(Image.open(INKS / f"{name}.png"), dtype=np.float32) / 255


def facts(kind):
    return Facts(modality=kind, has_pixels=True, image_type=("ORIGINAL", "PRIMARY"))


def verdict(gate, path, kind):
    return gate.examine([Instance(path, facts(kind))])[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hiragana", "US"),
        ("katakana", "CT"),
        ("kana-short", "US"),
        ("arabic-short", "CT"),
        ("arabic", "MR"),
        ("thai", "US"),
        ("hangul", "CT"),
        ("devanagari", "PT"),
    ],
)
def test_a_name_in_a_script_the_recogniser_does_not_know_never_passes(tmp_path, gate, name, kind):
    frame = KINDS[kind](3)
    written = stamp(frame, ink(name), (20, 12), float(np.percentile(frame, 99.9)), veil=False)
    path = as_file(tmp_path / "a.dcm", dataset(kind, frame))
    before = path.read_bytes()
    found = verdict(gate, path, kind)
    if found.state is PixelState.REVIEW:
        assert found.finding is PixelFinding.TEXT_UNREADABLE and path.read_bytes() == before
    boxes = np.zeros(frame.shape, dtype=bool)
    for box in found.regions:
        boxes[box.top : box.bottom, box.left : box.right] = True
    assert found.state is not PixelState.CLEAN and (written & boxes).sum() > 0.5 * written.sum()


@pytest.mark.parametrize(("kind", "height", "value"), [("CT", 16, 180), ("CT", 24, 150), ("US", 24, 140)])
def test_faint_letters_are_found(tmp_path, gate, kind, height, value):
    frame = KINDS[kind](5)
    draw(frame, NAME[:17], (frame.shape[1] // 4, frame.shape[0] // 2), height, value)
    assert verdict(gate, as_file(tmp_path / "a.dcm", dataset(kind, frame)), kind).state is not PixelState.CLEAN


@pytest.mark.parametrize("kind", ["CT", "MR", "PT", "US"])
def test_anatomy_passes(tmp_path, gate, kind):
    for seed in (11, 12):
        path = as_file(tmp_path / f"{seed}.dcm", dataset(kind, KINDS[kind](seed)))
        assert verdict(gate, path, kind).state is PixelState.CLEAN


def word(blur=0.0):
    """A word on noise, grey, and where it stands; blurred, of strokes three times as wide."""
    shape = ink("hiragana").repeat(3, 0).repeat(3, 1) if blur else ink("hiragana")
    grey = np.full((160, 500), 60.0, dtype=np.float32)
    written = stamp(grey, shape, (30, 40), 200.0, veil=False)
    rows, columns = np.nonzero(written)
    if blur:
        grey = cv2.GaussianBlur(grey, (0, 0), blur)
    grey = np.clip(grey + np.random.default_rng(2).normal(0, 4, grey.shape), 0, 255).astype(np.uint8)
    return grey, (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def test_what_is_higher_than_half_the_picture_is_no_line_of_text():
    for rows, line in ((90, True), (60, False)):
        page = np.zeros((rows, 200), np.uint8)
        draw(page, "JANSEN", (5, 4), 40, 255)
        assert is_drawn(page, evened(page), (2, 2, 160, 42), ANYTHING) is line


def test_what_is_drawn_has_thin_strokes_with_edges_of_a_pixel_and_what_was_scanned_has_not():
    sharp, bounds = word()
    assert is_drawn(sharp, evened(sharp), bounds, ANYTHING)
    assert sharpness(sharp, bounds) > 0.8
    for blur in (3.0, 4.0):
        blurred, bounds = word(blur)
        assert sharpness(blurred, bounds) < 0.55 and not is_drawn(blurred, evened(blurred), bounds, ANYTHING)
    spot = np.full((120, 200), 60, dtype=np.uint8)
    across, down = np.meshgrid(np.arange(200), np.arange(120))
    spot[np.hypot(across - 100, down - 60) < 20] = 200
    assert sharpness(spot, (80, 40, 120, 80)) == 0.0


def test_what_the_detector_sees_at_no_other_size_or_turn_is_anatomy_and_so_is_what_nobody_could_read():
    grey, bounds = word()
    assert not is_drawn(grey, evened(grey), bounds, NOTHING)
    seen = []
    is_drawn(grey, evened(grey), bounds, lambda part: seen.append(part.shape) or NOTHING(part))
    assert len(set(seen)) >= 4 and all(side % 32 == 0 and side <= 640 for shape in seen for side in shape)
    left, top, right, _bottom = bounds
    assert not is_drawn(grey, evened(grey), (left, top, right, top + LEGIBLE_PX - 1), ANYTHING)


@pytest.mark.parametrize("shape", [(9, 9), (9, 700), (40, 30, 3), (64, 64)])
def test_the_smallest_pictures_and_single_values_are_evened_too(shape):
    flat = np.full(shape, 77, dtype=np.uint8)
    assert evened(flat).shape == shape and (evened(flat) == 128).all()
    assert not is_drawn(flat.reshape(shape[0], -1), flat.reshape(shape[0], -1), (0, 0, 8, 8), ANYTHING)


def test_faint_letters_stand_out_of_the_evened_picture():
    grey = np.random.default_rng(2).normal(60, 2, (240, 320)).clip(0, 255).astype(np.uint8)
    grey[:, :100] = 255
    written = stamp(grey, ink("arabic"), (180, 100), 9.0, veil=True)
    even = evened(grey).astype(float)
    ground = even[:, 160:][~written[:, 160:]]
    assert even[written].mean() - ground.mean() > 60 > 9


def test_the_measured_set_has_every_script_on_every_kind_and_five_hundred_studies():
    all_cases = list(cases())
    assert len(all_cases) >= 500 and len(set(all_cases)) == len(all_cases)
    assert {(case.script, case.kind) for case in all_cases} == {(script, kind) for script in SCRIPTS for kind in KINDS}
    for script in SCRIPTS:
        among = [case for case in all_cases if case.script == script]
        assert {case.contrast for case in among} == set(CONTRASTS)
        assert {case.angle for case in among} == set(ANGLES)
    for kind in SLICES:
        assert {case.slices for case in all_cases if case.kind == kind} == {"one", "first", "all"}


def test_a_veil_adds_to_what_is_there_and_ink_replaces_it():
    for make in (ct, mr, pt, us, cr):
        frame = make(1)
        before = frame.copy()
        written = stamp(frame, np.ones((3, 4), np.float32), (5, 6), 7.0, veil=True)
        assert written.sum() == 12 and np.array_equal(frame[~written], before[~written])
        assert (frame[written].astype(int) - before[written] == 7).all()
        stamp(frame, np.ones((3, 4), np.float32), (5, 6), 7.0, veil=False)
        assert (frame[written] == 7).all()
