"""Dates, times and ages as DICOM writes them (PS3.5 6.2): moved by whole days, so that intervals stay exact, or cut to
the first of their month.

Where dates are cut, those of one examination stay together: what lies within `TOGETHER_DAYS` of the study's date moves
by as many days as the study's date does to be the first of its month. Cut one by one, an injection before midnight and
the scan after it were a day apart, at a month's end a month.

A value that is not what its VR says has no safe meaning; the answer is then "" (the element is emptied).
"""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})|(\d{4})\.(\d{2})\.(\d{2})", re.ASCII)  # the second form is ACR-NEMA's
_DATETIME = re.compile(r"(\d{8})((?:\d{2}){0,3}(?:(?<=\d{14})\.\d{1,6})?)([+-]\d{4})?", re.ASCII)
_TIME = re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?|\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?", re.ASCII)
_ZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d", re.ASCII)
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
# the longest from an injection to a scan of the same study (zirconium-89: six days), and a day for midnight
TOGETHER_DAYS = 7
# HIPAA 45 CFR 164.514(b)(2)(i)(C) and common practice: ages over 89 are one group
OLDEST_AGE_YEARS = 90
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}


def shift_date(text: str, days: int) -> str:
    """DA moved `days` into the past; "" where `text` is no date (ranges too: they belong to queries)."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return ""
    year, month, day = (int(part) for part in found.groups() if part is not None)
    try:
        return (date(year, month, day) - timedelta(days=days)).strftime("%Y%m%d").zfill(8)
    except (ValueError, OverflowError):
        return ""


def shift_datetime(text: str, days: int) -> str:
    """DT moved `days` into the past, time, fraction and zone as they were; "" without a full date."""
    found = _DATETIME.fullmatch(text.strip())
    if found is None:
        return ""
    moved = shift_date(found[1], days)
    return moved + found[2] + (found[3] or "") if moved else ""


def truncate_date(text: str, study: str = "") -> str:
    """DA as the first day of its month, or as near to it as it lay to its study's date; "" where `text` is no date.

    `study` is the study's date as `shift_date` writes it, or "" where nobody knows it.
    """
    whole = shift_date(text, 0)
    if not whole or not study:
        return whole[:6] + "01" if whole else ""
    own, anchor = _day(whole), _day(study)
    if abs((own - anchor).days) > TOGETHER_DAYS:
        return whole[:6] + "01"
    return shift_date(whole, anchor.day - 1)


def truncate_datetime(text: str, study: str = "") -> str:
    """DT as its date would be, time, fraction and zone as they were; "" without a full date."""
    whole = shift_datetime(text, 0)
    cut = truncate_date(whole[:8], study) if whole else ""
    return cut + whole[8:] if cut else ""


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def keep_zone(text: str) -> str:
    """An offset from UTC as ±HHMM (moving by whole days does not change it); "" where `text` is none."""
    return text.strip() if _ZONE.fullmatch(text.strip()) else ""


def is_time(text: str) -> bool:
    """Whether `text` is a TM value."""
    return _TIME.fullmatch(text.strip()) is not None


def cap_age(text: str) -> str:
    """AS with everything from 90 years on as `090Y`; "" where `text` is no age."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        return ""
    if int(found[1]) * _DAYS[found[2]] >= OLDEST_AGE_YEARS * _DAYS["Y"]:
        return f"{OLDEST_AGE_YEARS:03d}Y"
    return found[0]
