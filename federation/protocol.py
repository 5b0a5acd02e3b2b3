"""The version of what a node's link and its hub say to each other, and which versions understand each other.

A whole number, one more in a release that says something which the release before would not understand. A node and a
hub one apart work together, whichever is older, so that no day has to be agreed on which everybody upgrades. Each says
its own in a header, the link with every request of the control channel, the hub with every answer of its door; neither
does anything else with one that is further away.
"""

from __future__ import annotations

import re

from mediator.errors import Malformed

# 1: 0.1, which did not say its version. 2: 0.2, which does.
PROTOCOL = 2
HEADER = "cloister-protocol"
_UNSAID = 1
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


def read(header: str | None) -> int:
    """The protocol that the other side said. Raises `Malformed` for what is no number."""
    if header is None:
        return _UNSAID
    if not _NUMBER.fullmatch(header):
        raise Malformed(f"{HEADER} is no number")
    return int(header)


def together(one: int, other: int) -> bool:
    """Whether two sides of these versions work together."""
    return abs(one - other) <= 1


def words(*, hub: int, node: int) -> str:
    """What is wrong where they do not, for people at either side."""
    older = "node" if node < hub else "hub"
    return f"the hub speaks protocol {hub} and the node {node}, more than one apart: upgrade the {older}"
