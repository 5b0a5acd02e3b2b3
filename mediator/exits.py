"""How a job's program ended: the codes of exception classes, and how often a run is told more than a plain word."""

from __future__ import annotations

from collections.abc import Mapping

from mediator.errors import EXCEPTIONS, Code, HubCode, hub_code, plain_hub_code, raised_word

OTHER = "other"

# A run that fails this often is mended at home, not here; a hub that asks again and again learns no more from it.
TOLD_PER_RUN = 32

RAISED: Mapping[str, Code] = {name: Code(raised_word(name)) for name in (*EXCEPTIONS, OTHER)}
"""Class name → code. The keeper's list is the same."""

PLAIN = frozenset(plain_hub_code(code) for code in Code) | {HubCode.INTERNAL}
"""The words that say nothing about how a job's program ended."""


def told(code: Code, already: int) -> HubCode:
    """What the hub hears for `code` in a run that was told `already` exit reasons at this site."""
    return hub_code(code) if already < TOLD_PER_RUN else plain_hub_code(code)
