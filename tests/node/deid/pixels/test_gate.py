"""The pixel gate with the real engine in its real process: text goes, pictures stay, and nothing passes unread."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mediator.deid.screening import Exclusion, Facts
from node.deid.pixels import Instance, PixelFinding, PixelGate, PixelState
from node.deid.pixels.ocr import MODELS, installed
from node.deid.pixels.reader import ReaderProcess
from tests.sim.pictures import NAME, as_file, cr, ct, dataset, draw, us

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
JPEG_LS = "1.2.840.10008.1.2.4.80"


@pytest.fixture(scope="module")
def gate():
    with PixelGate() as one:
        assert one.engine
        yield one


def instance(path, kind, **facts):
    return Instance(path, Facts(modality=kind.partition("-")[0], has_pixels=True, **facts))


def codes(path):
    return [item.CodeValue for item in pydicom.dcmread(path).get("DeidentificationMethodCodeSequence", ())]


@pytest.mark.parametrize(
    ("kind", "height", "value"),
    [("CT", 12, 1500), ("CT", 24, -1000), ("US", 12, 220), ("US", 24, 255), ("CR", 24, 4000), ("CR", 40, 400)],
)
def test_text_of_several_sizes_and_contrasts_is_blacked_out_and_nothing_else(tmp_path, gate, kind, height, value):
    frame = {"CT": ct, "US": us, "CR": cr}[kind](height)
    at = (frame.shape[1] // 4, frame.shape[0] // 3)
    ink = draw(frame, NAME[:17], at, height, value)
    path = as_file(tmp_path / "a.dcm", dataset(kind, frame))
    verdict = gate.examine([instance(path, kind)])[0]
    assert verdict.state is PixelState.BLACKED_OUT and verdict.finding is None and verdict.read >= 2
    after = pydicom.dcmread(path)
    boxes = np.zeros(frame.shape, dtype=bool)
    for box in verdict.regions:
        boxes[box.top : box.bottom, box.left : box.right] = True
    assert not (ink & ~boxes).any() and boxes.mean() < 0.1
    assert np.array_equal(after.pixel_array[~boxes], frame[~boxes])
    assert len(np.unique(after.pixel_array[boxes])) == 1
    assert after.BurnedInAnnotation == "NO" and codes(path) == ["113101"]
    assert gate.examine([instance(path, kind)])[0].state is PixelState.CLEAN


@pytest.mark.parametrize("kind", ["CT", "US", "CR"])
def test_a_clean_picture_passes_with_its_pixels_untouched_and_says_it_was_looked_at(tmp_path, gate, kind):
    frame = {"CT": ct, "US": us, "CR": cr}[kind](7)
    path = as_file(tmp_path / "a.dcm", dataset(kind, frame))
    before = pydicom.dcmread(path)
    path.chmod(0o640)
    verdict = gate.examine([instance(path, kind)])[0]
    after = pydicom.dcmread(path)
    assert (verdict.state, verdict.regions, verdict.read) == (PixelState.CLEAN, (), 1)
    assert after.PixelData == before.PixelData and codes(path) == ["113101"]
    assert path.stat().st_mode & 0o777 == 0o640 and os.listdir(tmp_path) == ["a.dcm"]
    for keyword in ("BurnedInAnnotation", "DeidentificationMethodCodeSequence"):
        del after[keyword]
    assert after == before


@pytest.mark.parametrize(
    ("syntax", "plugin"),
    [
        *((syntax, "") for syntax in NATIVE),
        ("1.2.840.10008.1.2.4.50", ""),
        ("1.2.840.10008.1.2.5", "pydicom"),
        (JPEG_LS, "pyjpegls"),
        ("1.2.840.10008.1.2.4.90", "pylibjpeg"),
    ],
)
def test_every_syntax_is_read_and_written_back_without_loss(tmp_path, gate, syntax, plugin):
    eight = syntax.endswith("4.50")
    frame = np.dstack([us(3)] * 3) if eight else ct(3)
    draw(frame, NAME, (30, 30), 18, 255 if eight else 2500)
    path = as_file(tmp_path / "a.dcm", dataset("US" if eight else "CT", frame), syntax, plugin)
    before = pydicom.dcmread(path).pixel_array
    verdict = gate.examine([instance(path, "US" if eight else "CT")])[0]
    assert verdict.state is PixelState.BLACKED_OUT
    after = pydicom.dcmread(path)
    assert after.file_meta.TransferSyntaxUID == (syntax if syntax in NATIVE else JPEG_LS)
    box = verdict.regions[0]
    assert not np.array_equal(before, after.pixel_array)
    before[box.top : box.bottom, box.left : box.right] = 0 if eight else before.min()
    assert np.array_equal(before, after.pixel_array)
    assert after.get("LossyImageCompression") == ("01" if eight else None)


def test_text_on_a_single_frame_of_a_cine_is_found_and_only_that_frame_changes(tmp_path, gate):
    frames = np.stack([np.roll(us(4, 240, 320), shift, axis=1) for shift in range(9)])
    untouched = frames.copy()
    draw(frames[6], "HARTOG 1931", (10, 10), 16, 255)
    path = as_file(tmp_path / "a.dcm", dataset("US-cine", frames))
    verdict = gate.examine([instance(path, "US")])[0]
    assert verdict.state is PixelState.BLACKED_OUT and {box.frame for box in verdict.regions} == {6}
    after = pydicom.dcmread(path).pixel_array
    others = np.arange(9) != 6
    assert np.array_equal(after[others], untouched[others]) and after[6, 12:24, 12:100].max() == after[6].min()


def test_text_on_one_slice_of_a_series_is_found_by_projection(tmp_path, gate):
    series = []
    for number in range(8):
        frame = ct(number, 256)
        if number == 5:
            draw(frame, NAME[:17], (20, 20), 16, 2000)
        series.append(instance(as_file(tmp_path / f"{number:02d}.dcm", dataset("CT", frame)), "CT"))
    verdicts = gate.examine(series)
    assert [verdict.state for verdict in verdicts] == [PixelState.CLEAN] * 5 + [PixelState.BLACKED_OUT] + [
        PixelState.CLEAN
    ] * 2


@pytest.mark.parametrize("kind", ["CT", "US"])
def test_burned_in_annotation_no_is_believed_of_nothing(tmp_path, gate, kind):
    frame = ct(11) if kind == "CT" else us(1, 128, 160)
    draw(frame, "JANSEN", (10, 10), 16, 2000 if kind == "CT" else 255)
    path = as_file(tmp_path / "a.dcm", dataset(kind, frame))
    verdict = gate.examine([instance(path, kind, burned_in="NO")])[0]
    assert verdict.state is not PixelState.CLEAN and verdict.read


def test_where_somebody_decided_to_believe_it_no_claim_is_made_and_of_ultrasound_it_is_not_believed(tmp_path):
    frame = ct(11)
    draw(frame, "JANSEN", (10, 10), 16, 2000)
    path = as_file(tmp_path / "ct.dcm", dataset("CT", frame))
    before = path.read_bytes()
    drawn = us(1, 128, 160)
    draw(drawn, "JANSEN", (10, 10), 16, 255)
    cine = as_file(tmp_path / "us.dcm", dataset("US", drawn))
    with PixelGate(believe_no=True) as believing:
        verdict = believing.examine([instance(path, "CT", burned_in="NO")])[0]
        assert (verdict.state, verdict.read, verdict.unseen) == (PixelState.CLEAN, 0, True)
        assert path.read_bytes() == before and "113101" not in codes(path)
        assert believing.examine([instance(path, "CT")])[0].state is not PixelState.CLEAN
        assert believing.examine([instance(cine, "US", burned_in="NO")])[0].state is not PixelState.CLEAN


def test_what_its_maker_says_has_text_never_passes_as_having_none(tmp_path, gate):
    clean = as_file(tmp_path / "clean.dcm", dataset("CT", ct(11), BurnedInAnnotation="YES"))
    frame = ct(12)
    draw(frame, "JANSEN", (10, 10), 16, 2000)
    drawn = as_file(tmp_path / "drawn.dcm", dataset("CT", frame, BurnedInAnnotation="YES"))
    before = clean.read_bytes()
    found, blacked = gate.examine([instance(path, "CT", burned_in="YES") for path in (clean, drawn)])
    assert (found.state, found.finding) == (PixelState.REVIEW, PixelFinding.TEXT_UNREADABLE) and found.read > 0
    assert clean.read_bytes() == before and codes(clean) == []
    assert blacked.state is PixelState.BLACKED_OUT and pydicom.dcmread(drawn).BurnedInAnnotation == "NO"
    assert sorted(os.listdir(tmp_path)) == ["clean.dcm", "drawn.dcm"]


def test_a_syntax_nobody_decodes_and_a_damaged_stream_go_to_review_and_the_rest_goes_on(tmp_path, gate):
    good = as_file(tmp_path / "good.dcm", dataset("CT", ct(1, 64)))
    unknown = tmp_path / "unknown.dcm"
    unknown.write_bytes(good.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    damaged = as_file(tmp_path / "damaged.dcm", dataset("CT", ct(1, 64)), JPEG_LS, "pyjpegls")
    raw = bytearray(damaged.read_bytes())
    raw[-900:-20] = bytes(880)
    damaged.write_bytes(raw)
    verdicts = gate.examine([instance(path, "CT") for path in (good, unknown, damaged)])
    assert [verdict.finding for verdict in verdicts] == [None, PixelFinding.NOT_DECODED, PixelFinding.NOT_DECODED]
    assert damaged.read_bytes() == raw


def test_without_the_engine_or_with_other_models_nothing_that_needs_reading_passes(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    path = as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64)))
    before = path.read_bytes()
    with PixelGate(models=models) as gate:
        assert gate.engine == ""
        verdict = gate.examine([instance(path, "CT")])[0]
        assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.NOT_CHECKED)
        assert gate.examine([instance(path, "CT", burned_in="NO")])[0].finding is PixelFinding.NOT_CHECKED
        assert gate.reader_pid is None and path.read_bytes() == before


def test_told_to_read_nothing_the_gate_passes_nothing_that_needs_reading(tmp_path):
    path = as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64)))
    before = path.read_bytes()
    with PixelGate(read_text=False, believe_no=True) as gate:
        verdict = gate.examine([instance(path, "CT")])[0]
        assert (verdict.state, verdict.finding) == (PixelState.REVIEW, PixelFinding.NOT_CHECKED)
        assert gate.examine([instance(path, "CT", burned_in="NO")])[0].state is PixelState.CLEAN
        assert gate.reader_pid is None and path.read_bytes() == before


def test_every_finding_has_its_reason_of_exclusion_and_a_caller_without_review_is_told_it(tmp_path):
    assert {finding.value for finding in PixelFinding} <= {reason.value for reason in Exclusion}
    path = as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64)))
    facts = Facts(modality="CT", has_pixels=True)
    with PixelGate(models=tmp_path) as gate:
        findings = [verdict.finding for verdict in gate.examine([Instance(path, facts), Instance(path, Facts())])]
        assert findings == [PixelFinding.NOT_CHECKED, None]


def test_one_changed_byte_in_a_model_is_another_model(tmp_path):
    import rapidocr_onnxruntime

    for name in MODELS:
        shutil.copy(Path(rapidocr_onnxruntime.__file__).parent / "models" / name, tmp_path / name)
    assert installed(tmp_path)
    with (tmp_path / next(iter(MODELS))).open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    assert not installed(tmp_path)


def test_a_reader_that_was_killed_is_started_again(tmp_path):
    path = as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64)))
    with PixelGate() as gate:
        assert gate.examine([instance(path, "CT")])[0].state is PixelState.CLEAN
        first = gate.reader_pid
        os.kill(first, signal.SIGKILL)
        assert gate.examine([instance(path, "CT")])[0].finding in (None, PixelFinding.NOT_CHECKED)
        assert gate.examine([instance(path, "CT")])[0].state is PixelState.CLEAN
        assert gate.reader_pid != first


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(60)",
        "pass",
        "print('{', flush=True)",
        "print('{\"ready\": 1}', flush=True); input()",
        "print('{\"ready\": 1}', flush=True); input(); print('{\"verdicts\": [{}]}', flush=True)",
    ],
    ids=["hangs", "ends", "babbles", "dies-at-work", "answers-something-else"],
)
def test_a_reader_that_hangs_ends_or_babbles_sends_to_review(tmp_path, program):
    path = as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64)))
    before = path.read_bytes()
    reader = ReaderProcess(silence_s=1.0, command=[sys.executable, "-c", program])
    with PixelGate(readers=[reader]) as gate:
        verdicts = gate.examine([instance(path, "CT"), instance(path, "CT")])
        assert [verdict.finding for verdict in verdicts] == [PixelFinding.NOT_CHECKED] * 2
        assert gate.reader_pid is None and path.read_bytes() == before


def test_the_reader_has_its_own_limit_of_memory_and_no_core_dumps(tmp_path):
    with PixelGate() as gate:
        gate.examine([instance(as_file(tmp_path / "a.dcm", dataset("CT", ct(1, 64))), "CT")])
        limits = Path(f"/proc/{gate.reader_pid}/limits").read_text()
    assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max address space")] == ["1610612736"]
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file")] == ["0"]


def test_a_frame_too_large_for_the_limit_goes_to_review_and_the_reader_lives_on(tmp_path, gate):
    data = dataset("CR", cr(1, 64, 64))
    data.Rows, data.Columns = 16000, 16000
    path = tmp_path / "huge.dcm"
    as_file(path, data)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 16000 * 16000 * 2)
    verdict = gate.examine([instance(path, "CR")])[0]
    assert verdict.state is PixelState.REVIEW
    small = as_file(tmp_path / "small.dcm", dataset("CT", ct(1, 64)))
    assert gate.examine([instance(small, "CT")])[0].state is PixelState.CLEAN


def test_a_thin_head_scan_goes_to_review_only_where_the_profile_demands_it(tmp_path, gate):
    head = dataset("CT", ct(1, 64), BodyPartExamined="HEAD", SliceThickness="1.0")
    chest = dataset("CT", ct(1, 64), BodyPartExamined="CHEST", SliceThickness="1.0")
    thick = dataset("CT", ct(1, 64), BodyPartExamined="HEAD", SliceThickness="8")
    unsaid = dataset("CT", ct(1, 64))
    paths = [as_file(tmp_path / f"{number}.dcm", data) for number, data in enumerate((head, chest, thick, unsaid))]
    series = [instance(path, "CT", burned_in="NO") for path in paths]
    with PixelGate(hold_faces=True) as strict:
        findings = [verdict.finding for verdict in strict.examine(series)]
    face = PixelFinding.RECOGNISABLE_FACE
    assert findings == [face, None, None, face]
    assert all(verdict.finding is None for verdict in gate.examine(series))
    assert all("113102" not in codes(path) for path in paths)
