"""A profile: a small TOML file a hospital can read, compiled to one rule per data element.

For each element of PS3.6 the first of these decides, else it is removed:

1. `[elements]` of the profile, by keyword;
2. Table E.1-1: the strictest code of the options the profile takes (`C` before `K`), else the Basic Profile's code;
3. `[vr]` of the profile, for elements that are neither retired nor in Table E.1-1.

Private elements stay only by the option `safe-private`, and then only those of the safe list. No order of lines in the
file matters: every choice is made by name.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from mediator import canonical
from mediator.deid.identifiers import identifying
from mediator.deid.pseudonyms import NORMALISATION
from mediator.deid.rules import ENGINE_VERSION, Dates, ElementAction, LookAt, ProfileTable, Rule, Scope
from mediator.deid.statement import OPTION_CODES, profile_codes
from mediator.deid.tables import Element, SafePrivate, Standard
from mediator.errors import Malformed, UnsupportedVersion

# A profile is a page of text; this is fifty pages.
MAX_PROFILE_BYTES = 1 << 17
OPTIONS = frozenset(OPTION_CODES)  # PS3.15 E.3, by our names
_KEYS = {"format", "name", "version", "title", "scope", "options", "dates", "elements", "vr"}
_OTHER_KEYS = {"look_at"}
_DATES_OF: Mapping[str, frozenset[Dates]] = {
    "full-dates": frozenset({"kept"}),
    "modified-dates": frozenset({"shifted", "truncated"}),
    "": frozenset({"removed"}),
}
# Dates of vocabularies, devices and committees. Shifted by each patient's own days they would tell them: who knows the
# date knows the days, and who does not knows from two patients how far their days are apart.
SHARED_DATES = frozenset({
    "ContextGroupVersion", "ContextGroupLocalVersion", "TemplateVersion", "TemplateLocalVersion",
    "HangingProtocolCreationDateTime", "EffectiveDateTime", "InformationIssueDateTime", "ProductExpirationDateTime",
    "SOPAuthorizationDateTime", "EthicsCommitteeApprovalEffectivenessStartDate",
    "EthicsCommitteeApprovalEffectivenessEndDate", "CalibrationDate", "CalibrationDateTime", "DateOfLastCalibration",
    "DateTimeOfLastCalibration", "DateOfLastDetectorCalibration", "DateOfManufacture", "DateOfInstallation",
})  # fmt: skip
# what an option's text elements come to: a word of the term list, never a sentence (those only by [elements])
_LINES = frozenset({"CS", "LO", "SH"})
_BYTES = frozenset({"OB", "OW", "UN"})
# what keeps a value or part of it
_RETAINING = frozenset(
    {
        ElementAction.KEEP,
        ElementAction.CLEAN,
        ElementAction.SHIFT_DATE,
        ElementAction.TRUNCATE_DATE,
        ElementAction.KEEP_ZONE,
        ElementAction.CAP_AGE,
    }
)


@dataclass(frozen=True)
class Profile:
    """What a profile file says, before it is compiled."""

    name: str
    version: int
    title: str
    scope: Scope
    options: frozenset[str]
    dates: Dates
    elements: Mapping[str, str]
    vrs: Mapping[str, ElementAction]
    look_at: LookAt = "every-picture"


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
    if wrongs := set(plain) - _OTHER_KEYS ^ _KEYS:
        wrong = sorted(wrongs)[0]
        raise Malformed(f"a de-identification profile has exactly {', '.join(sorted(_KEYS))}; see {wrong[:40]!r}")
    try:
        return Profile(
            name=_name(plain["name"]),
            version=_number(plain["version"]),
            title=_text(plain["title"]),
            scope=_one_of(plain["scope"], get_args(Scope)),
            options=frozenset(_text(item) for item in plain["options"]),
            dates=_one_of(plain["dates"], get_args(Dates)),
            elements={key: _text(value) for key, value in plain["elements"].items()},
            vrs={key: ElementAction(value) for key, value in plain["vr"].items()},
            look_at=_one_of(plain.get("look_at", "every-picture"), get_args(LookAt)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed("a de-identification profile holds a value of the wrong type") from error


def compile_profile(profile: Profile, standard: Standard) -> ProfileTable:
    """One rule per element. Raises `Malformed` for an option or keyword nobody knows, or choices that contradict."""
    by_keyword = standard.by_keyword()
    _check(profile, by_keyword)
    rules = {tag: rule for tag, element in standard.elements.items() if (rule := _rule(profile, standard, element))}
    private = _private(profile, standard)
    departs = tuple(sorted(word for word in profile.elements if _departs(profile, standard, by_keyword[word])))
    return ProfileTable(
        profile=profile.name,
        profile_version=profile.version,
        fingerprint=_fingerprint(profile, standard, rules, private),
        dates=profile.dates,
        codes=profile_codes(profile.options, departs),
        rules=rules,
        class_uids=standard.class_uids,
        terms=standard.terms,
        scope=profile.scope,
        look_at=profile.look_at,
        options=profile.options,
        departs=departs,
        private=private,
        code_values=standard.code_values,
        code_meanings=standard.code_meanings,
        coded=standard.coded,
        identifying=identifying(standard),
    )


def _check(profile: Profile, by_keyword: Mapping[str, Element]) -> None:
    if unknown := sorted(profile.options - OPTIONS):
        raise Malformed(f"{profile.name}: unknown option {unknown[0][:40]!r}", hint=f"one of {sorted(OPTIONS)}")
    if strange := sorted(set(profile.elements) - set(by_keyword)):
        raise Malformed(f"{profile.name}: {strange[0][:40]!r} is no keyword of PS3.6")
    chosen = profile.options & {"full-dates", "modified-dates"}
    if len(chosen) > 1 or profile.dates not in _DATES_OF["".join(chosen)]:
        raise Malformed(
            f"{profile.name}: dates = {profile.dates!r} does not go with its options",
            hint="full-dates: kept; modified-dates: shifted or truncated; neither: removed",
        )


def _fingerprint(
    profile: Profile, standard: Standard, rules: Mapping[int, Rule], private: Mapping[tuple[str, int, int], Rule]
) -> str:
    """SHA-256 over everything that can change what is written."""
    parts = {
        "engine": [ENGINE_VERSION, str(NORMALISATION)],
        "profile": [profile.name, profile.version, profile.dates, profile.scope, *sorted(profile.options)],
        "look_at": profile.look_at,
        "rules": [[t, r.action.value, r.constant, list(r.vrs), r.vm_max] for t, r in sorted(rules.items())],
        "private": [
            [*key, rule.action.value, list(rule.vrs), rule.vm_max, *sorted(rule.terms)]
            for key, rule in sorted(private.items())
        ],
        "terms": sorted(standard.terms),
        "class_uids": sorted(standard.class_uids),
        "codes": _hash_of("\t".join((*key, *sorted(texts))) for key, texts in standard.coded.items()),
        "listed": _hash_of("\t".join((keyword, *sorted(values))) for keyword, values in standard.listed.items()),
        "shaped": _hash_of(f"{keyword}\t{shape.pattern}" for keyword, shape in standard.shaped.items()),
        "defined": _hash_of("\t".join((keyword, *sorted(terms))) for keyword, terms in standard.defined.items()),
    }
    return hashlib.sha256(canonical.dumps(parts)).hexdigest()


def _hash_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _private(profile: Profile, standard: Standard) -> Mapping[tuple[str, int, int], Rule]:
    if "safe-private" not in profile.options:
        return {}
    return {(entry.creator, entry.group, entry.element): _safe(profile, entry) for entry in standard.safe_private}


def _safe(profile: Profile, entry: SafePrivate) -> Rule:
    """A private element's rule: dates as the profile's own, code strings from a list of their own, else numbers."""
    actions = {
        "SQ": ElementAction.RECURSE,
        "CS": ElementAction.CLEAN,
        "DT": {
            "kept": ElementAction.KEEP,
            "shifted": ElementAction.SHIFT_DATE,
            "truncated": ElementAction.TRUNCATE_DATE,
            "removed": ElementAction.REMOVE,
        }[profile.dates],
    }
    source = f"PS3.15 E.3.10: safe private, {entry.meaning}"
    action = actions.get(entry.vr, ElementAction.KEEP)
    return Rule(action, source, (entry.vr,), entry.vm_max, terms=entry.terms)


def _rule(profile: Profile, standard: Standard, element: Element) -> Rule | None:
    if (wish := profile.elements.get(element.keyword)) is not None:
        name, _, constant = wish.partition(" ")
        return _make(standard, _action(profile, name), f"{profile.name}: {element.keyword}", element, constant)
    if (named := _by_table(profile, standard, element)) is not None:
        return named
    # an unlisted element stays only when every VR it may have is one the profile trusts
    actions = {profile.vrs.get(vr) for vr in element.vrs}
    if element.retired or len(actions) != 1 or (action := actions.pop()) is None:
        return None
    return _make(standard, action, f"{profile.name}: every {element.vrs[0]}", element)


def _by_table(profile: Profile, standard: Standard, element: Element) -> Rule | None:
    row = standard.confidentiality.get(element.tag)
    if row is None:
        return None
    taken = sorted((row.options[option], option) for option in profile.options & set(row.options))
    if profile.dates == "shifted" and element.keyword in SHARED_DATES:
        source = f"PS3.15 E.1-1: {row.basic}, a date that many patients share"
        return _make(standard, _basic(row.basic, element), source, element)
    if taken:
        code, option = taken[0]  # C before K
        return _make(standard, _option(profile, code, option, element), f"PS3.15 E.1-1: {option} {code}", element)
    return _make(standard, _basic(row.basic, element), f"PS3.15 E.1-1: {row.basic}", element)


def _departs(profile: Profile, standard: Standard, element: Element) -> bool:
    """Whether the profile keeps by name what Table E.1-1, with the options taken, would not."""
    named, by_table = _rule(profile, standard, element), _by_table(profile, standard, element)
    if named is None or by_table is None or named.action not in _RETAINING:
        return False
    return by_table.action is not named.action and by_table.action is not ElementAction.KEEP


def _make(standard: Standard, action: ElementAction, source: str, element: Element, constant: str = "") -> Rule:
    return Rule(
        action,
        source,
        element.vrs,
        element.vm_max,
        constant,
        standard.terms_of(element),
        standard.listed.get(element.keyword, frozenset()),
        standard.shaped.get(element.keyword),
    )


def _basic(code: str, element: Element) -> ElementAction:
    """PS3.15 E.1-1's codes. Where the standard leaves a choice by type (X/Z/D), take the one valid for all types."""
    sequence = element.vrs == ("SQ",)
    if code == "X":
        return ElementAction.REMOVE
    if code in ("Z", "X/Z"):
        return ElementAction.EMPTY
    if code in ("U", "X/Z/U*"):
        return ElementAction.RECURSE if sequence else ElementAction.REPLACE_UID
    if sequence:
        # a dummy sequence: the items stay, and inside them the default is still to remove
        return ElementAction.RECURSE
    return ElementAction.REPLACE_UID if element.vrs == ("UI",) else ElementAction.DUMMY


def _option(profile: Profile, code: str, option: str, element: Element) -> ElementAction:
    """An option's `K` (keep) or `C` (clean) for an element of these VRs; bytes nobody can read are removed."""
    if element.vrs == ("SQ",):
        return ElementAction.RECURSE
    if set(element.vrs) & _BYTES:
        return ElementAction.REMOVE
    if option in ("full-dates", "modified-dates"):
        return _date(profile.dates, element)
    if option == "patient-characteristics":
        if element.vrs == ("AS",):
            return ElementAction.CAP_AGE
        # a word somebody typed about a patient stays when it is a term
        return ElementAction.CLEAN if set(element.vrs) <= _LINES else ElementAction.KEEP
    if code == "K":
        return ElementAction.KEEP
    return ElementAction.CLEAN if set(element.vrs) <= _LINES else ElementAction.REMOVE


def _date(dates: Dates, element: Element) -> ElementAction:
    if element.vrs == ("SH",):
        return ElementAction.KEEP_ZONE
    if dates == "kept" or element.vrs == ("TM",):
        return ElementAction.KEEP
    return ElementAction.SHIFT_DATE if dates == "shifted" else ElementAction.TRUNCATE_DATE


def _action(profile: Profile, name: str) -> ElementAction:
    try:
        return ElementAction(name)
    except ValueError as error:
        raise Malformed(f"{profile.name}: unknown action {name[:40]!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise ValueError("not a short line of text")
    return value


def _name(value: Any) -> str:
    """A profile's name stands in (0012,0063), beside a version and a fingerprint: at most 24 plain characters."""
    name = _text(value)
    if len(name) > 24 or not name.isascii() or not name.replace("-", "").isalnum():
        raise ValueError("not a name")
    return name


def _number(value: Any) -> int:
    if type(value) is not int or not 1 <= value < 10_000:
        raise ValueError("not a small positive integer")
    return value


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError("not one of the values allowed")
    return value
