"""Files that were read by force: without a preamble, or without a word about their transfer syntax.

Nothing but their content says that they are DICOM, so it must all hold: every element in its place to the end of the
file, tags ascending, SOP class and instance named as UIDs. What fails is what its beginning lacks (`preamble_missing`,
`syntax_missing`); what ends too early is `truncated`.
"""

from __future__ import annotations

import re

from mediator.deid.screening import Exclusion
from node.deid.facts import MEDIA_DIRECTORY, facts_of
from node.deid.reader import Parsed
from node.deid.structure import BIG_ENDIAN, IMPLICIT, MoreNeeded, Unreadable, Walk, is_blank

# What may stand behind the pixels: signatures and padding.
_MAX_TAIL_BYTES = 1 << 20
_DELIMITER_BYTES = 8
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")


def held(parsed: Parsed) -> Parsed:
    """The same file, if it holds. Raises `Unreadable`."""
    doubt = parsed.doubt
    if doubt is None:
        return parsed
    facts = facts_of(parsed)
    if not (_is_uid(facts.sop_class) and (_is_uid(facts.sop_instance) or facts.sop_class == MEDIA_DIRECTORY)):
        raise Unreadable(doubt)
    if parsed.finding is Exclusion.PIXELS_INCONSISTENT:  # compressed, and nobody says how
        raise Unreadable(Exclusion.SYNTAX_MISSING if parsed.is_guessed else doubt)
    if parsed.finding is None and parsed.pixels is not None and not _ends_well(parsed):
        raise Unreadable(doubt)
    return parsed


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _ends_well(parsed: Parsed) -> bool:
    """Whether what follows the pixels is whole elements up to the end, or zeros."""
    assert parsed.pixels is not None
    at = parsed.pixels.end
    if parsed.pixels.fragments is not None:
        at = min(at + _DELIMITER_BYTES, parsed.stream.size)
    if is_blank(parsed.stream, at):
        return True
    data = parsed.stream.read(at, _MAX_TAIL_BYTES)
    walk = Walk(data, parsed.stream.size - at, ">" if parsed.syntax == BIG_ENDIAN else "<", parsed.vr_of, build=False)
    last, at = parsed.pixels.tag, 0
    try:
        while at < len(data):
            tag, _vr, _start, stop = walk.element(at, len(data), implicit=parsed.syntax == IMPLICIT)
            if tag <= last:
                return False
            last, at = tag, stop
    except (Unreadable, MoreNeeded):
        return False
    return True
