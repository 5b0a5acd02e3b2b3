"""Words in compressed pixels do not leave with a file, and what has none leaves byte for byte."""

import struct

import numpy as np
import pydicom
import pytest

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.pixels import fragments
from node.deid.pixels.fragments import planned
from node.deid.pixels.layout import Layout, MalformedStream
from node.deid.stream import MemoryStream
from tests.sim.dicom import to_bytes
from tests.sim.pictures import as_file, ct, dataset, us

JPEG, JPEG_LS, J2K = (f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "80", "90"))
PLUGINS = {JPEG: "", JPEG_LS: "pyjpegls", J2K: "pylibjpeg"}
SECRET = b"JANSEN^WILHELMINA!"


def original(tmp_path, syntax):
    eight = syntax == JPEG
    frames = np.stack([us(number, 48, 64) if eight else ct(number, 64) for number in range(3)])
    data = dataset("US-cine" if eight else "CT", frames, Modality="CT")
    return pydicom.dcmread(as_file(tmp_path / "original.dcm", data, syntax, PLUGINS[syntax]))


def with_secret(syntax, stream):
    if syntax == J2K:
        at = 4 + struct.unpack_from(">H", stream, 4)[0]
        return stream[:at] + b"\xff\x64" + struct.pack(">H", len(SECRET) + 4) + b"\0\1" + SECRET + stream[at:]
    return stream[:2] + b"\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET + stream[2:]


def write(data, tmp_path):
    engine, keyed = open_engine("eucaim"), Pseudonyms(b"k" * 32, "liver")
    source = engine.read(to_bytes(data, data.file_meta.TransferSyntaxUID))
    path = tmp_path / "written.dcm"
    return engine.write(source, Subject(keyed, keyed.patient("HX-77001234"), 100), path), path


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS, J2K])
def test_a_name_in_a_comment_of_one_frame_does_not_leave_and_the_picture_does(tmp_path, syntax):
    data = original(tmp_path, syntax)
    frames = list(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=3))
    before = data.pixel_array.copy()
    frames[1] = with_secret(syntax, frames[1])
    data.PixelData = pydicom.encaps.encapsulate(frames)
    refused, path = write(data, tmp_path)
    assert refused is None and SECRET not in path.read_bytes()
    assert np.array_equal(pydicom.dcmread(path).pixel_array, before)


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS, J2K])
def test_pixels_without_words_leave_byte_for_byte(tmp_path, syntax):
    data = original(tmp_path, syntax)
    refused, path = write(data, tmp_path)
    assert refused is None and pydicom.dcmread(path).PixelData == data.PixelData


def test_a_fragment_behind_the_last_frame_does_not_leave(tmp_path):
    data = original(tmp_path, JPEG_LS)
    data.PixelData = data.PixelData + struct.pack("<HHL", 0xFFFE, 0xE000, len(SECRET)) + SECRET
    refused, path = write(data, tmp_path)
    assert refused is None and SECRET not in path.read_bytes()
    assert pydicom.dcmread(path).pixel_array.shape == (3, 64, 64)


def test_a_stream_that_is_none_is_held(tmp_path):
    data = original(tmp_path, J2K)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f" + SECRET, SECRET, SECRET])
    refused, path = write(data, tmp_path)
    assert refused is Exclusion.PIXELS_INCONSISTENT and not path.exists()


@pytest.mark.parametrize("value", [b"", b"\xfe\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", SECRET])
def test_values_that_are_no_items_are_told(value):
    with pytest.raises(MalformedStream):
        planned(JPEG, MemoryStream(value), 0, len(value), Layout(1, 8, 8, 1, 8, 8))


def test_fragments_of_one_frame_are_not_read_beyond_its_most(monkeypatch):
    monkeypatch.setattr(fragments, "MAX_FRAME_BYTES", 1000)
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + bytes(536)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(frame)) + frame
    value = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + item * 60
    read = []

    class Counted(MemoryStream):
        def read(self, at, length):
            read.append(length)
            return super().read(at, length)

    with pytest.raises(MalformedStream):
        planned("1.2.840.10008.1.2.5", Counted(value), 0, len(value), Layout(2, 4000, 4000, 1, 8, 8))
    assert sum(length for length in read if length > 8) == 600
