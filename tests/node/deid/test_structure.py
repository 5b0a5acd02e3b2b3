"""Hostile and broken files: each a named finding, never a crash, never memory without end."""

import resource
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from mediator.deid.screening import Exclusion
from node.deid.profiles import standard
from node.deid.reader import Parsed, parse
from node.deid.structure import MAX_DEPTH, MAX_INFLATED_BYTES, ElementNode, Unreadable
from tests.sim.dicom import PIXELS, ct_slice, element, raw_file, to_bytes

VRS = {tag: entry.vrs[0] for tag, entry in standard().elements.items()}
NAME = element(0x00100010, b"PN", b"Hartog")
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHL", 0xFFFE, low, 0) for low in (0xE000, 0xE00D, 0xE0DD))


def read(content: bytes) -> Parsed:
    return parse(content, lambda tag: VRS.get(tag, "UN"))


def finding(content: bytes) -> Exclusion:
    with pytest.raises(Unreadable) as caught:
        read(content)
    return caught.value.finding


def test_a_whole_file_is_taken_apart():
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        parsed = read(to_bytes(ct_slice(), syntax))
        assert parsed.pixels is not None and parsed.finding is None
        assert parsed.body[parsed.pixels.start : parsed.pixels.end] == PIXELS
        assert ElementNode(0x00100010, "PN", b"Hartog^Wilhelmina ") in parsed.nodes


@pytest.mark.parametrize("content", [b"", b"DICM", b"\x7fELF" + bytes(400), bytes(132), b"PK\x03\x04" * 90])
def test_what_is_not_dicom_is_named_so(content):
    assert finding(content) is Exclusion.NOT_DICOM


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.94", "1.2.3"])
def test_video_references_and_unknown_syntaxes_are_not_read(syntax):
    assert finding(raw_file(NAME, syntax)) is Exclusion.SYNTAX_NOT_SUPPORTED


def test_a_file_cut_anywhere_never_reads_as_whole():
    whole = to_bytes(ct_slice())
    start = len(whole) - len(PIXELS)
    for size in range(132, len(whole)):
        try:
            parsed = read(whole[:size])
        except Unreadable as problem:
            assert problem.finding in (Exclusion.TRUNCATED, Exclusion.SYNTAX_MISSING)
            continue
        # cut between two elements it is a shorter dataset, without pixels; inside the pixels it is known as truncated
        assert parsed.pixels is None
        assert parsed.finding is (Exclusion.TRUNCATED if size >= start - 4 else parsed.finding)


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 0xFFFF_FFF0])
def test_a_gigantic_length_is_not_believed(length):
    assert finding(raw_file(element(0x00420011, b"OB", b"x" * 10, length))) is Exclusion.TRUNCATED


def test_thousands_of_nested_sequences_do_not_exhaust_the_stack():
    nested = b""
    for _ in range(3000):
        nested = element(
            0x00081140, b"SQ", ITEM[:4] + b"\xff\xff\xff\xff" + nested + ITEM_END + SEQUENCE_END, 0xFFFFFFFF
        )
    assert finding(raw_file(nested)) is Exclusion.TOO_DEEP


def test_depth_is_capped_and_what_is_allowed_still_reads():
    def nested(depth: int) -> bytes:
        inner = NAME
        for _ in range(depth):
            inner = element(0x00081140, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner)
        return raw_file(inner)

    assert read(nested(MAX_DEPTH)).nodes
    assert finding(nested(MAX_DEPTH + 1)) is Exclusion.TOO_DEEP


def test_a_deflate_bomb_stops_at_the_cap():
    machine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = (
        b"".join(machine.compress(bytes(1 << 22)) for _ in range(MAX_INFLATED_BYTES // (1 << 22) + 8)) + machine.flush()
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert finding(raw_file(bomb, DeflatedExplicitVRLittleEndian)) is Exclusion.INFLATE_LIMIT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * MAX_INFLATED_BYTES // 1024


def test_deflated_rubbish_and_a_cut_stream_are_findings():
    whole = to_bytes(ct_slice(), DeflatedExplicitVRLittleEndian)
    assert finding(whole[:-20]) is Exclusion.TRUNCATED
    assert finding(raw_file(b"\xff" * 100, DeflatedExplicitVRLittleEndian)) is Exclusion.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        NAME + NAME,  # twice
        NAME + element(0x00080060, b"CS", b"CT"),  # out of order
        element(0x00100010, b"ZZ", b"ab"),  # no VR
        ITEM + NAME,  # an item outside a sequence
        element(0x00081140, b"SQ", NAME),  # a sequence without an item
        element(0x00081140, b"SQ", ITEM[:4] + b"\xff\xff\xff\xff" + NAME + ITEM_END[:4] + b"\4\0\0\0abcd", 0xFFFFFFFF),
        element(0x00081140, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 400) + NAME) + bytes(600),
    ],
)
def test_contradictions_are_malformed(body):
    assert finding(raw_file(body)) is Exclusion.MALFORMED


def test_un_of_undefined_length_is_read_as_implicit_little_endian():
    inner = struct.pack("<HHL", 0x0010, 0x0010, 6) + b"Hartog"
    body = element(0x00091010, b"UN", ITEM[:4] + b"\xff\xff\xff\xff" + inner + ITEM_END + SEQUENCE_END, 0xFFFFFFFF)
    (node,) = read(raw_file(body)).nodes
    assert node == ElementNode(0x00091010, "SQ", items=((ElementNode(0x00100010, "PN", b"Hartog"),),))


def test_big_endian_numbers_are_read_as_they_are():
    body = struct.pack(">HH2sH", 0x0028, 0x0010, b"US", 2) + struct.pack(">H", 512)
    assert read(raw_file(body, ExplicitVRBigEndian)).nodes == (ElementNode(0x00280010, "US", b"\2\0"),)


def fragments(*parts: bytes) -> bytes:
    items = b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(part)) + part for part in parts)
    return element(0x7FE00010, b"OB", items, 0xFFFFFFFF)


def test_fragments_are_counted_and_whatever_follows_them_is_left_out():
    parsed = read(raw_file(fragments(b"", b"abcd", b"efgh") + SEQUENCE_END + b"trailing Hartog", JPEG2000Lossless))
    assert parsed.pixels is not None and parsed.pixels.fragments == 2
    assert b"Hartog" not in parsed.body[parsed.pixels.start : parsed.pixels.end]


@pytest.mark.parametrize(
    ("body", "syntax", "expected"),
    [
        (fragments(b"", b"abcd")[:-2], JPEG2000Lossless, Exclusion.TRUNCATED),
        (fragments(b"") + b"rubbish!", JPEG2000Lossless, Exclusion.PIXELS_INCONSISTENT),
        (fragments(b"", b"ab") + SEQUENCE_END, ExplicitVRLittleEndian, Exclusion.PIXELS_INCONSISTENT),
        (element(0x7FE00010, b"OW", b"abcd"), JPEG2000Lossless, Exclusion.PIXELS_INCONSISTENT),
        (element(0x7FE00010, b"UT", b"abcd"), ExplicitVRLittleEndian, Exclusion.PIXELS_INCONSISTENT),
        (element(0x7FE00010, b"OW", b"abcd", 400), ExplicitVRLittleEndian, Exclusion.TRUNCATED),
    ],
)
def test_broken_pixel_data_leaves_the_header_known(body, syntax, expected):
    parsed = read(raw_file(NAME + body, syntax))
    assert parsed.finding is expected and parsed.pixels is None
    assert parsed.nodes == (ElementNode(0x00100010, "PN", b"Hartog"),)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_findings_never_crashes(data):
    content = bytearray(to_bytes(ct_slice()))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(132, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        read(bytes(content))
    except Unreadable as problem:
        assert problem.finding in Exclusion
