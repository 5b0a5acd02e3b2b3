"""A life as one table: (state, event) to the state after it. What the table does not have cannot happen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TypeVar

from mediator.errors import IntegrityBroken

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def advance(table: Mapping[tuple[S, E], S], state: S, event: E, what: str) -> S:
    """The state after `event`. Raises `IntegrityBroken` for an event that `what` cannot have in this state."""
    try:
        return table[state, event]
    except KeyError as error:
        raise IntegrityBroken(f"{what} that is {state.value} cannot {event.value}") from error


def mermaid(table: Mapping[tuple[S, E], S], first: S, ended: Collection[S]) -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {first.value}"]
    lines += [f"    {state.value} --> {after.value}: {event.value}" for (state, event), after in table.items()]
    lines += [f"    {state.value} --> [*]" for state in type(first) if state in ended]
    return "\n".join(lines) + "\n"
