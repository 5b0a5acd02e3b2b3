from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.errors import Code, Denied
from mediator.release.metrics import MAX_METRICS_BYTES, encode, parse
from mediator.types import MetricSpec

SPECS = (
    MetricSpec("loss", "value", -1.0, 100.0, 3),
    MetricSpec("studies", "count", 0, 1000, 0),
)
GOOD = {"loss": 0.123456, "studies": 40}


def _refused(raw: Any, specs: tuple[MetricSpec, ...] = SPECS) -> list[Code]:
    with pytest.raises(Denied) as caught:
        parse(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), specs, 10)
    assert "patient" not in str(caught.value)
    return [reason.code for reason in caught.value.reasons]


def test_permitted_metrics_leave_rounded() -> None:
    released = parse(json.dumps(GOOD).encode(), SPECS, 10)
    assert released == {"loss": 0.123, "studies": 40}
    assert encode(released) == b'{"loss":0.123,"studies":40}'


@given(st.floats(-1.0, 100.0), st.integers(10, 1000))
def test_whatever_leaves_is_in_range_and_has_the_permits_digits(loss: float, studies: int) -> None:
    released = parse(json.dumps({"loss": loss, "studies": studies}).encode(), SPECS, 10)
    assert released["loss"] == round(loss, 3)
    assert math.copysign(1, released["loss"]) == 1 or released["loss"] < 0
    assert len(str(released["loss"]).partition(".")[2]) <= 3
    assert parse(encode(released), SPECS, 10) == released


def test_a_message_in_the_digits_is_rounded_away() -> None:
    assert parse(b'{"loss":0.12300171717,"studies":40}', SPECS, 10) == {"loss": 0.123, "studies": 40}


def test_a_message_in_the_sign_of_zero_is_gone() -> None:
    for text in (b"-0.0", b"-0.0001", b"-0"):
        released = parse(b'{"loss":' + text + b',"studies":40}', SPECS, 10)
        assert math.copysign(1, released["loss"]) == 1


def test_an_extra_metric_is_refused_and_its_name_goes_nowhere() -> None:
    assert _refused(GOOD | {"patient 17": 1}) == [Code.METRIC_NOT_PERMITTED]


def test_a_missing_metric() -> None:
    assert _refused({"loss": 1.0}) == [Code.METRIC_MISSING]


@pytest.mark.parametrize("value", ["patient 17", None, True, [1], {"a": 1}])
def test_a_value_that_is_no_number(value: Any) -> None:
    assert _refused(GOOD | {"loss": value}) == [Code.METRICS_MALFORMED]


@pytest.mark.parametrize("value", [40.0, True, "40"])
def test_a_count_that_is_no_whole_number(value: Any) -> None:
    assert _refused(GOOD | {"studies": value}) == [Code.METRICS_MALFORMED]


def test_a_count_below_the_threshold() -> None:
    for count in (0, 1, 9):
        assert _refused(GOOD | {"studies": count}) == [Code.COUNT_BELOW_THRESHOLD]


@pytest.mark.parametrize("value", [b"100.1", b"-1.1", b"1e999", b"-1e999", b"1" + b"0" * 400])
def test_a_value_out_of_range(value: bytes) -> None:
    assert _refused(b'{"loss":' + value + b',"studies":40}') == [Code.METRIC_OUT_OF_RANGE]


def test_a_number_without_an_exact_print_is_out_of_range() -> None:
    wide = (MetricSpec("n", "count", 0, 1e300, 0),)
    assert _refused({"n": 1 << 53}, wide) == [Code.METRIC_OUT_OF_RANGE]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"loss":NaN}',
        b'{"loss":1,"loss":2}',
        b"{}x",
        b"[" * 4000,
    ],
)
def test_what_is_not_one_strict_json_object(raw: bytes) -> None:
    assert _refused(raw) == [Code.METRICS_MALFORMED]


def test_a_large_file_is_not_even_parsed() -> None:
    padded = json.dumps(GOOD).encode()
    fits = padded + b" " * (MAX_METRICS_BYTES - len(padded))
    assert parse(fits, SPECS, 10)
    assert _refused(fits + b" ") == [Code.METRICS_TOO_LARGE]


def test_an_empty_list_of_metrics_permits_none() -> None:
    assert parse(b"{}", (), 10) == {}
    assert _refused({"loss": 1.0}, ()) == [Code.METRIC_NOT_PERMITTED]


def test_every_reason_is_told_at_once() -> None:
    assert _refused({"patient 17": 1, "studies": 3}) == [
        Code.METRIC_MISSING, Code.METRIC_NOT_PERMITTED, Code.COUNT_BELOW_THRESHOLD
    ]  # fmt: skip
