"""Dates compared, element by element: what was written for a date of the original is what the profile says, no other.

They cannot be searched for (a moved date may be another one's original). So every DA, DT and TM of what was written,
at any depth, is set against the original's at the same place, by calendar arithmetic of its own: moved by exactly the
patient's days, cut to its month with its study's date, kept, or a constant; and where a profile removes dates, none
stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from mediator.deid.dates import shift_date
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from node.deid.structure import ElementNode, VrOf, taken_apart

DATE_VRS = frozenset(["DA", "DT", "TM"])
# Dates as near as this to their study's are of one examination, and are cut together (`mediator.deid.dates`).
_TOGETHER_DAYS = 7
STUDY_DATES = (0x00080020, 0x00080021, 0x00080022, 0x00080023)
# what may stand whatever the original was: nothing, and the dummies of `mediator.deid.values` and `mandatory`
_CONSTANTS = frozenset(["", "19000101", "19000101000000", "000000"])


def _unknown(_tag: int) -> str:
    return "UN"


@dataclass(frozen=True)
class Moved:
    """What dates of a file were moved by: the patient's own days, or with its study's date to its month's first."""

    days: int
    study: str = field(default="", repr=False)


class DatesDiffer(Exception):
    """What would be written for a date is not what the profile says."""


def study_date(said: Mapping[int, str]) -> str:
    """The date an examination is dated by, of the values of a header by tag: the study's, or that of the series, the
    acquisition or the content where it has none; "" where none has one."""
    return next((day for tag in STUDY_DATES if (day := shift_date(said.get(tag, ""), 0))), "")


def has_dates(node: ElementNode) -> bool:
    """Whether the element is a date, or holds one at any depth."""
    if node.items is None:
        return node.vr in DATE_VRS
    return any(has_dates(one) for item in node.items for one in item)


def dates_hold(
    before: ElementNode,
    after: ElementNode,
    table: ProfileTable,
    moved: Moved,
    creator: str = "",
    vr_of: VrOf = _unknown,
) -> bool:
    """Whether every date in `after` is what `table` makes of the one in `before`.

    `creator` is the private creator of the block that the element stands in; `vr_of` says what VR a tag has where the
    file does not.
    """
    rule = table.private_rule(creator, before.tag) if before.tag >> 16 & 1 else table.rule(before.tag)
    if rule.vrs == ("SQ",) and "UN" in (before.vr, after.vr):
        before, after = (taken_apart(node, vr_of) if node.vr == "UN" else node for node in (before, after))
    if after.items is None:
        vr = rule.vrs[0] if after.vr == "UN" and rule.vrs else after.vr
        return vr not in DATE_VRS or date_holds(rule, vr, text(before), text(after), moved)
    if rule.action is not ElementAction.RECURSE or before.items is None:
        return not after.items
    if len(before.items) != len(after.items):
        return False
    pairs = zip(before.items, after.items, strict=True)
    return all(_item_holds(old, new, table, moved, vr_of) for old, new in pairs)


def _item_holds(
    before: Iterable[ElementNode], after: Iterable[ElementNode], table: ProfileTable, moved: Moved, vr_of: VrOf
) -> bool:
    old = {node.tag: node for node in before}
    for node in after:
        if node.items is None and node.vr not in DATE_VRS and node.vr != "UN":
            continue
        original = old.get(node.tag)
        if original is None or not dates_hold(original, node, table, moved, _creator(old, node), vr_of):
            return False
    return True


def date_holds(rule: Rule, vr: str, before: str, after: str, moved: Moved) -> bool:
    """Whether `after` is what `rule` makes of the date, time or date and time `before` (backslashes between values)."""
    if after in _CONSTANTS:
        return True
    old, new = before.split("\\"), after.split("\\")
    if len(old) != len(new):
        return False
    pairs = list(zip((value.strip(" \0") for value in old), new, strict=True))
    if rule.action is ElementAction.CONSTANT:
        return after == rule.constant
    if rule.action is ElementAction.KEEP:
        return all(one == other for one, other in pairs)
    if vr == "TM":
        return False
    if rule.action is ElementAction.SHIFT_DATE:
        return all(moved_days(one, other) == moved.days for one, other in pairs)
    if rule.action is ElementAction.TRUNCATE_DATE:
        return all(_is_cut(one, other, moved.study) for one, other in pairs)
    return False


def moved_days(before: str, after: str) -> int | None:
    """How many days `after` lies before `before`, when their times and zones are the same; else None."""
    old, new = _apart(before), _apart(after)
    if old is None or new is None or old[1] != new[1]:
        return None
    return old[0].toordinal() - new[0].toordinal()


def text(node: ElementNode) -> str:
    """The value of a date element, without its padding."""
    return node.value.decode("latin-1").strip(" \0") if node.items is None else ""


def _is_cut(before: str, after: str, study: str) -> bool:
    old, new, anchor = _apart(before), _apart(after), _apart(study)
    if old is None or new is None or old[1] != new[1]:
        return False
    if anchor is None or abs(old[0].toordinal() - anchor[0].toordinal()) > _TOGETHER_DAYS:
        return new[0] == old[0].replace(day=1)
    return new[0].toordinal() - anchor[0].replace(day=1).toordinal() == old[0].toordinal() - anchor[0].toordinal()


def _apart(value: str) -> tuple[date, str] | None:
    """The date, and what follows it."""
    digits = value.replace(".", "", 2) if value[4:5] == "." else value  # ACR-NEMA wrote 2024.03.01
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])), digits[8:]
    except ValueError:
        return None


def _creator(item: dict[int, ElementNode], node: ElementNode) -> str:
    """Who reserved the private block that an element of an item stands in."""
    if not node.tag >> 16 & 1:
        return ""
    reserving = item.get(node.tag & 0xFFFF0000 | node.tag >> 8 & 0xFF)  # PS3.5 7.8.1
    return text(reserving) if reserving is not None else ""
