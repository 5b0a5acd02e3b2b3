"""Identifiers as people give them: whole, or by a beginning that only one of those known has."""

from __future__ import annotations

from collections.abc import Iterable

from mediator.errors import UsageFault
from node.cli.output import say

_DIGEST = "sha256:"
# What every identifier of a kind begins with distinguishes none: it need not be given, and does not count.
_COMMON = (_DIGEST, "job-", "file-", "ingest-")
# Shorter is a slip of the finger more often than a name; what only looks may be named by less than what acts.
SHORTEST = 4
# 32 bits of a digest, as much as people compare by eye.
SHORTEST_TO_ACT = 8
# A screenful of candidates; whoever sees more of them lists them.
_SHOWN = 5


def complete(given: str, known: Iterable[str], what: str, *, acts: bool = False) -> str:
    """The one identifier of `known` that is `given` or begins with it; a digest with or without `sha256:`.

    What is known whole is itself, also where others begin with it. `acts`: something is approved, ended or handed out,
    and the beginning must be longer. What matches nothing comes back as it is, for whoever knows better to refuse. A
    completed identifier is said in full. Raises `UsageFault` when several match, or too little was given.
    """
    names = dict.fromkeys(known)
    matches = [name for name in names if _begins(name, given)]
    if given in names or not given or not matches:
        return given
    if (whole := _DIGEST + given) in names:
        return whole
    shortest = SHORTEST_TO_ACT if acts else SHORTEST
    if len(_own(given)) < shortest:
        raise UsageFault(
            f"{given} is too little to name this {what}", hint=f"give at least {shortest} characters, or the whole name"
        )
    if len(matches) > 1:
        more = f" and {len(matches) - _SHOWN} more" if len(matches) > _SHOWN else ""
        raise UsageFault(
            f"{given} may be {len(matches)} different ones: {', '.join(sorted(matches)[:_SHOWN])}{more}",
            hint=f"give more of the {what}",
        )
    say(f"{what} {matches[0]}")
    return matches[0]


def one_of(given: str, known: Iterable[str], what: str, *, acts: bool = False) -> str:
    """`complete`, where everything there is is known: what matches nothing is refused, and what there is is listed."""
    names = list(dict.fromkeys(known))
    found = complete(given, names, what, acts=acts)
    if found not in names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UsageFault(
            f"there is no {what} {given}", hint=f"{what}s there are: {', '.join(names[:_SHOWN]) or 'none'}{more}"
        )
    return found


def _begins(name: str, given: str) -> bool:
    return name.startswith(given) or _own(name).startswith(given)


def _own(name: str) -> str:
    """A name without what all of its kind begin with."""
    for common in _COMMON:
        if name.startswith(common):
            return name.removeprefix(common)
    return name
