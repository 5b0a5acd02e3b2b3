"""Documents as a person makes them and reads them: what is wrong with one is said in a line."""

from __future__ import annotations

from typing import Any, TypeVar

from mediator import canonical
from mediator.errors import Malformed, UsageFault
from mediator.signatures import peek_kind, peek_payload

D = TypeVar("D", bound=canonical.Document)


def made(kind: type[D], **members: Any) -> D:
    """A document with these members. Raises `UsageFault` with what is wrong with one of them."""
    try:
        return kind(**members)
    except ValueError as error:  # our own words: every document checks itself
        raise UsageFault(str(error), hint=getattr(error, "hint", "")) from error


def unverified(kind: type[D], text: str) -> D:
    """What a signed document says, its signature not looked at. Raises `Malformed`."""
    if peek_kind(text) != kind.KIND:
        raise Malformed(f"not a signed {kind.KIND}")
    return canonical.decode(kind, peek_payload(text))
