"""What can be done to an element: a closed list of actions, and the compiled table that says which.

A table is a plain mapping from tag to rule. A tag that is not in it is removed; so are all private (odd) groups whose
creator and element are not on the safe list, group lengths, curves (50xx) and overlays (60xx), because no compiled
table ever names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mediator.deid.identifiers import Kind

# Goes into every fingerprint and manifest: a change of what any action does is another engine.
ENGINE_VERSION = "5"


class ElementAction(StrEnum):
    """What becomes of one element."""

    KEEP = "keep"  # stays when it fits its VR and VM as the standard has them, else it is emptied
    CLEAN = "clean"  # only words of the term list stay
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"  # a constant that fits the VR
    REPLACE_UID = "replace-uid"  # keyed, except for UIDs the standard itself assigns
    SHIFT_DATE = "shift-date"  # earlier by the patient's own number of days
    TRUNCATE_DATE = "truncate-date"  # to the first of its month; what lies near its study's date moves with it
    KEEP_ZONE = "keep-zone"  # ±HHMM stays, anything else is emptied
    PSEUDONYM = "pseudonym"  # the patient's keyed pseudonym, after the profile's prefix
    ACCESSION = "accession"  # a keyed number for an order
    LABEL = "label"  # a name that others in the file refer to: a term stays, another becomes a keyed one
    SITE = "site"  # the id of the site, as the command or the order names it
    SITE_HASH = "site-hash"  # a keyed number for the site
    CAP_AGE = "cap-age"  # 90 and above become 090Y
    CODE = "code"  # a code or coding scheme of the standard's vocabularies stays, another becomes the constant
    MEANING = "meaning"  # the text of such a code stays, another is cleaned, and the constant when nothing is left
    RECURSE = "recurse"  # a sequence: the same table inside every item
    CONSTANT = "constant"  # written by the profile


Dates = Literal["kept", "shifted", "truncated", "removed"]
# (0028,0303) Longitudinal Temporal Information Modified, PS3.15 E.1.1
TEMPORAL: Mapping[Dates, str] = {
    "kept": "UNMODIFIED",
    "shifted": "MODIFIED",
    "truncated": "MODIFIED",
    "removed": "REMOVED",
}
# which pictures are looked at for text: all, or not those that say they have none (BurnedInAnnotation NO)
LookAt = Literal["every-picture", "unless-no"]
# whose pseudonyms: the hospital's own (stage 1), or those of one project at one site (stage 2)
Scope = Literal["site", "project"]


@dataclass(frozen=True)
class Rule:
    """One element's rule: what is done, why (`source`), and the VRs and number of values that `keep` accepts.

    `terms` are the standard's own for this attribute: as a whole value one of them stays, whoever's name it is.
    `listed` (as `tables.alike` has them) and `shape` are values of it that stay unless the patient is called so.
    """

    action: ElementAction
    source: str
    vrs: tuple[str, ...] = ()
    vm_max: int | None = None
    constant: str = ""
    terms: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    shape: re.Pattern[str] | None = None


DEFAULT_RULE = Rule(ElementAction.REMOVE, "default: no rule names it")


@dataclass(frozen=True)
class ProfileTable:
    """A profile, compiled: a rule for every tag that stays in some form or goes for a stated reason.

    `codes` are those of CID 7050 that hold for every instance; what depends on the instance's pixels (113101, 113102)
    is added by `mediator.deid.statement`. `departs` names keywords whose rule keeps more than the standard allows.
    `identifying` says which elements hold a person's name or number, whatever their rule is.
    """

    profile: str
    profile_version: int
    fingerprint: str
    dates: Dates
    codes: tuple[tuple[str, str], ...]
    rules: Mapping[int, Rule]
    class_uids: frozenset[str]
    terms: frozenset[str]
    scope: Scope = "project"
    look_at: LookAt = "every-picture"
    options: frozenset[str] = frozenset()
    departs: tuple[str, ...] = ()
    private: Mapping[tuple[str, int, int], Rule] = field(default_factory=dict)
    code_values: frozenset[str] = frozenset()
    code_meanings: frozenset[str] = frozenset()
    coded: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    identifying: Mapping[int, Kind] = field(default_factory=dict)

    def rule(self, tag: int) -> Rule:
        """The rule for `tag` (group << 16 | element); unknown means removed."""
        return self.rules.get(tag, DEFAULT_RULE)

    def private_rule(self, creator: str, tag: int) -> Rule:
        """The rule for a private element of the block `creator` reserves: only what the safe list names may stay."""
        return self.private.get((creator.strip(" \0"), tag >> 16, tag & 0xFF), DEFAULT_RULE)

    @property
    def method(self) -> str:
        """For (0012,0063) De-identification Method: at most 64 characters (LO)."""
        return f"Cloister {self.profile}/{self.profile_version} engine {ENGINE_VERSION} {self.fingerprint[:12]}"

    @property
    def temporal(self) -> str:
        """For (0028,0303) Longitudinal Temporal Information Modified."""
        return TEMPORAL[self.dates]
