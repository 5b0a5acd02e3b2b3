"""Numbers in every VR and spelling: the same number in the standard's VR, or none at all."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator.deid.needed import Needed
from mediator.deid.numbers import FORMS, NUMBER_VRS, as_standard, read
from node.deid.profiles import standard

finite = st.floats(allow_nan=False, allow_infinity=False)
SIZES = {form: struct.calcsize("<" + form) for form in FORMS.values()}
WORDS = ("DS", "IS", "LO", "SH", "LT", "ST", "UC", "UT", "CS")


def spellings(number: float) -> list[str]:
    """Ways in which writers put one number into text."""
    text = repr(number)
    return [
        text,
        text if text.startswith("-") else f"+{text}",
        text.replace(".", ","),
        f" {text} ",
        f"{text}\0",
        f"{number:.17e}",
    ]


@given(finite, st.sampled_from(WORDS), st.integers(0, 5))
def test_a_number_as_text_is_the_same_number_as_ds_and_fd(number, vr, way):
    raw = spellings(number)[way].encode()
    ds, fd = (as_standard((target,), 1, vr, raw, little=True) for target in ("DS", "FD"))
    assert ds is not None and fd is not None and (ds[0], fd[0]) == ("DS", "FD")
    assert float(ds[1]) == number == struct.unpack("<d", fd[1])[0]
    assert len(ds[1]) % 2 == 0 and len(ds[1]) <= 32


@given(st.data(), st.sampled_from(sorted(FORMS)), st.booleans())
def test_a_binary_number_is_the_same_number_as_text(data, vr, little):
    order, form = "<" if little else ">", FORMS[vr]
    raw = data.draw(st.binary(min_size=SIZES[form], max_size=SIZES[form]))
    (number,) = struct.unpack(order + form, raw)
    made = as_standard(("DS",), 1, vr, raw, little=little)
    if not math.isfinite(number):
        assert made is None
        return
    assert made is not None
    again = struct.pack(order + form, float(made[1]) if form in "fd" else int(made[1]))
    assert again == raw or number == 0


@given(st.integers(-(1 << 63), (1 << 64) - 1), st.sampled_from(sorted(NUMBER_VRS - {"DS", "FL", "FD"})), st.booleans())
def test_a_whole_number_is_written_where_it_fits_and_never_another(number, target, little):
    for text in (f"{number}", f"{number}.0", f"{number},00"):
        made = as_standard((target,), 1, "LO", text.encode(), little=little)
        if target == "IS":
            assert made is None if len(str(number)) > 12 else made is not None and int(made[1]) == number
        elif made is not None:
            assert struct.unpack(("<" if little else ">") + FORMS[target], made[1]) == (number,)
        else:
            with pytest.raises(struct.error):
                struct.pack("<" + FORMS[target], number)


@given(st.integers(-(10**9), 10**9), st.integers(1, 9), st.sampled_from(["IS", "US", "SL"]))
def test_what_a_whole_number_cannot_hold_is_not_rounded(whole, tenth, target):
    assert as_standard((target,), 1, "DS", f"{whole}.{tenth}".encode(), little=True) is None


@given(st.text(max_size=20))
@settings(max_examples=300)
def test_what_is_not_a_number_is_not_made_one(text):
    made = read("LO", text.encode(), little=True)
    plain = text.strip(" \0\t\r\n")
    if made is not None:
        assert all(set(one) <= set("0123456789+-.eE") for one in made)
        assert plain.isascii() and not set(plain) - set("0123456789+-.,eE \\\0\t\r\n")


@pytest.mark.parametrize(
    "text", ["1,234.5", "1.2.3", "1 234", "0x10", "1.#QNAN", "nan", "inf", "1e", "--1", "5mm", "١٢"]
)
def test_what_only_looks_like_a_number_is_none(text):
    assert read("LO", text.encode(), little=True) is None


@pytest.mark.parametrize("vr", ["DA", "TM", "DT", "AS", "UI", "PN", "AE", "AT", "UR", "SQ"])
def test_dates_uids_names_and_tags_are_no_numbers(vr):
    assert read(vr, b"20240301", little=True) is None and as_standard(("DS",), 1, vr, b"1234", little=True) is None


@pytest.mark.parametrize("raw", [b"JANSEN  ", b"Jan^", struct.pack("<f", math.nan), struct.pack("<d", 1e300)])
def test_bytes_of_no_stated_kind_are_a_number_only_where_it_could_be_measured(raw):
    assert as_standard(("FD" if len(raw) == 8 else "FL",), None, "UN", raw, little=True) is None
    assert as_standard(("FL",), 1, "UN", struct.pack("<f", 800.0), little=True) == ("FL", struct.pack("<f", 800.0))


def made_of(target: str, raw: bytes) -> bytes:
    text = raw.strip()
    return text + b" " * (len(text) % 2) if target == "DS" else raw


@pytest.mark.parametrize("target", ["FD", "FL", "DS"])
@pytest.mark.parametrize("vr", ["UN", "OB"])
@pytest.mark.parametrize("noise", [6.123233995736766e-17, -1.1368683772161603e-13, 3.749399456654644e-33])
def test_what_rounding_leaves_of_a_zero_is_a_number(target, vr, noise):
    raw = f"1\\{noise} ".encode() if target == "DS" else struct.pack(f"<2{FORMS[target]}", 1.0, noise)
    assert as_standard((target,), 3, vr, raw + b" " * (len(raw) % 2), little=True) == (target, made_of(target, raw))


@pytest.mark.parametrize(
    "raw", [b"19650312", b"MILLER 7", b"R-4711\0\0", struct.pack(">d", 1.0), struct.pack(">d", 800.5)]
)
def test_digits_and_another_order_of_bytes_are_not_what_rounding_leaves(raw):
    assert as_standard(("FD",), None, "UN", raw, little=True) is None


def test_more_numbers_than_the_element_may_have_are_not_cut():
    assert as_standard(("DS",), 1, "DS", b"4.6\\9.2 ", little=True) is None
    assert as_standard(("DS",), 2, "UT", b"0,7\\0,7 ", little=True) == ("DS", b"0.7\\0.7 ")


def test_the_sign_says_which_of_two_vrs_it_is():
    assert as_standard(("US", "SS"), 1, "IS", b"-5", little=True) == ("SS", struct.pack("<h", -5))
    assert as_standard(("US", "SS"), 1, "IS", b"64", little=True) == ("US", struct.pack("<H", 64))


def test_every_needed_element_is_of_the_standard_and_not_retired():
    elements, needed = standard().elements, Needed(standard())
    assert needed.always <= elements.keys() and not [tag for tag in needed.always if elements[tag].retired]


@pytest.mark.parametrize(("modality", "is_needed"), [("PT", True), ("NM", True), ("CT", False)])
def test_a_weight_is_needed_where_an_uptake_is_computed(modality, is_needed):
    assert Needed(standard()).is_needed(0x00101030, modality) is is_needed
