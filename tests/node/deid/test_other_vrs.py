"""Elements in another VR or spelling than the standard's: the same number, or told by name."""

import struct

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mediator.deid.mandatory import Mandatory
from mediator.deid.numbers import FORMS, NUMBER_VRS
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction
from mediator.deid.values import Subject
from node.deid.deidentify import Gate0
from node.deid.element import make
from node.deid.engine import open_engine
from node.deid.facts import TEXT_VRS
from node.deid.profiles import load_profile, standard
from node.deid.stream import MemoryStream
from node.deid.structure import LONG_VRS, SHORT_VRS, ElementNode
from tests.sim.dicom import ct_slice, raw_element, to_bytes

KEYED = Pseudonyms(bytes(32), "liver")
SUBJECT = Subject(KEYED, KEYED.patient("1"), 9)
TABLE, MANDATORY = load_profile("eucaim"), Mandatory(standard())
NUMERIC = sorted(
    (tag, rule) for tag, rule in TABLE.rules.items()
    if rule.action is ElementAction.KEEP and rule.vrs and set(rule.vrs) <= NUMBER_VRS
)  # fmt: skip
ALL_VRS = sorted(vr.decode() for vr in LONG_VRS | SHORT_VRS if vr != b"SQ")


def spelled(number: float, vr: str, way: int, little: bool) -> bytes | None:
    """One number as a writer may put it into an element of this VR; None where it has no room."""
    if (form := FORMS.get(vr)) is not None:
        try:
            return struct.pack(("<" if little else ">") + form, number if form in "fd" else int(number))
        except (struct.error, OverflowError):
            return None
    text = f"{number:.6g}"
    return [text, text.replace(".", ","), f"{text} ", f"{text}.0" if text.isdigit() else text][way].encode()


def number_of(vr: str, raw: bytes, little: bool) -> float:
    if vr in ("DS", "IS"):
        return float(raw)
    return float(struct.unpack(("<" if little else ">") + FORMS[vr], raw)[0])


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(NUMERIC), st.sampled_from(ALL_VRS), st.integers(0, 3), st.booleans(),
    st.one_of(st.integers(0, 60000), st.integers(-30000, 30000), st.floats(-1000, 1000).map(lambda x: round(x, 3))),
)  # fmt: skip
def test_every_numeric_element_in_every_vr_is_the_same_number_or_told(entry, vr, way, little, number):
    tag, rule = entry
    raw = spelled(number, vr, way, little)
    if raw is None:
        return
    said = number_of(vr, raw, little) if vr in FORMS else number
    made = make(rule, ElementNode(tag, vr, raw), b"", TABLE, MANDATORY, SUBJECT, little=little)
    if made.missed:
        assert made.node is None or not made.node.value.strip(b" ")
        return
    assert made.node is not None and made.node.vr in rule.vrs
    if vr not in ("UN", "OB"):  # bytes of no stated kind are read as the standard has them
        assert number_of(made.node.vr, made.node.value, little) == pytest.approx(said, rel=1e-6)


@pytest.mark.parametrize(
    "vr", sorted(set(ALL_VRS) & (TEXT_VRS | set(FORMS)) - {"AE", "AS", "DA", "DT", "PN", "TM", "UI", "UR"})
)
def test_a_slope_is_a_slope_in_every_vr_that_holds_numbers(vr):
    rule = TABLE.rule(0x00281053)
    for little in (True, False):
        node = ElementNode(0x00281053, vr, spelled(3, vr, 0, little))
        made = make(rule, node, b"", TABLE, MANDATORY, SUBJECT, little=little)
        assert made.node is not None and (made.node.vr, float(made.node.value), made.missed) == ("DS", 3, False)


def swapped(keyword: str, vr: str, value: bytes):
    dataset = ct_slice()
    dataset.RescaleSlope, dataset.PixelSpacing = 1, [1, 1]
    tag = pydicom.datadict.tag_for_keyword(keyword)
    dataset[tag] = raw_element(tag, vr, value)
    return dataset


def gated(tmp_path, dataset, *, review=True, syntax=ExplicitVRLittleEndian, profile="eucaim"):
    tmp_path.mkdir(exist_ok=True)
    gate = Gate0(open_engine(profile), KEYED, review=review)
    return gate.begin(MemoryStream(to_bytes(dataset, syntax)), tmp_path, lambda _: "a")()


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "now"),
    [
        ("RescaleSlope", "FD", struct.pack("<d", 2.5), 2.5),
        ("RescaleSlope", "LO", b"2.5 ", 2.5),
        ("RescaleSlope", "DS", b"2,5 ", 2.5),
        ("PixelSpacing", "UT", b"0.7\\0.7 ", [0.7, 0.7]),
        ("PixelSpacing", "DS", b"0,7\\0,7 ", [0.7, 0.7]),
        ("ImagePositionPatient", "ST", b"0\\0\\1.0 ", [0, 0, 1]),
        ("ImagePositionPatient", "DS", b"-123.4567890123456789012345678901234567\\1\\4", [-123.45678901234568, 1, 4]),
        ("Rows", "SS", struct.pack("<h", 8), 8),
        ("Rows", "LO", b"8 ", 8),
        ("BitsAllocated", "IS", b"16", 16),
        ("InstanceNumber", "IS", b"1.0 ", 1),
        ("NumberOfFrames", "IS", b"1.0 ", 1),
        ("SeriesNumber", "DS", b"2 ", 2),
        ("StudyDate", "LO", b"20240301", None),
        ("Modality", "LO", b"CT", "CT"),
    ],
)  # fmt: skip
def test_what_is_a_number_stays_that_number_in_the_standards_vr(tmp_path, keyword, vr, value, now):
    outcome = gated(tmp_path, swapped(keyword, vr, value))
    assert (outcome.place, outcome.missed) == ("pass", {})
    out = pydicom.dcmread(outcome.path)
    assert pydicom.datadict.dictionary_VR(keyword) == out[keyword].VR
    if now is not None:
        assert out[keyword].value == now
    else:
        assert out.StudyDate < "20240301" and len(out.StudyDate) == 8


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("RescaleSlope", "DS", b"1.#QNAN "), ("EchoTime", "DS", b"4.6\\9.2 "), ("PixelSpacing", "LO", b"see note"),
        ("RescaleSlope", "FD", struct.pack("<d", float("inf"))), ("BitsStored", "SS", struct.pack("<h", -1)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_where_values_depend_on_it_is_for_a_person(tmp_path, keyword, vr, value):
    dataset = swapped(keyword, vr, value)
    seen = gated(tmp_path / "review", dataset)
    assert (seen.place, [one.value for one in seen.reasons], seen.missed) == (
        "review",
        ["values_unreadable"],
        {keyword: 1},
    )
    assert seen.path.exists()
    alone = gated(tmp_path / "ingest", dataset, review=False)
    assert (alone.place, [one.value for one in alone.reasons], alone.path) == ("refuse", ["values_unreadable"], None)
    assert not list((tmp_path / "ingest").iterdir())


def test_what_nothing_depends_on_is_told_by_keyword_and_published(tmp_path):
    dataset = swapped("Exposure", "IS", b"14.5")
    dataset.ScanOptions = "HARTOG"
    outcome = gated(tmp_path, dataset)
    assert outcome.place == "pass" and outcome.missed == {"Exposure": 1, "ScanOptions": 1}
    assert pydicom.dcmread(outcome.path)["Exposure"].is_empty


def test_what_is_meant_to_go_is_not_told_as_missed(tmp_path):
    assert gated(tmp_path, ct_slice()).missed == {}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_ways_of_writing_elements_tell_the_same(tmp_path, syntax):
    dataset = ct_slice()
    dataset.RescaleSlope = "2.5"
    dataset[0x00280030] = raw_element(0x00280030, "DS", b"0,7\\0,7 ")
    outcome = gated(tmp_path, dataset, syntax=syntax)
    out = pydicom.dcmread(outcome.path)
    assert (outcome.missed, out.RescaleSlope, out.PixelSpacing) == ({}, 2.5, [0.7, 0.7])


def test_the_second_file_of_a_series_is_told_like_the_first(tmp_path):
    """Headers that did not change are not looked at again."""
    gate = Gate0(open_engine("eucaim"), KEYED, review=True)
    for number in range(4):
        dataset = swapped("EchoTime", "DS", b"4.6\\9.2 ")
        dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number}", number
        done = gate.begin(MemoryStream(to_bytes(dataset)), tmp_path, lambda _, n=number: str(n))()
        assert (done.place, done.missed) == ("review", {"EchoTime": 1})


def test_elements_inside_sequences_are_told_too(tmp_path):
    dataset = ct_slice()
    item = pydicom.Dataset()
    item[0x00409225] = raw_element(0x00409225, "DS", b"none")  # Real World Value Slope
    dataset.RealWorldValueMappingSequence = [item]
    outcome = gated(tmp_path, dataset)
    assert (outcome.place, outcome.missed) == ("review", {"RealWorldValueSlope": 1})


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("vr", ["UN", "OB", "LO", "the right one"])
def test_what_the_pixels_sign_decides_has_their_sign(tmp_path, vr, signed):
    """Padding and its limit are US or SS as PixelRepresentation says. Signed pixels come before and after unsigned ones
    of the same bytes: nothing remembered of the one is said of the other."""
    engine = open_engine("eucaim")
    for turn, kind in enumerate((signed, not signed, signed)):
        data, own, right = ct_slice(), -2000 if kind else 63536, "SS" if kind else "US"
        data.PixelRepresentation, data.SOPInstanceUID = int(kind), f"1.2.826.0.1.111.{turn}"
        raw = str(own).encode().ljust(6) if vr == "LO" else struct.pack("<h" if kind else "<H", own)
        for tag in (0x00280120, 0x00280121):
            data[tag] = raw_element(tag, right if vr == "the right one" else vr, raw)
        assert engine.write(engine.read(to_bytes(data)), SUBJECT, tmp_path / f"{turn}") is None
        out = pydicom.dcmread(tmp_path / f"{turn}")
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            assert (out[keyword].VR, out[keyword].value) == (right, own), (turn, keyword)
