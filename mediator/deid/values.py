"""A rule applied to one text value. What comes back is written; None means the element goes altogether.

`trusted` values are ours (pseudonyms, constants), numbers, or made of listed terms; the residual check may find a
removed word in them by chance. A kept value that is none of these gets no such pardon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mediator.deid.dates import (
    cap_age,
    is_time,
    keep_zone,
    shift_date,
    shift_datetime,
    truncate_date,
    truncate_datetime,
)
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import Action, Rule, Table

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_WORD = re.compile(r"[A-Za-z0-9]+(?:\.[0-9]+[A-Za-z]*)?")
# marks of scanners (B30f, FC08, T2w, 5mm, 1.5T): a letter with at most three digits. Digits alone never: 12.03.65
_MARK = re.compile(r"[A-Za-z]{1,2}\d{1,3}[A-Za-z]?|\d{1,2}(\.\d{1,2})?(mm|cm|T|D|s|kV|min)", re.ASCII | re.IGNORECASE)
# the longest value of the text VRs we ever write (PS3.5 6.2, in characters)
_LONGEST = {
    "CS": 16, "SH": 16, "LO": 64, "PN": 64, "UI": 64, "DS": 16, "IS": 12, "AS": 4, "DA": 8, "TM": 16, "DT": 26,
    "LT": 10240, "ST": 1024, "UC": 10240, "UT": 10240,
}  # fmt: skip
_DUMMIES = {
    "DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "PN": "Anonymous", "DS": "0", "IS": "0",
    "CS": "OTHER", "AE": "ANONYMOUS", "UR": "urn:none", "UI": "", "UN": "", "OB": "", "OW": "",
}  # fmt: skip


# VRs whose every value has a shape: what fits it holds no words
_SHAPES: Mapping[str, Callable[[str], object]] = {
    "DS": _DECIMAL.fullmatch,
    "IS": _INTEGER.fullmatch,
    "UI": _UID.fullmatch,
    "TM": is_time,
    "DA": partial(shift_date, days=0),
    "DT": partial(shift_datetime, days=0),
    "AS": cap_age,
}


@dataclass(frozen=True)
class Subject:
    """Whose data it is: the patient's pseudonym and shift, and the keys for everything else."""

    pseudonyms: Pseudonyms
    patient: str
    shift_days: int
    site: str = ""


@dataclass(frozen=True)
class Written:
    """The values to write, joined by a backslash when encoded, and whether they are beyond doubt."""

    values: tuple[str, ...]
    trusted: bool = True


EMPTY = Written(())


def decide(rule: Rule, vr: str, values: tuple[str, ...], table: Table, subject: Subject) -> Written | None:
    """What is written for an element of text VR `vr` that holds `values`; None: nothing, it is removed."""
    match rule.action:
        case Action.REMOVE | Action.RECURSE:
            return None
        case Action.EMPTY:
            return EMPTY
        case Action.CONSTANT:
            return Written((rule.constant,))
        case Action.DUMMY:
            return Written((_DUMMIES.get(vr, "ANONYMIZED"),))
        case Action.PSEUDONYM:
            name = f"{rule.constant}{subject.patient}"
            return Written((f"{name}^Anonymous" if vr == "PN" else name,))
        case Action.SITE:
            return Written((subject.site,))
        case Action.SITE_HASH:
            return Written((subject.pseudonyms.site(subject.site),))
    if not any(value.strip(" \0") for value in values):
        return EMPTY
    if vr not in rule.vrs or (rule.vm_max is not None and len(values) > rule.vm_max):
        return EMPTY  # not what the standard says the element is: nobody knows what it holds
    return _each(rule, vr, tuple(value.strip(" \0") for value in values), table, subject)


def _each(rule: Rule, vr: str, values: tuple[str, ...], table: Table, subject: Subject) -> Written | None:
    match rule.action:
        case Action.REPLACE_UID:
            return _whole(tuple(_uid(value, table, subject) for value in values))
        case Action.SHIFT_DATE:
            shift = shift_date if vr == "DA" else shift_datetime
            return _whole(tuple(shift(value, subject.shift_days) for value in values))
        case Action.TRUNCATE_DATE:
            cut = truncate_date if vr == "DA" else truncate_datetime
            return _whole(tuple(cut(value) for value in values))
        case Action.KEEP_ZONE:
            return _whole(tuple(keep_zone(value) for value in values))
        case Action.CODE:
            return _whole(tuple(value if value in table.code_values else rule.constant for value in values))
        case Action.MEANING:
            cleaned = _clean(vr, values, table)
            return cleaned if cleaned.values or not rule.constant else Written((rule.constant,))
        case Action.CAP_AGE:
            return _whole(tuple(cap_age(value) for value in values))
        case Action.ACCESSION:
            return Written(tuple(subject.pseudonyms.accession(value) for value in values))
        case Action.LABEL:
            return Written(tuple(v if _listed(v, table.terms) else subject.pseudonyms.label(v) for v in values))
        case Action.CLEAN:
            return _clean(vr, values, table)
    return _keep(vr, values)


def _whole(values: tuple[str, ...]) -> Written:
    """All values or none: a list with a hole would pair the rest wrongly."""
    return Written(values) if all(values) else EMPTY


def _uid(value: str, table: Table, subject: Subject) -> str:
    if value in table.class_uids:
        return value
    return subject.pseudonyms.uid(value) if value else ""


def _keep(vr: str, values: tuple[str, ...]) -> Written:
    fits = _SHAPES.get(vr)
    if fits is None:
        return Written(values, trusted=False)
    # numbers of more than 16 characters are a common fault of scanners, and still only numbers
    limit = 2 * _LONGEST[vr] if vr == "DS" else _LONGEST[vr]
    return Written(values) if all(value == "" or (len(value) <= limit and fits(value)) for value in values) else EMPTY


def _clean(vr: str, values: tuple[str, ...], table: Table) -> Written:
    terms = table.terms
    if vr == "CS":
        # a code string is one term: all its words are listed, or it says nothing; a place left free stays free
        cleaned = tuple(value if not value or _listed(value, terms) else "OTHER" for value in values)
        return Written(cleaned) if any(_listed(value, terms) for value in values) else EMPTY
    if all(value.casefold() in table.code_meanings for value in values):
        return Written(values)  # the text of a code of the standard (`Neoplasm, Primary`) is no longer anybody's own
    words = [word for value in values for word in _WORD.findall(value) if _known(word, terms)]
    text = " ".join(words)[: _LONGEST[vr]].strip()
    return Written((text,)) if text else EMPTY


def _known(word: str, terms: frozenset[str]) -> bool:
    return word.upper() in terms or _MARK.fullmatch(word) is not None


def _listed(value: str, terms: frozenset[str]) -> bool:
    if len(value) > _LONGEST["CS"] or not value.isascii():
        return False
    words = re.split(r"[ _/-]+", value.strip(" _"))
    return value.upper() in terms or all(word.upper() in terms for word in words)
