"""Words in compressed streams are found and taken away, and the pixels stay what they were."""

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID

from node.deid.pixels.layout import Layout
from node.deid.pixels.scans import may_be_text
from node.deid.pixels.segments import MalformedStream, without_words

JPEG, JPEG_LS, J2K = (f"1.2.840.10008.1.2.4.{tail}" for tail in ("50", "80", "90"))
SECRET = b"JANSEN^WILHELMINA"
PICTURE = (np.add.outer(np.arange(64) * 3, np.arange(48) * 2) % 256).astype(np.uint8)


def encoded(syntax: str) -> bytes:
    if syntax == JPEG:
        buffer = io.BytesIO()
        Image.fromarray(PICTURE).save(buffer, "JPEG")
        return buffer.getvalue()
    plugin = "pyjpegls" if syntax == JPEG_LS else "pylibjpeg"
    shape = {"rows": 64, "columns": 48, "samples_per_pixel": 1, "number_of_frames": 1, "photometric_interpretation": ""}
    shape |= {"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0}
    shape["photometric_interpretation"] = "MONOCHROME2"
    stream = bytes(get_encoder(UID(syntax)).encode(PICTURE, encoding_plugin=plugin, **shape))
    return stream + b"\0" * (len(stream) % 2)


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">HH", marker, len(payload) + 2) + payload


def in_header(syntax: str, stream: bytes, extra: bytes) -> bytes:
    """`extra` after the start of the image (JPEG) or after SIZ, which must come first (JPEG 2000)."""
    at = 2
    if syntax == J2K:
        at = 4 + struct.unpack_from(">H", stream, 4)[0]
    return stream[:at] + extra + stream[at:]


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS, J2K])
def test_a_comment_is_found_and_taken_away(syntax):
    plain = without_words(syntax, encoded(syntax))
    comment = segment(0xFF64, b"\0\1" + SECRET) if syntax == J2K else segment(0xFFFE, SECRET)
    planted = in_header(syntax, plain, comment)
    assert without_words(syntax, planted) == plain
    assert without_words(syntax, plain) is plain


@pytest.mark.parametrize("marker", [0xFFE1, 0xFFE0, 0xFFEE, 0xFFE8, 0xFFED])
def test_an_application_segment_with_words_goes_even_under_a_number_that_may_stay(marker):
    plain = encoded(JPEG)
    planted = in_header(JPEG, plain, segment(marker, SECRET))
    assert SECRET not in without_words(JPEG, planted)
    assert np.array_equal(pixels(without_words(JPEG, planted)), pixels(plain))


def test_what_says_how_to_decode_stays():
    colours = io.BytesIO()
    Image.fromarray(np.dstack([PICTURE] * 3)).convert("CMYK").save(colours, "JPEG")  # has an Adobe segment
    assert b"Adobe" in colours.getvalue()
    assert without_words(JPEG, colours.getvalue()) == colours.getvalue()
    assert b"JFIF" in without_words(JPEG, encoded(JPEG))


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LS, J2K])
def test_words_behind_the_end_of_the_image_are_found_and_taken_away(syntax):
    plain = without_words(syntax, encoded(syntax)).rstrip(b"\0")
    hidden = plain + SECRET
    assert without_words(syntax, hidden).rstrip(b"\0") == plain
    assert without_words(syntax, padded := plain + b"\0") is padded


def test_a_comment_in_a_tile_part_header_goes_and_its_length_is_made_good():
    plain = without_words(J2K, encoded(J2K))
    sot = plain.index(b"\xff\x90")
    comment = segment(0xFF64, b"\0\1" + SECRET)
    (length,) = struct.unpack_from(">L", plain, sot + 6)
    planted = bytearray(plain[: sot + 12] + comment + plain[sot + 12 :])
    struct.pack_into(">L", planted, sot + 6, length + len(comment))
    assert without_words(J2K, bytes(planted)) == plain


def test_an_encoder_may_sign_its_work_and_nothing_may_hide_in_its_signature():
    stream = encoded(J2K)
    assert b"OpenJPEG" in stream and without_words(J2K, stream) is stream
    for notice in (b"\0\1Kakadu-v7.3.3 JANSEN", b"\0\1Created by OpenJPEG version 19310503", b"\0\1JANSEN Kakadu-v7"):
        planted = in_header(J2K, stream, segment(0xFF64, notice))
        assert without_words(J2K, planted) == stream


def test_of_a_jp2_file_the_codestream_remains():
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG2000", irreversible=False)
    plain = buffer.getvalue()
    assert plain.startswith(b"\0\0\0\x0cjP  ") and without_words(J2K, plain)[:2] == b"\xff\x4f"
    at = plain.index(b"jp2c") - 4
    box = struct.pack(">L4s", 8 + len(SECRET), b"xml ") + SECRET
    stream = plain[at + 8 :]
    commented = in_header(J2K, stream, segment(0xFF64, b"\0\1" + SECRET))
    planted = plain[:at] + box + struct.pack(">L4s", 8 + len(commented), b"jp2c") + commented + box
    cleaned = without_words(J2K, planted)
    assert SECRET not in cleaned and np.array_equal(pixels(cleaned), PICTURE)
    for broken in (planted[:50], plain[:at], plain + plain[at:]):
        with pytest.raises(MalformedStream):
            without_words(J2K, broken)


def test_streams_that_are_not_what_they_say_are_told_apart():
    for syntax in (JPEG, JPEG_LS, J2K):
        stream = encoded(syntax)
        for broken in (b"", b"\xff", stream[:40], stream[: len(stream) // 2], b"\0\0\0\x0cjP  \r\n\x87\n" + stream):
            with pytest.raises(MalformedStream):
                without_words(syntax, broken)


def test_damaged_streams_end_in_a_verdict_and_never_in_another_error():
    random = np.random.default_rng(3)
    for syntax in (JPEG, JPEG_LS, J2K):
        stream = encoded(syntax)
        for _round in range(300):
            damaged = bytearray(stream)
            for _hit in range(random.integers(1, 6)):
                damaged[random.integers(len(damaged))] = random.integers(256)
            try:
                without_words(syntax, bytes(damaged[: random.integers(1, len(damaged) + 1)]))
            except MalformedStream:
                pass


def test_what_changes_pixels_and_few_decoders_read_is_not_left_out_in_silence():
    stream = encoded(J2K)
    for marker in (0xFF76, 0xFF79):  # a non-linear transform, a wavelet of one's own
        with pytest.raises(MalformedStream):
            without_words(J2K, in_header(J2K, stream, segment(marker, bytes(6))))
    assert b"\xff\x74" in without_words(J2K, in_header(J2K, stream, segment(0xFF74, bytes(6))))


def test_quantisation_may_stand_before_the_coding_style():
    stream = encoded(J2K)
    cod, qcd = stream.index(b"\xff\x52"), stream.index(b"\xff\x5c")
    end = qcd + 2 + struct.unpack_from(">H", stream, qcd + 2)[0]
    turned = stream[:cod] + stream[qcd:end] + stream[cod:qcd] + stream[end:]
    assert without_words(J2K, turned) is turned and np.array_equal(pixels(turned), PICTURE)


def test_thousands_of_tile_parts_and_gaps_cost_one_look_each():
    stream = encoded(J2K)
    sot, end = stream.index(b"\xff\x90"), stream.rindex(b"\xff\xd9")
    first = bytearray(stream[sot:end])
    first[6:10] = struct.pack(">L", end - sot)
    head = stream[:24] + struct.pack(">LL", 1, 1) + stream[32:sot]  # each pixel a tile
    many = [struct.pack(">HHHLBBH", 0xFF90, 10, tile, 14, 0, 1, 0xFF93) + b"\0\0" for tile in range(1, 3072)]
    whole = head + bytes(first) + b"".join(many) + bytes(1 << 24) + stream[end:]
    started = time.process_time()
    assert b"\0" * 64 not in without_words(J2K, whole)
    assert time.process_time() - started < 2


def test_restart_markers_beyond_those_of_the_picture_take_no_memory():
    stream = encoded(JPEG)
    end = stream.rindex(b"\xff\xd9")
    whole = stream[:end] + b"\xff\xd0" * (1 << 17) + stream[end:]
    tracemalloc.start()
    try:
        kept = without_words(JPEG, whole)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert b"\xff\xd0" not in kept and peak < 8 * len(whole)


def pixels(stream: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stream)))


LOSSLESS = "1.2.840.10008.1.2.4.70"


def coded_in_ones(rows: int, behind: bytes) -> bytes:
    """Lossless JPEG of one column a byte: every difference is 0, of one bit, with words behind the picture."""
    table = segment(0xFFC4, b"\0" + b"\1" + bytes(15) + b"\0")
    frame = segment(0xFFC3, struct.pack(">BHHB", 8, rows, 8, 1) + b"\1\x11\0")
    scan = segment(0xFFDA, b"\1\1\0\1\0\0")
    return b"\xff\xd8" + table + frame + scan + bytes(rows) + behind + b"\xff\xd9"


def test_no_more_of_a_value_is_counted_than_may_end_in_text_by_chance():
    """What is counted takes a second a megabyte or two; a value made of frames that all end in text is refused."""
    layout = Layout(frames=1, rows=4000, columns=8, samples=1, bits_allocated=8, bits_stored=8)
    stream = coded_in_ones(4000, SECRET)
    layout.counting.begin(len(stream))
    assert len(without_words(LOSSLESS, stream, layout)) <= len(stream) - len(SECRET) + 1
    frames = 0
    with pytest.raises(MalformedStream):
        while frames < 40_000:
            layout.counting.spend(4000 + len(SECRET))
            frames += 1
    assert frames > 7000
    with pytest.raises(MalformedStream):
        without_words(LOSSLESS, stream, layout)
    layout.counting.begin(1 << 30)
    assert layout.counting.left == 1 << 28 and without_words(LOSSLESS, stream, layout) != stream


def test_what_ends_in_text_by_chance_is_far_less_than_may_be_counted():
    random = np.random.default_rng(1)
    tails = [random.bytes(512) for _ in range(4000)]
    assert 0.02 < sum(map(may_be_text, tails)) / len(tails) < 0.12
