"""Coded entries (PS3.3 8.8): code, scheme and meaning that together are the standard's own are nobody's name.

A scheme and a code of PS3.16 stand for themselves, with whatever text; the text stays as a whole only when it is one
the standard gives that code. A hospital's own text beside such a code is text like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

from mediator.deid.rules import ProfileTable

CODE, SCHEME, MEANING = 0x00080100, 0x00080102, 0x00080104
CODED = frozenset({CODE, SCHEME, MEANING})


def coded_tags(said: Mapping[int, str], table: ProfileTable) -> frozenset[int]:
    """Which of the elements of one item (text by tag) stay whatever the patient is called."""
    meanings = table.coded.get((said.get(SCHEME, "").strip(" \0"), said.get(CODE, "").strip(" \0")))
    if meanings is None:
        return frozenset()
    known = said.get(MEANING, "").strip(" \0").casefold() in meanings
    return CODED if known else frozenset({CODE, SCHEME})
