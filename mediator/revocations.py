"""What a holder of revocation lists holds to: nothing is taken back because a list was silent about it.

A list of version 1 adds to those before it. One of version 2 names the list before it by hash, and what is `restored`:
every permit that was revoked once and holds again, so that a node which missed a list misses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mediator.signatures import Signed
from mediator.types import RevocationList, RevocationListV2


@dataclass(frozen=True)
class Revocations:
    """Every permit that is revoked, by all lists up to the newest: its number, when it was issued, its hash."""

    number: int
    issued: datetime
    permits: frozenset[str]
    sha256: str


def forks(held: Revocations | None, signed: Signed[RevocationList]) -> bool:
    """Whether a list names another predecessor than the one that is held: the committee signed two of one number."""
    listed = signed.document
    if held is None or not isinstance(listed, RevocationListV2):
        return False
    return held.number == listed.number - 1 and held.sha256 != listed.previous_sha256


def take_up(held: Revocations | None, signed: Signed[RevocationList]) -> Revocations:
    """What holds once a list is taken in whose number is higher than that of what is held.

    1. Whatever is revoked so far, and whatever the list names,
    2. less what it says is restored, unless it forks: who made it did not know what we hold.
    """
    listed = signed.document
    revoked = listed.permits if held is None else held.permits.union(listed.permits)  # (1)
    restored = listed.restored if isinstance(listed, RevocationListV2) and not forks(held, signed) else ()  # (2)
    return Revocations(listed.number, listed.issued, frozenset(revoked) - frozenset(restored), signed.sha256)


def overheard(held: Revocations | None, signed: Signed[RevocationList]) -> Revocations:
    """What ends at once with a list that is not written down yet. It restores nothing: that can wait."""
    listed, before = signed.document, frozenset[str]() if held is None else held.permits
    return Revocations(listed.number, listed.issued, before.union(listed.permits), signed.sha256)


def newest(stored: Revocations | None, heard: Revocations | None) -> Revocations | None:
    """What holds of what is stored and what was only heard."""
    if stored is None or heard is None or stored.number >= heard.number:
        return heard if stored is None else stored
    return Revocations(heard.number, heard.issued, stored.permits | heard.permits, heard.sha256)
