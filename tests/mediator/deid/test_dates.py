from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediator.deid.dates import (
    cap_age,
    is_time,
    keep_zone,
    shift_date,
    shift_datetime,
    truncate_date,
    truncate_datetime,
)

days = st.dates(min_value=date(1901, 1, 1), max_value=date(2100, 1, 1))


@given(days, days, st.integers(1, 3650))
def test_intervals_stay_exact(first, second, shift):
    moved = [shift_date(day.strftime("%Y%m%d"), shift) for day in (first, second)]
    a, b = (date(int(text[:4]), int(text[4:6]), int(text[6:])) for text in moved)
    assert a - b == first - second and first - a == timedelta(days=shift)


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20240229", "20240228"),
        ("20240301", "20240229"),
        ("20230301", "20230228"),
        ("1999.01.01", "19981231"),
        (" 20200101 ", "20191231"),
        ("20230229", ""),
        ("20200101-20200201", ""),
        ("202001", ""),
        ("JANSEN", ""),
        ("00010101", ""),
        ("２０２００１０１", ""),
    ],
)
def test_dates_move_or_vanish(text, moved):
    assert shift_date(text, 1) == moved


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("20240229101112.123456+0130", "20240228101112.123456+0130"),
        ("20240229101112-0500", "20240228101112-0500"),
        ("2024022910", "2024022810"),
        ("20240229", "20240228"),
        ("202402", ""),
        ("20240229101112.1234567", ""),
        ("20240229 JANSEN", ""),
        ("20240229.5", ""),
    ],
)
def test_datetimes_keep_time_fraction_and_zone(text, moved):
    assert shift_datetime(text, 1) == moved


@pytest.mark.parametrize(
    ("text", "capped"),
    [
        ("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("018M", "018M"), ("999M", "999M"), ("003D", "003D"),
        ("89Y", ""), ("JANS", ""), ("", ""),
    ],
)  # fmt: skip
def test_ages_over_89_are_one_group(text, capped):
    assert cap_age(text) == capped


def test_times_are_times():
    assert is_time("101112.5") and is_time("10") and is_time("10:11:12")
    assert not is_time("JANSEN") and not is_time("10111") and not is_time("")


@pytest.mark.parametrize(
    ("text", "cut"),
    [("20240229", "20240201"), ("1999.12.31", "19991201"), ("20230229", ""), ("202402", ""), ("JANSEN", "")],
)
def test_dates_are_cut_to_their_month_or_vanish(text, cut):
    assert truncate_date(text) == cut


def test_a_cut_datetime_keeps_time_fraction_and_zone():
    assert truncate_datetime("20240229101112.123456+0130") == "20240201101112.123456+0130"
    assert truncate_datetime("202402") == truncate_datetime("20240229 JANSEN") == ""


@given(days)
def test_cutting_twice_changes_nothing_more(day):
    once = truncate_date(day.strftime("%Y%m%d"))
    assert truncate_date(once) == once and once.endswith("01")


@pytest.mark.parametrize(("text", "kept"), [("+0100", "+0100"), ("-0330 ", "-0330"), ("0100", ""), ("+9900", "")])
def test_a_zone_is_an_offset_or_nothing(text, kept):
    assert keep_zone(text) == kept


@given(st.dates(date(1950, 1, 8), date(2090, 12, 1)), st.integers(-7, 7), st.integers(-7, 7))
def test_cut_together_dates_of_one_examination_keep_their_distance(study, one, other):
    anchor = study.strftime("%Y%m%d")
    cut = [truncate_date((study + timedelta(days=days)).strftime("%Y%m%d"), anchor) for days in (0, one, other)]
    whole, first, second = (datetime.strptime(text, "%Y%m%d").date() for text in cut)
    assert whole == study.replace(day=1) and (first - second).days == one - other


@given(st.dates(date(1950, 1, 8), date(2090, 12, 1)), st.dates(date(1950, 1, 8), date(2090, 12, 1)))
def test_a_date_of_another_examination_says_no_day(study, day):
    cut = truncate_date(day.strftime("%Y%m%d"), study.strftime("%Y%m%d"))
    assert abs((day - study).days) <= 7 or cut == day.strftime("%Y%m01")
    assert truncate_date(cut, truncate_date(study.strftime("%Y%m%d"))) == cut  # a second time changes nothing
