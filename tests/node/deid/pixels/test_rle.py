"""Words in the places of an RLE stream that decoders ignore do not leave, the picture does, and plain streams stay."""

import struct
import subprocess

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_segment
from pydicom.uid import RLELossless

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.deid.values import Subject
from node.deid.engine import open_engine
from node.deid.pixels.fragments import MAX_FRAGMENTS_OF_RLE
from node.deid.pixels.layout import Layout, MalformedStream
from node.deid.pixels.rle import rebuilt
from tests.sim.dicom import to_bytes
from tests.sim.pictures import as_file, ct, dataset, us

SECRET = b"JANSEN^WILHELMINA 19310503"
KINDS = {
    "8 bit": lambda: us(1, 48, 64),
    "16 bit": lambda: ct(1, 64),
    "colours": lambda: np.stack([us(seed, 48, 64) for seed in range(3)], axis=-1),
    "odd": lambda: us(1, 47, 63),
}


def picture(tmp_path, kind, frames):
    one = KINDS[kind]()
    stack = np.stack([np.roll(one, number, axis=1) for number in range(frames)])
    data = dataset("US-cine" if frames > 1 else "US", stack, Modality="US")
    return pydicom.dcmread(as_file(tmp_path / "original.dcm", data, RLELossless, "pydicom"))


def apart(frame):
    """The segments of one frame."""
    count, *offsets = struct.unpack_from("<16L", frame)
    ends = [*offsets[1:count], len(frame)]
    return [frame[start:end] for start, end in zip(offsets, ends, strict=False)]


def together(segments, *, gap=b"", unused=b"", behind=b"", declared=None):
    """A frame of these segments, with bytes before each of them, in the offsets that are not used, and behind."""
    places, at = [], 64 + len(gap)
    for segment in segments:
        places.append(at)
        at += len(segment) + len(gap)
    header = struct.pack(f"<{1 + len(places)}L", declared or len(segments), *places)
    header += unused[: 64 - len(header)].ljust(64 - len(header), b"\0")
    return header + b"".join(gap + segment for segment in segments) + behind


def split_last(frame):
    """A frame as two fragments."""
    half = len(frame) // 4 * 2
    return [frame[:half], frame[half:]]


def overlong(segment):
    """The segment less its last run, which comes again as one that has words behind what it must decode to."""
    runs, at = [], 0
    while at < len(segment) and not (at and segment[at:] == b"\0"):
        size = segment[at] + 2 if segment[at] < 128 else 2
        runs.append(segment[at : at + size])
        at += size
    *kept, last = runs
    plain = last[1:] if last[0] < 128 else last[1:] * (257 - last[0])
    assert len(plain) + len(SECRET) <= 128 or last[0] > 128
    plain = plain if len(plain) + len(SECRET) <= 128 else plain[:64]
    filled = b"".join(kept)
    if last[0] > 128 and 257 - last[0] > 64:
        filled += bytes([257 - (257 - last[0] - 64)]) + last[1:2] if 257 - last[0] - 64 > 1 else b"\0" + last[1:2]
    return filled + bytes([len(plain) + len(SECRET) - 1]) + plain + SECRET


HIDING = {
    "between the segments": lambda frame: [together(apart(frame), gap=SECRET)],
    "in offsets nobody uses": lambda frame: [together(apart(frame), unused=SECRET)],
    "behind the last segment": lambda frame: [together(apart(frame), behind=SECRET)],
    "behind every segment": lambda frame: [together([part + SECRET for part in apart(frame)])],
    "in the run that is too long": lambda frame: [together([overlong(part) for part in apart(frame)])],
    "in a segment too many": lambda frame: [together([*apart(frame), SECRET])],
    "between no-operations": lambda frame: [together([b"\x80" * 26 + part for part in apart(frame)], behind=SECRET)],
    "in the padding": lambda frame: [together([part + b"J" for part in apart(frame)])],
}


def plain_layout(segments, size):
    """One frame of cells of eight bits."""
    return Layout(1, 1, size, segments, 8, 8)


def write(data, tmp_path):
    engine, keyed = open_engine("eucaim"), Pseudonyms(b"k" * 32, "liver")
    source = engine.read(to_bytes(data, RLELossless))
    path = tmp_path / "written.dcm"
    return engine.write(source, Subject(keyed, keyed.patient("HX-77001234"), 100), path), path


def same_picture(path, before):
    """By pydicom, by DCMTK and by GDCM."""
    assert np.array_equal(pydicom.dcmread(path).pixel_array, before)
    for tool in (["/usr/bin/dcmdrle"], ["/usr/bin/gdcmconv", "--raw"]):
        plain = path.with_name("plain.dcm")
        subprocess.run([*tool, path, plain], check=True, capture_output=True)
        assert np.array_equal(pydicom.dcmread(plain).pixel_array, before), tool


@pytest.mark.parametrize("hidden", HIDING)
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_words_where_no_decoder_looks_do_not_leave_and_the_picture_does(tmp_path, kind, frames, hidden):
    data = picture(tmp_path, kind, frames)
    before = data.pixel_array.copy()
    streams = list(generate_frames(data.PixelData, number_of_frames=frames))
    streams[-1:] = HIDING[hidden](streams[-1])
    data.PixelData = encapsulate(streams)
    refused, path = write(data, tmp_path)
    assert refused is None and SECRET not in path.read_bytes()
    same_picture(path, before)
    again = list(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=frames))
    assert again[:-1] == streams[:-1] and len(again[-1]) <= len(streams[-1])


@pytest.mark.parametrize("table", ["none", "offsets", "extended", "words"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("where", ["behind", "split", "split and behind"])
def test_fragments_are_told_apart_with_every_kind_of_offset_table(tmp_path, frames, where, table):
    data = picture(tmp_path, "16 bit", frames)
    before = data.pixel_array.copy()
    streams = list(generate_frames(data.PixelData, number_of_frames=frames))
    fragments = [part for one in streams for part in (split_last(one) if "split" in where else [one])]
    behind = [SECRET] if "behind" in where else []
    offsets, place = [], 0
    for number, part in enumerate(fragments):
        if "split" not in where or number % 2 == 0:
            offsets.append(place)
        place += 8 + len(part)
    first = {"offsets": struct.pack(f"<{len(offsets)}L", *offsets), "words": SECRET + b"  "}.get(table, b"")
    if table == "extended":
        data.add_new(0x7FE00001, "OV", struct.pack(f"<{len(offsets)}Q", *offsets))
        data.add_new(0x7FE00002, "OV", struct.pack(f"<{frames}Q", *map(len, streams)))
    items = [first, *fragments, *behind]
    data[0x7FE00010]._value = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in items)
    refused, path = write(data, tmp_path)
    assert refused is None and SECRET not in path.read_bytes()
    assert "ExtendedOffsetTable" not in pydicom.dcmread(path)
    same_picture(path, before)


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [(tool, kind) for tool in ("pydicom", "dcmtk", "gdcm") for kind in KINDS if (tool, kind) != ("gdcm", "odd")],
)  # GDCM does not encode pictures of odd size
@pytest.mark.parametrize("frames", [1, 3])
def test_streams_of_common_encoders_leave_with_the_same_pixels(tmp_path, kind, frames, encoder):
    data = picture(tmp_path, kind, frames)
    before = data.pixel_array.copy()
    if encoder != "pydicom":
        data.decompress(generate_instance_uid=False)
        data.save_as(tmp_path / "plain.dcm")
        tool = {"dcmtk": ["/usr/bin/dcmcrle"], "gdcm": ["/usr/bin/gdcmconv", "--rle"]}[encoder]
        subprocess.run([*tool, tmp_path / "plain.dcm", tmp_path / "rle.dcm"], check=True, capture_output=True)
        data = pydicom.dcmread(tmp_path / "rle.dcm")
    refused, path = write(data, tmp_path)
    assert refused is None
    same_picture(path, before)
    if encoder == "pydicom":
        assert pydicom.dcmread(path).PixelData == data.PixelData  # byte for byte


@pytest.mark.parametrize(
    "broken",
    [
        lambda frame: SECRET,
        lambda frame: frame[: len(frame) // 2],
        lambda frame: together(apart(frame)[:1]),
        lambda frame: together([part[: len(part) // 2] for part in apart(frame)]),
        lambda frame: together(apart(frame), declared=16),
        lambda frame: struct.pack("<16L", 2, 64, 1 << 30, *[0] * 13) + frame[64:],
        lambda frame: struct.pack("<16L", 2, 0, 64, *[0] * 13) + frame[64:],
    ],
)
@pytest.mark.parametrize("frames", [1, 3])
def test_a_stream_that_does_not_decode_is_held(tmp_path, frames, broken):
    data = picture(tmp_path, "16 bit", frames)
    streams = list(generate_frames(data.PixelData, number_of_frames=frames))
    data.PixelData = encapsulate([*streams[:-1], broken(streams[-1])])
    refused, path = write(data, tmp_path)
    assert refused is Exclusion.PIXELS_INCONSISTENT and not path.exists()


@pytest.mark.parametrize(
    "segments",
    [
        [b"\x02ab"],  # a run that says three and has two
        [b"\xfe"],  # one that repeats nothing
        [b"\x02ab", b"\x02abc"],  # one that goes on in the next segment
        [b"\x00a", b"\x02abc"],  # one that ends too soon
    ],
)
def test_a_run_that_is_not_whole_is_no_run(segments):
    with pytest.raises(MalformedStream):
        rebuilt(together(segments), plain_layout(len(segments), 3))


def test_a_frame_in_a_thousand_fragments_is_not_tried_a_thousand_times(tmp_path):
    data = picture(tmp_path, "8 bit", 2)
    streams = list(generate_frames(data.PixelData, number_of_frames=2))
    crumbs = [streams[0][at : at + 2] for at in range(0, len(streams[0]), 2)]
    assert len(crumbs) > MAX_FRAGMENTS_OF_RLE
    data.PixelData = encapsulate([*crumbs, streams[1]], has_bot=False)
    refused, _path = write(data, tmp_path)
    assert refused is Exclusion.PIXELS_INCONSISTENT


runs = st.one_of(
    st.binary(min_size=1, max_size=128).map(lambda text: bytes([len(text) - 1]) + text),
    st.tuples(st.integers(129, 255), st.binary(min_size=1, max_size=1)).map(lambda run: bytes([run[0]]) + run[1]),
    st.just(b"\x80"),
)


@given(st.lists(st.lists(runs, min_size=1, max_size=6).map(b"".join), min_size=1, max_size=4), st.data())
def test_whatever_the_runs_are_the_same_bytes_come_out_and_no_more(segments, data):
    """Against pydicom's decoder: every segment decodes to its first `size` bytes and no more."""
    plain = [bytes(_rle_decode_segment(part)) for part in segments]
    size = data.draw(st.integers(0, min(map(len, plain))))
    gap, behind = data.draw(st.binary(max_size=9)), data.draw(st.binary(max_size=9))
    frame = together(segments, gap=gap, behind=behind)
    layout = plain_layout(len(segments), size)
    kept = rebuilt(frame, layout)
    again = apart(kept)
    assert [bytes(_rle_decode_segment(part))[:size] for part in again] == [part[:size] for part in plain]
    assert rebuilt(kept, layout) is kept and len(kept) <= len(frame) + len(kept) % 2 + 2 * len(segments)
    for part in again:
        assert len(_rle_decode_segment(part)) <= size + 1 and len(part) % 2 == 0


@given(st.binary(max_size=300), st.integers(1, 3), st.integers(1, 64))
def test_no_bytes_break_the_reader(frame, segments, size):
    try:
        kept = rebuilt(frame, plain_layout(segments, size))
    except MalformedStream:
        return
    assert rebuilt(kept, plain_layout(segments, size)) is kept
