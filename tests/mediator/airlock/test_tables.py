"""Tables: read strictly, written one way."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.airlock.tables import (
    MAGIC,
    OutputTable,
    check_plain,
    count,
    encode,
    is_formula,
    number,
    parse,
    print_number,
)
from mediator.analysis import MAX_FILE_BYTES
from mediator.errors import Code, Denied

CSV = b"sex,patients\nf,20\nm,30\n"


def read(raw: bytes, kind: str = "csv") -> OutputTable:
    return parse(raw, kind, rows=10, columns=4)  # type: ignore[arg-type]


def test_both_kinds_are_the_same_table() -> None:
    table = read(CSV)
    assert table == OutputTable(("sex", "patients"), (("f", "20"), ("m", "30")))
    assert read(b'[{"sex": "f", "patients": 20}, {"patients": 30, "sex": "m"}]', "json") == table
    assert read(CSV.replace(b"\n", b"\r\n")) == read(CSV.removesuffix(b"\n")) == table
    assert encode(table, "csv", ["sex"]) == CSV
    assert encode(table, "json", ["sex"]) == b'[{"patients":20,"sex":"f"},{"patients":30,"sex":"m"}]'
    assert encode(read(b'{"n": 20.50}', "json"), "json", []) == b'{"n":20.5}'


@pytest.mark.parametrize("raw", [magic + b"\n" for magic in MAGIC] + [b"a" * 128 + b"DICM", b"a,b\x00", "é".encode()])
def test_an_image_an_archive_or_a_binary_under_the_name_of_a_table_is_not_even_read(raw: bytes) -> None:
    with pytest.raises(Denied) as denied:
        check_plain(raw)
    assert denied.value.reasons[0].code is Code.FILE_NOT_PERMITTED


def test_a_polyglot_of_a_table_and_an_archive_is_not_text() -> None:
    with pytest.raises(Denied):
        check_plain(CSV + b"PK\x05\x06" + b"\x00" * 18)
    with pytest.raises(Denied):
        check_plain(b"a" * (MAX_FILE_BYTES + 1))
    check_plain(CSV)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"sex,patients\n", b"sex,patients\nf\n", b"sex,patients\nf,20,1\n", b"sex,sex\nf,20\n",
        b"sex,patients\n\n", b'sex,patients\n"f",20\n',
        b"sex,patients\rf,20\r", b"a,b,c,d,e\n1,2,3,4,5\n", b"a\n" + b"1\n" * 11,
    ],
)  # fmt: skip
def test_a_csv_that_could_be_read_in_two_ways_or_is_too_large_is_refused(raw: bytes) -> None:
    with pytest.raises(Denied) as denied:
        read(raw)
    assert denied.value.reasons[0].code is Code.TABLE_NOT_PERMITTED


@pytest.mark.parametrize(
    "raw",
    [
        b"[]", b"1", b"[1]", b'{"a": true}', b'{"a": [1]}', b'{"a": {"b": 1}}', b'{"a": 1, "a": 2}', b'{"a": NaN}',
        b'[{"a": 1}, {"b": 1}]', b"[" * 100_000, b'{"a": 1} x', b"[" + b",".join([b'{"a":1}'] * 11) + b"]",
    ],
)  # fmt: skip
def test_json_that_is_no_flat_table_is_refused(raw: bytes) -> None:
    with pytest.raises(Denied) as denied:
        read(raw, "json")
    assert denied.value.reasons[0].code is Code.TABLE_NOT_PERMITTED


def test_a_million_rows_are_refused_before_they_are_built() -> None:
    with pytest.raises(Denied, match="more than 10 rows"):
        read(b"a\n" + b"1\n" * 500_000)


@pytest.mark.parametrize("text", ["=1", "+1", "@x", "-x", "|cmd", "%0", "-"])
def test_a_cell_that_a_spreadsheet_would_run(text: str) -> None:
    assert is_formula(text) and not is_formula("-1") and not is_formula("f")


@pytest.mark.parametrize(
    "text", ["1.2345678", "12345.6", "0x10", "1_000", " 1", "1e99", "1e-99", "nan", "inf", "01", ".5"]
)
def test_what_is_no_number_of_few_digits(text: str) -> None:
    assert number(text, 5) is None


@pytest.mark.parametrize(
    ("text", "value"), [("12000", 12000), ("0.5", 0.5), ("-1.25", -1.25), ("1E3", 1000), ("-0", 0)]
)
def test_a_number_has_its_significant_digits(text: str, value: float) -> None:
    assert number(text, 3) == Decimal(str(value))


def test_a_count_is_a_whole_number() -> None:
    assert count("12") == 12 and [count(text) for text in ("1.0", "-1", "", "1e1", "1" * 11)] == [None] * 5


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**6), max_value=10**6))
def test_a_number_has_one_spelling_and_keeps_its_value(value: Decimal) -> None:
    printed = print_number(value)
    assert Decimal(printed) == value and print_number(Decimal(printed)) == printed
    assert "E" not in printed and not printed.startswith("-0,")


@given(st.binary(max_size=200))
def test_whatever_the_bytes_they_are_refused_or_read_and_never_more(raw: bytes) -> None:
    for kind in ("csv", "json"):
        try:
            check_plain(raw)
            table = read(raw, kind)
        except Denied:
            continue
        assert 0 < len(table.rows) <= 10 and all(len(row) == len(table.columns) <= 4 for row in table.rows)
