"""Dates are compared one by one, by arithmetic of its own: an engine that moves one wrongly writes nothing."""

import pytest

from mediator.deid.rules import ElementAction, Rule
from node.deid.date_check import Moved, date_holds, dates_hold, has_dates, moved_days, study_date
from node.deid.profiles import load_profile
from node.deid.structure import ElementNode

SHIFT, CUT, KEEP, GONE = (
    Rule(action, "test", ("DA",))
    for action in (ElementAction.SHIFT_DATE, ElementAction.TRUNCATE_DATE, ElementAction.KEEP, ElementAction.REMOVE)
)
STUDY_DATE, REGION, DATE_TIME = 0x00080020, 0x00082218, 0x0008002A


@pytest.mark.parametrize(
    ("rule", "vr", "before", "after", "holds"),
    [
        (SHIFT, "DA", "20240301", "20240220", True),
        (SHIFT, "DA", "20240301", "20240221", False),  # another patient's shift
        (SHIFT, "DA", "20240301", "20240301", False),
        (SHIFT, "DA", "2024.03.01", "20240220", True),
        (SHIFT, "DA", "20240301\\20240407", "20240220\\20240328", True),
        (SHIFT, "DA", "20240301\\20240407", "20240220\\20240407", False),
        (SHIFT, "DA", "20240301\\20240407", "20240220", False),
        (SHIFT, "DT", "20240301101530.25+0100", "20240220101530.25+0100", True),
        (SHIFT, "DT", "20240301101530.25+0100", "20240220101530.25+0000", False),
        (SHIFT, "TM", "101530", "101530", False),
        (SHIFT, "DA", "20240301", "", True),
        (CUT, "DA", "20240307", "20240301", True),
        (CUT, "DA", "20240307", "20240307", False),
        (CUT, "DT", "20240307101530", "20240301101530", True),
        (CUT, "DA", "20240307", "20240201", False),
        (KEEP, "TM", "101530", "101530", True),
        (KEEP, "TM", "101530", "101531", False),
        (GONE, "DA", "20240301", "20240301", False),
        (GONE, "DA", "20240301", "20230301", False),
        (GONE, "DA", "20240301", "19000101", True),
    ],
)
def test_a_date_is_what_the_profile_makes_of_it_and_no_other(rule, vr, before, after, holds):
    assert date_holds(rule, vr, before, after, Moved(10)) is holds


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        ("20240314", "20240301", True),
        ("20240315", "20240302", True),  # after midnight
        ("20240308", "20240224", True),
        ("20240313", "20240301", False),  # cut by itself: a day is lost between injection and scan
        ("20240314", "20240314", False),
        ("20240414", "20240401", True),  # of another examination
        ("20240414", "20240402", False),
    ],
)
def test_dates_near_their_studys_are_cut_together(before, after, holds):
    assert date_holds(CUT, "DA", before, after, Moved(10, "20240314")) is holds
    assert date_holds(CUT, "DT", f"{before}2330", f"{after}2330", Moved(10, "20240314")) is holds


def test_a_study_is_dated_by_itself_or_by_its_series():
    assert study_date({0x00080020: "20240301", 0x00080021: "20240302"}) == "20240301"
    assert study_date({0x00080020: "soon", 0x00080022: "2024.03.02"}) == "20240302" and study_date({}) == ""


@pytest.mark.parametrize(("before", "after", "days"), [("20240301", "20230301", 366), ("x", "20230301", None)])
def test_days_are_counted_over_leap_years_and_not_where_there_is_no_date(before, after, days):
    assert moved_days(before, after) == days


def region(value: bytes, times: int = 1) -> ElementNode:
    inner = (ElementNode(DATE_TIME, "DT", value),)
    return ElementNode(REGION, "SQ", items=((ElementNode(REGION, "SQ", items=(inner,) * times),),))


def test_a_date_moved_wrongly_at_any_depth_is_seen():
    table = load_profile("eucaim")
    before = region(b"20240301101530")
    assert has_dates(before) and not has_dates(ElementNode(REGION, "SQ", items=()))
    assert dates_hold(before, region(b"20240220101530"), table, Moved(10))
    assert not dates_hold(before, region(b"20240219101530"), table, Moved(10))
    assert not dates_hold(before, region(b"20240220101530", times=2), table, Moved(10))
    assert not dates_hold(before, before, table, Moved(10))


def test_a_date_that_the_original_does_not_have_is_no_date_of_it():
    table = load_profile("eucaim")
    before = ElementNode(REGION, "SQ", items=((ElementNode(STUDY_DATE, "DA", b"20240301"),),))
    assert not dates_hold(
        before, ElementNode(REGION, "SQ", items=((ElementNode(DATE_TIME, "DT", b"20240220"),),)), table, Moved(10)
    )
