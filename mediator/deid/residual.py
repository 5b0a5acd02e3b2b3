"""What must not be found in what was written: the removed and replaced values, and their parts.

A value of at least four characters is looked for whole and by its words, in the bytes it came in and as UTF-8 and
Latin-1, whatever the letter case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Shorter pieces are in every file by chance.
MIN_TOKEN = 4
_SEPARATORS = re.compile(rb"[\x00-\x20\\^=,;:/]+")


def tokens(removed: Iterable[bytes]) -> frozenset[bytes]:
    """Byte strings to look for, lower case: each removed value and each of its words."""
    found: set[bytes] = set()
    for value in removed:
        whole = value.strip(b" \0").lower()
        if len(whole) < MIN_TOKEN:
            continue
        for piece in (whole, *_SEPARATORS.split(whole)):
            if len(piece) >= MIN_TOKEN and piece.strip(b"0.-") and not piece.isspace():
                found.add(piece)
                found |= _in_other_encodings(piece)
    return frozenset(found)


def _in_other_encodings(piece: bytes) -> set[bytes]:
    if piece.isascii():
        return set()
    try:
        other = piece.decode("utf-8").lower().encode("latin-1", "ignore")
    except UnicodeDecodeError:
        other = piece.decode("latin-1").lower().encode()
    return {other} if len(other) >= MIN_TOKEN else set()
