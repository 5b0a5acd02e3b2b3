"""Names of structures, segments and groups that had to go, told apart by their place: STRUCTURE 1, STRUCTURE 2.

Three regions called alike are one to whoever reads them by name. What the rules left of a name stays; where it was all
taken, or where two different names became one, the item's place in its sequence stands behind it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mediator.deid.mandatory import DUMMY
from node.deid import encoding
from node.deid.residue import plain
from node.deid.structure import ElementNode

# sequence: the name in each of its items, and what it is called when nothing of it stays
_NAMES: Mapping[int, tuple[int, str]] = {
    0x30060020: (0x30060026, "STRUCTURE"),  # ROIName in StructureSetROISequence
    0x00620002: (0x00620005, "SEGMENT"),  # SegmentLabel in SegmentSequence
    0x006A0002: (0x006A0005, "GROUP"),  # AnnotationGroupLabel in AnnotationGroupSequence
}
NAMED_SEQUENCES = frozenset(_NAMES)
_NUMBERED = frozenset(name for name, _word in _NAMES.values())
# PS3.5 6.2: LO holds 64 characters; a blank and five digits go behind
_LONGEST = 58
_GONE = plain(DUMMY.encode())
# longer ones could be somebody's
_ORDINAL = re.compile(r" \d{1,3}$", re.ASCII)

Items = tuple[tuple[ElementNode, ...], ...]


def told_apart(sequence: int, before: Sequence[Sequence[ElementNode]], after: Items) -> tuple[Items, list[bytes]]:
    """A written sequence's items with names that differ where the original's did; and the names that are ours now."""
    if sequence not in _NAMES:
        return after, []
    tag, word = _NAMES[sequence]
    said, made = [_value(tag, item) for item in before], [_value(tag, item) for item in after]
    different = Counter(name for _original, name in set(zip(said, made, strict=True)))
    found, ours = [], []
    for place, (item, original, name) in enumerate(zip(after, said, made, strict=True), start=1):
        if name and (name == _GONE or (different[name] > 1 and name != original)):
            stands = word if name == _GONE else ""
            item = tuple(_numbered(node, stands, place) if node.tag == tag else node for node in item)
            ours += [node.value for node in item if node.tag == tag]
        found.append(item)
    return tuple(found), ours


def without_ordinal(tag: int, text: str) -> str:
    """A name less the place that may stand behind it."""
    return _ORDINAL.sub("", text) if tag in _NUMBERED else text


def is_standing_in(tag: int, text: str) -> bool:
    """Whether a name says only that there was one."""
    return tag in _NUMBERED and without_ordinal(tag, text) in {word for _name, word in _NAMES.values()}


def _value(tag: int, item: Sequence[ElementNode]) -> bytes:
    return next((plain(node.value) for node in item if node.tag == tag and node.items is None), b"")


def _numbered(node: ElementNode, word: str, place: int) -> ElementNode:
    text = word or node.value.decode("utf-8", "replace").strip(" \0")[:_LONGEST].strip()
    return replace(node, value=encoding.text_value(node.vr, [f"{text} {place}"]))
