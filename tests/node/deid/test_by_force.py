"""Files without a preamble or without a transfer syntax: read by force, as dcmtk does, if they hold to their end."""

import json
import struct
import subprocess
import zlib

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion, Note, sort
from mediator.deid.values import Subject
from node.deid.engine import Source, open_engine
from tests.sim.containers import planted_study
from tests.sim.dicom import ct_slice, element, to_bytes
from tests.sim.pictures import as_file, ct, dataset

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("HX-77001234"), 100)
ENGINE = open_engine("eucaim")
PREAMBLE, META = Note.READ_WITHOUT_PREAMBLE, Note.READ_WITHOUT_META
FORMS = {
    ImplicitVRLittleEndian: "Little Endian Implicit",
    ExplicitVRLittleEndian: "Little Endian Explicit",
    ExplicitVRBigEndian: "Big Endian Explicit",
}


def body_of(content: bytes) -> bytes:
    """The dataset alone."""
    return content[144 + struct.unpack_from("<L", content, 140)[0] :]


def without_syntax(content: bytes, *, counted: bool = False) -> bytes:
    """`counted`: the length of the group still has it."""
    at = content.index(b"\2\0\x10\0UI")
    size = 8 + struct.unpack_from("<H", content, at + 6)[0]
    group = struct.unpack_from("<L", content, 140)[0] - (0 if counted else size)
    return content[:140] + struct.pack("<L", group) + content[144:at] + content[at + size :]


BEGINNINGS = {
    "no preamble": (lambda content: content[132:], (PREAMBLE,)),
    "no preamble but DICM": (lambda content: content[128:], (PREAMBLE,)),
    "no syntax": (without_syntax, (META,)),
    "no syntax, but its length": (lambda content: without_syntax(content, counted=True), (META,)),
    "neither": (lambda content: without_syntax(content)[132:], (PREAMBLE, META)),
    "no file meta": (lambda content: content[:132] + body_of(content), (META,)),
    "a dataset alone": (body_of, (PREAMBLE, META)),
}


def verdict(content: bytes) -> Exclusion | None:
    """Why a file is not published by what was read of it."""
    source = ENGINE.read(content)
    if isinstance(source, Exclusion):
        return source
    return next(iter(sort(source.facts, source.finding).reasons), None)


@pytest.mark.parametrize("syntax", FORMS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_its_beginning_does_not_say_its_first_element_does(tmp_path, beginning, syntax):
    whole = to_bytes(ct_slice(), syntax)
    make, notes = BEGINNINGS[beginning]
    source = ENGINE.read(make(whole))
    assert isinstance(source, Source) and source.parsed.syntax == syntax
    done = ENGINE.convert(source, SUBJECT, tmp_path / "out.dcm")
    assert done.exclusion is None and done.notes == notes
    ENGINE.convert(ENGINE.read(whole), SUBJECT, tmp_path / "usual.dcm")
    assert (tmp_path / "out.dcm").read_bytes() == (tmp_path / "usual.dcm").read_bytes()


@pytest.mark.parametrize("syntax", FORMS)
@pytest.mark.parametrize("beginning", [one for one in BEGINNINGS if " but " not in one])
def test_dcmtk_reads_the_same_by_force(tmp_path, beginning, syntax):
    content = BEGINNINGS[beginning][0](to_bytes(ct_slice(), syntax))
    (tmp_path / "in.dcm").write_bytes(content)
    said = subprocess.run(["/usr/bin/dcmdump", "+f", tmp_path / "in.dcm"], capture_output=True, check=True)
    used = [line for line in said.stdout.decode("latin-1").splitlines() if "Used TransferSyntax" in line][-1]
    assert used.endswith(FORMS[ENGINE.read(content).parsed.syntax])


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_what_is_cut_short_never_reads_as_whole(beginning):
    whole = BEGINNINGS[beginning][0](to_bytes(ct_slice()))
    assert verdict(whole) is None
    for size in range(len(whole)):
        assert verdict(whole[:size]) is not None, size
    assert verdict(whole[:-1]) is verdict(whole[:-100]) is Exclusion.TRUNCATED


@pytest.mark.parametrize(
    ("beginning", "word"), [("no syntax", "syntax_missing"), ("a dataset alone", "preamble_missing")]
)
def test_what_does_not_hold_to_its_end_has_the_word_for_what_it_lacks(beginning, word):
    make = BEGINNINGS[beginning][0]
    whole = make(to_bytes(ct_slice()))
    for behind in (b"JANSEN^W", element(0x00100010, b"PN", b"Hartog"), element(0xFFFCFFFC, b"OB", b"xx", 900)):
        assert verdict(whole + behind) == word
    for behind in (bytes(512), element(0xFFFCFFFC, b"OB", b"JANSEN^W")):
        assert verdict(whole + behind) is None
    twice = element(0x00080005, b"CS", b"ISO_IR 100")
    for damaged in (whole.replace(twice, twice * 2, 1), whole.replace(b"\x08\0\x60\0CS", b"\x08\0\x60\0J^", 1)):
        assert len(damaged) >= len(whole) and verdict(damaged) == word
    for missing in (b"\x08\0\x16\0UI", b"\x08\0\x18\0UI"):
        at = whole.index(missing)
        length = struct.unpack_from("<H", whole, at + 6)[0]
        assert verdict(whole[:at] + whole[at + 8 + length :]) == word
        assert verdict(whole[: at + 8] + b"a name".ljust(length) + whole[at + 8 + length :]) == word


def test_nothing_tells_how_pixels_are_compressed(tmp_path):
    whole = as_file(tmp_path / "in.dcm", dataset("CT", ct(1, 64), Modality="CT"), RLELossless, "pydicom").read_bytes()
    for beginning in [one for one, (_make, notes) in BEGINNINGS.items() if META in notes]:
        assert verdict(BEGINNINGS[beginning][0](whole)) is Exclusion.SYNTAX_MISSING, beginning
    source = ENGINE.read(whole[132:])
    assert ENGINE.convert(source, SUBJECT, tmp_path / "out.dcm").notes == (PREAMBLE,)
    plain = pydicom.dcmread(tmp_path / "in.dcm").pixel_array
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, plain)


def test_a_directory_is_one_however_it_begins(tmp_path):
    whole = planted_study(tmp_path).files["dicomdir"].read_bytes()
    for beginning in BEGINNINGS:
        assert verdict(BEGINNINGS[beginning][0](whole)) is Exclusion.MEDIA_DIRECTORY, beginning


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(72))) + chunk(b"IEND", b"")


STRANGE = {
    "text": b"Dear colleague, the picture is enclosed.\n" * 20,
    "json": json.dumps({"00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}}).encode(),
    "png": png(),
    "program": open("/proc/self/exe", "rb").read(1 << 16),  # noqa: SIM115
    "archive": b"PK\x03\x04" + bytes(400),
    "zeros": bytes(4096),
    "nothing": b"",
    "NIfTI": struct.pack("<L", 348) + bytes(344),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_not_dicom_is_named_so(kind):
    assert ENGINE.read(STRANGE[kind]) is Exclusion.NOT_DICOM


PREFIXES = (
    b"",
    b"\x08\0",
    b"\x08\0\5\0CS",
    b"\0\x08\0\5CS",
    b"\x08\0\0\0\4\0\0\0",
    b"\2\0\0\0UL\4\0",
    b"DICM",
    b"\4\0",
)


@given(st.sampled_from(PREFIXES), st.sampled_from(["", *STRANGE]), st.binary(max_size=600))
def test_bytes_of_any_kind_are_never_taken_for_dicom(prefix, kind, noise):
    for content in (prefix + STRANGE.get(kind, b"") + noise, prefix + noise + STRANGE.get(kind, b"")):
        assert verdict(content) is not None
        assert isinstance(ENGINE.read(content), Exclusion)


@given(st.data())
def test_a_dataset_alone_with_bytes_changed_is_whole_or_refused(data):
    """What passes is the picture that was in it, whole; everything else has a reason."""
    content = bytearray(body_of(to_bytes(ct_slice(), data.draw(st.sampled_from(list(FORMS))))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    source = ENGINE.read(bytes(content))
    if isinstance(source, Source) and source.finding is None and source.parsed.pixels is not None:
        assert source.parsed.pixels.end == len(content) and {PREAMBLE, META} <= set(source.parsed.notes)
