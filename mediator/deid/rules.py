"""What can be done to an element: a closed list of actions, and the compiled table that says which.

A table is a plain mapping from tag to rule. A tag that is not in it is removed; so are all private (odd) groups, group
lengths, curves (50xx) and overlays (60xx), because no compiled table ever names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

# Goes into every fingerprint and manifest: a change of what any action does is another engine.
ENGINE_VERSION = "1"


class Action(StrEnum):
    """What becomes of one element."""

    KEEP = "keep"  # stays when it fits its VR and VM as the standard has them, else it is emptied
    CLEAN = "clean"  # only words of the term list stay
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"  # a constant that fits the VR
    REPLACE_UID = "replace-uid"  # keyed, except for UIDs the standard itself assigns
    SHIFT_DATE = "shift-date"  # earlier by the patient's own number of days
    PSEUDONYM = "pseudonym"  # the patient's keyed pseudonym
    ACCESSION = "accession"  # a keyed number for an order
    CAP_AGE = "cap-age"  # 90 and above become 090Y
    RECURSE = "recurse"  # a sequence: the same table inside every item
    CONSTANT = "constant"  # written by the profile


Dates = Literal["shifted", "removed"]


@dataclass(frozen=True)
class Rule:
    """One element's rule: what is done, why (`source`), and the VRs and number of values that `keep` accepts."""

    action: Action
    source: str
    vrs: tuple[str, ...] = ()
    vm_max: int | None = None
    constant: str = ""


DEFAULT_RULE = Rule(Action.REMOVE, "default: no rule names it")


@dataclass(frozen=True)
class Table:
    """A profile, compiled: a rule for every tag that stays in some form or goes for a stated reason."""

    profile: str
    profile_version: int
    fingerprint: str
    dates: Dates
    codes: tuple[tuple[str, str], ...]  # CID 7050: what was done, as (code, meaning)
    rules: Mapping[int, Rule]
    class_uids: frozenset[str]
    terms: frozenset[str]

    def rule(self, tag: int) -> Rule:
        """The rule for `tag` (group << 16 | element); unknown means removed."""
        return self.rules.get(tag, DEFAULT_RULE)

    @property
    def method(self) -> str:
        """For (0012,0063) De-identification Method: at most 64 characters (LO)."""
        return f"Cloister {self.profile}/{self.profile_version} engine {ENGINE_VERSION} {self.fingerprint[:12]}"
