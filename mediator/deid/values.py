"""A rule applied to one text value. What comes back is written; None means the element goes altogether.

`trusted` values are ours (pseudonyms, constants), numbers, or made of listed terms; the residual check may find a
removed word in them by chance. A kept value that is none of these gets no such pardon.

What a patient's own names and numbers say is no term for this patient (`Subject.own`), but where the whole value is one
the standard itself lists for the attribute (`Rule.terms`): BodyPartExamined HAND of somebody called Hand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from mediator.deid.identifiers import NOBODYS, Own
from mediator.deid.marks import is_mark
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ElementAction, ProfileTable, Rule
from mediator.deid.tables import alike

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_WORD = re.compile(r"[^\W_]+(?:\.[0-9]+[A-Za-z]*)?")
_BETWEEN_WORDS = re.compile(r"[ _/-]+")
# Words that turn round the meaning of what stands with them: without one, nothing that stands there may stay.
_TURNING = frozenset(
    {"NO", "NOT", "NON", "NONE", "WITHOUT", "W", "WO", "OR", "LESS", "MINUS", "EXCEPT", "PREVIOUS", "PRIOR", "BEFORE",
     "AFTER", "POST", "PRE"}
)  # fmt: skip
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


SHAPED = frozenset(_SHAPES)


@dataclass(frozen=True)
class Subject:
    """Whose data it is: the patient's pseudonym and shift, and the keys for everything else.

    `own` is no term for this patient: names and numbers of the patient's files so far. `study_date` is that of the file
    at hand, for profiles that cut dates; "" where nobody knows it.
    """

    pseudonyms: Pseudonyms
    patient: str
    shift_days: int
    site: str = ""
    own: Own = field(default=NOBODYS, repr=False, compare=False)
    study_date: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Written:
    """The values to write, joined by a backslash when encoded, and whether they are beyond doubt."""

    values: tuple[str, ...]
    trusted: bool = True


EMPTY = Written(())


def decide(rule: Rule, vr: str, values: tuple[str, ...], table: ProfileTable, subject: Subject) -> Written | None:
    """What is written for an element of text VR `vr` that holds `values`; None: nothing, it is removed."""
    match rule.action:
        case ElementAction.REMOVE | ElementAction.RECURSE:
            return None
        case ElementAction.EMPTY:
            return EMPTY
        case ElementAction.CONSTANT:
            return Written((rule.constant,))
        case ElementAction.DUMMY:
            return Written((_DUMMIES.get(vr, "ANONYMIZED"),))
        case ElementAction.PSEUDONYM:
            name = f"{rule.constant}{subject.patient}"
            return Written((f"{name}^Anonymous" if vr == "PN" else name,))
        case ElementAction.SITE:
            return Written((subject.site,))
        case ElementAction.SITE_HASH:
            return Written((subject.pseudonyms.site(subject.site),))
    if not any(value.strip(" \0") for value in values):
        return EMPTY
    if vr not in rule.vrs or (rule.vm_max is not None and len(values) > rule.vm_max):
        return EMPTY  # not what the standard says the element is: nobody knows what it holds
    return _each(rule, vr, tuple(value.strip(" \0") for value in values), table, subject)


def _each(rule: Rule, vr: str, values: tuple[str, ...], table: ProfileTable, subject: Subject) -> Written | None:
    match rule.action:
        case ElementAction.REPLACE_UID:
            return _whole(tuple(_uid(value, table, subject) for value in values))
        case ElementAction.SHIFT_DATE:
            shift = shift_date if vr == "DA" else shift_datetime
            return _whole(tuple(shift(value, subject.shift_days) for value in values))
        case ElementAction.TRUNCATE_DATE:
            cut = truncate_date if vr == "DA" else truncate_datetime
            return _whole(tuple(cut(value, subject.study_date) for value in values))
        case ElementAction.KEEP_ZONE:
            return _whole(tuple(keep_zone(value) for value in values))
        case ElementAction.CODE:
            known = (value in table.code_values and not subject.own.is_word(value) for value in values)
            return _whole(tuple(value if one else rule.constant for value, one in zip(values, known, strict=True)))
        case ElementAction.MEANING:
            cleaned = _clean(rule, vr, values, table, subject.own)
            return cleaned if cleaned.values or not rule.constant else Written((rule.constant,))
        case ElementAction.CAP_AGE:
            return _whole(tuple(cap_age(value) for value in values))
        case ElementAction.ACCESSION:
            return Written(tuple(subject.pseudonyms.accession(value) for value in values))
        case ElementAction.LABEL:
            own = subject.own
            return Written(tuple(v if _is_term(v, table, own) else subject.pseudonyms.label(v) for v in values))
        case ElementAction.CLEAN:
            return _clean(rule, vr, values, table, subject.own)
    return _keep(vr, values)


def _whole(values: tuple[str, ...]) -> Written:
    """All values or none: a list with a hole would pair the rest wrongly."""
    return Written(values) if all(values) else EMPTY


def _uid(value: str, table: ProfileTable, subject: Subject) -> str:
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


def _clean(rule: Rule, vr: str, values: tuple[str, ...], table: ProfileTable, own: Own) -> Written:
    if vr == "CS":
        # a code string is one term: all its words are listed, or it says nothing; a place left free stays free
        kept = [value.upper() in rule.terms or _is_term(value, table, own) if value else None for value in values]
        cleaned = tuple("OTHER" if stays is False else value for value, stays in zip(values, kept, strict=True))
        return Written(cleaned) if any(kept) else EMPTY
    if is_standards_own(rule, values):
        return Written(values)
    words = [word for value in values for word in _WORD.findall(unicodedata.normalize("NFC", value))]
    if _is_listed(rule, values) and not own.stand_in(words):
        return Written(values)
    if all(value.casefold() in table.code_meanings for value in values) and not own.stand_in(words):
        return Written(values)  # the text of a code of the standard (`Neoplasm, Primary`) is no longer anybody's own
    words = [word for word in words if _known(word, table.terms, rule.listed)]
    kept_words = own.without(words)
    if len(kept_words) < len(words) and _TURNING.intersection(word.upper() for word in words if own.is_word(word)):
        return EMPTY
    text = " ".join(kept_words)[: _LONGEST[vr]].strip()
    return Written((text,)) if text else EMPTY


def is_standards_own(rule: Rule, values: tuple[str, ...]) -> bool:
    """Whether every value as a whole is a term that the standard lists for the attribute."""
    return bool(rule.terms) and all(not value or value.upper() in rule.terms for value in values)


def _is_listed(rule: Rule, values: tuple[str, ...]) -> bool:
    """Whether every value is one that the attribute's own list has, or of its shape."""
    shape = rule.shape
    if shape is None:
        return bool(rule.listed) and all(not value or alike(value) in rule.listed for value in values)
    return all(not value or alike(value) in rule.listed or shape.fullmatch(value) for value in values)


def _known(word: str, terms: frozenset[str], listed: frozenset[str]) -> bool:
    if not word.isascii():
        return False
    return word.upper() in terms or is_mark(word) or (not word.isdigit() and word.casefold() in listed)


def _is_term(value: str, table: ProfileTable, own: Own) -> bool:
    """Whether a code string is made of listed terms, none of which is this patient's own."""
    if len(value) > _LONGEST["CS"] or not value.isascii():
        return False
    words = _BETWEEN_WORDS.split(value.strip(" _"))
    listed = value.upper() in table.terms or all(word.upper() in table.terms for word in words)
    return listed and not own.stand_in(words)
