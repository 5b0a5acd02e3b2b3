"""A profile: a small TOML file a hospital can read, compiled to one rule per data element.

For each element of PS3.6 the first of these decides, else it is removed:

1. `[elements]` of the profile, by keyword;
2. Table E.1-1: an option the profile takes (`K` keep, `C` clean or shift), else the Basic Profile's code;
3. `[vr]` of the profile, for elements that are neither retired nor in Table E.1-1.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mediator import canonical
from mediator.deid.rules import ENGINE_VERSION, Action, Dates, Rule, Table
from mediator.deid.tables import Element, Standard
from mediator.errors import Malformed, UnsupportedVersion

# A profile is a page of text; this is fifty pages.
MAX_PROFILE_BYTES = 1 << 17
OPTIONS = frozenset(
    {
        "safe-private", "uids", "device-identity", "institution-identity", "patient-characteristics", "full-dates",
        "modified-dates", "clean-descriptors", "clean-structured-content", "clean-graphics",
    }
)  # fmt: skip
_KEYS = {"format", "name", "version", "title", "options", "dates", "codes", "elements", "vr"}
# CLEAN knows words, not sentences: what is longer than a line is never cleaned, only removed
_CLEANABLE = frozenset({"CS", "LO", "SH"})


@dataclass(frozen=True)
class Profile:
    """What a profile file says, before it is compiled."""

    name: str
    version: int
    title: str
    options: frozenset[str]
    dates: Dates
    codes: tuple[tuple[str, str], ...]
    elements: Mapping[str, str]
    vrs: Mapping[str, Action]


def parse(text: str) -> Profile:
    """The profile in `text` (TOML, format 1). Raises `Malformed`, `UnsupportedVersion`."""
    if len(text) > MAX_PROFILE_BYTES:
        raise Malformed("a de-identification profile is over its size limit")
    try:
        plain = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Malformed("a de-identification profile is not TOML") from error
    if plain.get("format") != 1:
        raise UnsupportedVersion("a de-identification profile of this format is not supported", hint="format = 1")
    if set(plain) != _KEYS:
        wrong = sorted(set(plain) ^ _KEYS)[0]
        raise Malformed(f"a de-identification profile has exactly {', '.join(sorted(_KEYS))}; see {wrong[:40]!r}")
    try:
        return Profile(
            name=_text(plain["name"]),
            version=_number(plain["version"]),
            title=_text(plain["title"]),
            options=frozenset(_text(item) for item in plain["options"]),
            dates=_dates(plain["dates"]),
            codes=tuple((_text(code), _text(meaning)) for code, meaning in plain["codes"].items()),
            elements={key: _text(value) for key, value in plain["elements"].items()},
            vrs={key: Action(value) for key, value in plain["vr"].items()},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed("a de-identification profile holds a value of the wrong type") from error


def compile_profile(profile: Profile, standard: Standard) -> Table:
    """One rule per element. Raises `Malformed` for an option or keyword nobody knows."""
    if unknown := sorted(profile.options - OPTIONS):
        raise Malformed(f"{profile.name}: unknown option {unknown[0][:40]!r}")
    by_keyword = standard.by_keyword()
    if strange := sorted(set(profile.elements) - set(by_keyword)):
        raise Malformed(f"{profile.name}: {strange[0][:40]!r} is no keyword of PS3.6")
    rules = {}
    for tag, element in standard.elements.items():
        rule = _rule(profile, standard, element)
        if rule is not None:
            rules[tag] = rule
    fingerprint = hashlib.sha256(
        canonical.dumps(
            {
                "engine": ENGINE_VERSION,
                "profile": [profile.name, profile.version, profile.dates],
                "codes": [list(code) for code in profile.codes],
                "rules": [[t, r.action.value, r.constant, list(r.vrs), r.vm_max] for t, r in sorted(rules.items())],
                "terms": sorted(standard.terms),
                "class_uids": sorted(standard.class_uids),
            }
        )
    ).hexdigest()
    return Table(
        profile=profile.name,
        profile_version=profile.version,
        fingerprint=fingerprint,
        dates=profile.dates,
        codes=profile.codes,
        rules=rules,
        class_uids=standard.class_uids,
        terms=standard.terms,
    )


def _rule(profile: Profile, standard: Standard, element: Element) -> Rule | None:
    if (wish := profile.elements.get(element.keyword)) is not None:
        name, _, constant = wish.partition(" ")
        return _make(_action(profile, name), f"{profile.name}: {element.keyword}", element, constant)
    row = standard.confidentiality.get(element.tag)
    if row is not None:
        for option in sorted(profile.options & set(row.options)):
            code = row.options[option]
            return _make(_option(code, option, element), f"PS3.15 E.1-1: {option} {code}", element)
        return _make(_basic(row.basic, element), f"PS3.15 E.1-1: {row.basic}", element)
    # an unlisted element stays only when every VR it may have is one the profile trusts
    actions = {profile.vrs.get(vr) for vr in element.vrs}
    if element.retired or len(actions) != 1 or (action := actions.pop()) is None:
        return None
    return _make(action, f"{profile.name}: every {element.vrs[0]}", element)


def _make(action: Action, source: str, element: Element, constant: str = "") -> Rule:
    return Rule(action, source, element.vrs, element.vm_max, constant)


def _basic(code: str, element: Element) -> Action:
    """PS3.15 E.1-1's codes. Where the standard leaves a choice by type (X/Z/D), take the one valid for all types."""
    sequence = element.vrs == ("SQ",)
    if code == "X":
        return Action.REMOVE
    if code in ("Z", "X/Z"):
        return Action.EMPTY
    if code in ("U", "X/Z/U*"):
        return Action.RECURSE if sequence else Action.REPLACE_UID
    if sequence:
        # a dummy sequence: the items stay, and inside them the default is still to remove
        return Action.RECURSE
    return Action.REPLACE_UID if element.vrs == ("UI",) else Action.DUMMY


def _option(code: str, option: str, element: Element) -> Action:
    if element.vrs == ("SQ",):
        return Action.RECURSE
    if option == "modified-dates":
        # time zones (SH) and binary timestamps (OB) have no shift that is known to be right
        shifts: Mapping[str, Action] = {"DA": Action.SHIFT_DATE, "DT": Action.SHIFT_DATE, "TM": Action.KEEP}
        return shifts.get("/".join(element.vrs), Action.REMOVE)
    if option == "patient-characteristics" and element.vrs == ("AS",):
        return Action.CAP_AGE
    if set(element.vrs) <= _CLEANABLE:
        return Action.CLEAN
    return Action.KEEP if code == "K" and not _is_prose(element) else Action.REMOVE


def _is_prose(element: Element) -> bool:
    return bool({"LT", "ST", "UT", "UC", "PN", "OB", "OW", "UN", "UR", "AE"} & set(element.vrs))


def _action(profile: Profile, name: str) -> Action:
    try:
        return Action(name)
    except ValueError as error:
        raise Malformed(f"{profile.name}: unknown action {name[:40]!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise ValueError("not a short line of text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("not a positive integer")
    return value


def _dates(value: Any) -> Dates:
    if value == "shifted":
        return "shifted"
    if value == "removed":
        return "removed"
    raise ValueError("dates are shifted or removed")
