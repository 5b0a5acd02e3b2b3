"""Pixels that viewers still show: written, and told how they were read; or held under one clear word."""

import json
import struct
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion, Facts, Note, sort
from mediator.deid.values import Subject
from node.deid.engine import Source, open_engine
from node.deid.pixels import Instance, PixelFinding, PixelGate, PixelState
from node.deid.pixels.frames import decode, open_film
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.hiding import PLACES, cells, film
from tests.sim.pictures import as_file, ct, dataset
from tests.sim.rare_syntaxes import DEFLATED_FRAMES, JPEG_XL, XL_FILE, deflated, unknown_to_pydicom, xl

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)
TWELVE_BITS, JPEG_LS = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.80"
DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def converted(content: bytes, path):
    engine = open_engine("eucaim")
    source = engine.read(content)
    assert isinstance(source, Source)
    return engine.convert(source, SUBJECT, path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("ending", "notes"),
    [
        (b"", (Note.DELIMITER_MISSING,)),
        (bytes(34), (Note.DELIMITER_MISSING,)),
        (DELIMITER[:4] + b"\xff" * 4, ()),
    ],
)
def test_encapsulated_pixels_without_their_delimiter_are_whole_when_their_frames_are(tmp_path, syntax, ending, notes):
    data = dataset("CT", ct(1, 64), Modality="CT")
    plugin = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls"}.get(syntax, "pylibjpeg")
    content = as_file(tmp_path / "in.dcm", data, syntax, plugin).read_bytes()
    plain = pydicom.dcmread(tmp_path / "in.dcm").pixel_array
    assert content.endswith(DELIMITER)
    done = converted(content[:-8] + ending, tmp_path / "out.dcm")
    assert done.exclusion is None and done.notes == notes
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, plain)
    cut = open_engine("eucaim").read(content[:-40])
    assert cut.finding is Exclusion.TRUNCATED


@pytest.mark.parametrize("padding", [1, 2, 126])
def test_what_is_behind_native_pixels_is_cut(tmp_path, padding):
    data = ct_slice()
    data["PixelData"]._value += b"J" * (padding + padding % 2)
    done = converted(to_bytes(data), tmp_path / "out.dcm")
    assert done.exclusion is None and done.notes == (Note.PIXEL_PADDING_CUT,)
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, ct_slice_pixels())
    data["PixelData"]._value += bytes(4)  # a frame more than the header counts
    data["PixelData"]._value = data["PixelData"].value.ljust(256, b"J")
    assert open_engine("eucaim").read(to_bytes(data)).finding is Exclusion.PIXELS_INCONSISTENT


def ct_slice_pixels():
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(to_bytes(ct_slice()))).pixel_array


def test_the_byte_that_makes_a_value_even_says_nothing(tmp_path):
    data = ct_slice()
    data.Rows = data.Columns = 3
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data["PixelData"]._value = bytes(range(9)) + b"J"
    assert converted(to_bytes(data), tmp_path / "out.dcm").exclusion is None
    assert pydicom.dcmread(tmp_path / "out.dcm").PixelData == bytes(range(9)) + b"\0"


def test_native_pixels_of_no_vr_are_read_as_words(tmp_path):
    content = to_bytes(ct_slice())
    at = content.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 4
    done = converted(content[:at] + b"UN" + content[at + 2 :], tmp_path / "out.dcm")
    assert done.exclusion is None and done.notes == (Note.PIXELS_AS_UN,)
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, ct_slice_pixels())


def test_bits_above_the_stored_ones_are_masked_and_said_so(tmp_path):
    words, target = film("1.2.840.10008.1.2.1", tmp_path), tmp_path / "out.dcm"
    PLACES["1.2.840.10008.1.2.1"]["bits above BitsStored"](words, b"JANSEN^W", 0)
    done = converted(words.content(), target)
    assert done.exclusion is None and done.notes == (Note.BITS_MASKED,)


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 7, 5)])
def test_deflated_frames_leave_as_native_pixels(tmp_path, shape, bits):
    frames = np.random.default_rng(4).integers(0, 2**bits, shape).astype(np.uint16 if bits == 16 else np.uint8)
    done = converted(deflated(frames, bits, b"JANSEN^WILHELMINA"), tmp_path / "out.dcm")
    assert done.exclusion is None and done.notes == (Note.FRAMES_INFLATED,)
    out = pydicom.dcmread(tmp_path / "out.dcm")
    assert out.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1" and np.array_equal(out.pixel_array, frames)
    assert b"JANSEN" not in (tmp_path / "out.dcm").read_bytes()


def test_a_deflated_frame_that_is_longer_or_shorter_than_it_should_be_is_none(tmp_path):
    frames = np.zeros((2, 16, 16), np.uint8)
    for shape in ((2, 15, 16), (2, 17, 16), (3, 16, 16)):
        data = pydicom.dcmread(pydicom.filebase.DicomBytesIO(deflated(frames, 8)))
        data.NumberOfFrames, data.Rows, data.Columns = shape
        source = open_engine("eucaim").read(unknown_to_pydicom(data, DEFLATED_FRAMES))
        finding = source.finding or open_engine("eucaim").convert(source, SUBJECT, tmp_path / "out.dcm").exclusion
        assert finding is Exclusion.PIXELS_INCONSISTENT and not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("shape", [(1, 32769, 4096), (32, 32768, 4096)])
def test_deflated_frames_are_no_longer_than_a_frame_and_a_native_value_can_be(shape):
    data = pydicom.dcmread(pydicom.filebase.DicomBytesIO(deflated(np.zeros((shape[0], 16, 16), np.uint8), 8)))
    data.NumberOfFrames, data.Rows, data.Columns = shape
    assert open_engine("eucaim").read(unknown_to_pydicom(data, DEFLATED_FRAMES)).finding is Exclusion.INFLATE_LIMIT


def test_of_jpeg_xl_the_codestream_remains_and_a_person_decides(tmp_path):
    word = b"JANSEN^WILHELMINA"
    boxed = XL_FILE + struct.pack(">L4s", 8 + len(word), b"Exif") + word
    done = converted(xl(boxed), tmp_path / "out.dcm")
    assert done.exclusion is None and done.doubtful
    content = (tmp_path / "out.dcm").read_bytes()
    assert word not in content and XL_FILE[XL_FILE.index(b"\xff\x0a") :] in content
    with PixelGate() as gate:
        facts = Facts(modality="CT", has_pixels=True, burned_in="NO")
        (verdict,) = gate.examine([Instance(tmp_path / "out.dcm", facts, done.doubtful)])
    assert verdict.state is PixelState.REVIEW and verdict.finding is PixelFinding.NOT_DECODED
    other = pydicom.dcmread(pydicom.filebase.DicomBytesIO(xl(boxed)))
    other.Rows = 17
    assert converted(unknown_to_pydicom(other, JPEG_XL), tmp_path / "no.dcm").exclusion is Exclusion.PIXELS_INCONSISTENT


def test_extended_jpeg_of_twelve_bits_is_decoded(tmp_path):
    path = tmp_path / "in.dcm"
    path.write_bytes(film(TWELVE_BITS, tmp_path).content())
    frames = np.stack(list(decode(open_film(path), [0, 1, 2])))
    assert frames.shape == cells(TWELVE_BITS).shape and int(frames.max()) > 255
    assert float(np.abs(frames.astype(int) - cells(TWELVE_BITS)).mean()) < 600  # lossy, of a saw tooth


def test_a_stream_with_more_bits_than_are_stored_is_asked_of_a_decoder_and_masked(tmp_path):
    facts = Facts(modality="CT", has_pixels=True, burned_in="NO")
    words, target = film(JPEG_LS, tmp_path), tmp_path / "out.dcm"
    PLACES[JPEG_LS]["bits above BitsStored"](words, b"JANSEN^W", 0)
    done = converted(words.content(), target)
    assert done.exclusion is None and done.doubtful
    with PixelGate() as gate:
        (verdict,) = gate.examine([Instance(target, facts, done.doubtful)])
        (again,) = gate.examine([Instance(target, facts, True)])
    assert verdict.state is again.state is PixelState.CLEAN and verdict.masked and not again.masked
    raw = pydicom.pixels.iter_pixels(target, correct_unused_bits=False)
    assert np.array_equal(np.stack(list(raw)), cells(JPEG_LS))


@pytest.mark.parametrize(
    ("tail", "modality", "place"),
    [
        ("481.1", "RTIMAGE", "pass"),
        ("481.4", "RTRECORD", "pass"),
        ("88.50", "SR", "pass"),
        ("88.65", "SR", "pass"),
        ("88.69", "SR", "pass"),
        ("13.1.4", "MG", "pass"),
        ("77.1.7", "XC", "pass"),
        ("66.6", "M3D", "pass"),
        ("77.1.6", "SM", "whole_slide_image"),
        ("77.1.5.1", "OP", "ophthalmic_image"),
        ("77.1.5.4", "OPT", "ophthalmic_image"),
    ],
)
def test_classes_of_cancer_imaging_pass_or_have_a_word_of_their_own(tail, modality, place):
    facts = Facts(f"1.2.840.10008.5.1.4.1.1.{tail}", "1.2.3", "1.2", "1.3", "P", modality=modality, has_pixels=True)
    sorted_ = sort(facts)
    assert place == (sorted_.place if sorted_.place != "refuse" else sorted_.reasons[0])


def test_how_a_film_became_an_image_is_no_reason_where_its_pixels_are_read():
    mammogram = Facts("1.2.840.10008.5.1.4.1.1.1.2", "1.2.3", "1.2", "1.3", "P", has_pixels=True)
    scan = Facts("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2", "1.3", "P", has_pixels=True)
    assert sort(Facts(**{**vars(mammogram), "has_conversion_type": True})).place == "pass"
    assert sort(Facts(**{**vars(scan), "has_conversion_type": True})).reasons == (Exclusion.SECONDARY_CAPTURE,)


def test_a_run_says_of_each_file_how_it_was_read_and_counts_it(tmp_path):
    """Through workers and the pixel gate: one masked by the writer, one by a decoder, one without its delimiter."""
    source = tmp_path / "in"
    source.mkdir()
    for number, syntax in enumerate(("1.2.840.10008.1.2.1", JPEG_LS, RLELossless)):
        one = film(syntax, tmp_path)
        one.data.SOPInstanceUID = one.data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}"
        if syntax != RLELossless:
            PLACES[syntax]["bits above BitsStored"](one, b"JANSEN^W", 0)
        content = one.content()
        (source / f"{number}.dcm").write_bytes(content[:-8] if syntax == RLELossless else content)
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    asked = ["deid", "run", str(source), str(tmp_path / "out"), "--profile", "eucaim", "--project", "p", "--site", "s"]
    command = [sys.executable, "-m", "node.cli", *asked, "--key", str(tmp_path / "key"), "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert told["written"] == 3 and told["notes"] == {"bits_masked": 2, "delimiter_missing": 1}
    lines = [json.loads(line) for line in (tmp_path / "out.report.jsonl").read_text().splitlines()]
    assert [line.get("notes") for line in lines if "source" in line] == [
        ["bits_masked"],
        ["bits_masked"],
        ["delimiter_missing"],
    ]
