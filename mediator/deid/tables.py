"""The standard's facts that gate 0 rests on, read from package data (given as text: nothing is opened here).

* `elements.csv`: PS3.6, every data element with VR, VM and keyword; `uids.txt`: every UID the standard assigns.
* `ps3.15-e1-1.csv`: PS3.15 Table E.1-1, Basic Profile and options.
* `terms.txt`: words that may stay in text that a profile asks to clean.

`deploy/lib/deid_tables.py` writes the first two again and checks the third against a copy of the standard.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from mediator.errors import Malformed

# the files of this package that `parse_standard` wants, by argument name
TABLE_FILES: Mapping[str, str] = {
    "elements": "elements.csv",
    "confidentiality": "ps3.15-e1-1.csv",
    "uids": "uids.txt",
    "terms": "terms.txt",
}


@dataclass(frozen=True)
class Element:
    """One data element of PS3.6: its possible VRs, and the most values it may have (None: no limit)."""

    tag: int
    vrs: tuple[str, ...]
    vm_max: int | None
    retired: bool
    keyword: str


@dataclass(frozen=True)
class Confidentiality:
    """One row of Table E.1-1: the Basic Profile's action code, and the code of each option that has one."""

    name: str
    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Standard:
    """All tables. Elements with a masked group (50xx, 60xx) are left out: no rule names them, so they go."""

    elements: Mapping[int, Element]
    confidentiality: Mapping[int, Confidentiality]
    class_uids: frozenset[str]
    terms: frozenset[str]

    def by_keyword(self) -> Mapping[str, Element]:
        return {element.keyword: element for element in self.elements.values()}


def parse_standard(*, elements: str, confidentiality: str, uids: str, terms: str) -> Standard:
    """The tables from the text of the four files. Raises `Malformed`."""
    try:
        return Standard(
            elements={element.tag: element for element in _elements(elements)},
            confidentiality=_confidentiality(confidentiality),
            class_uids=frozenset(uids.split()),
            terms=frozenset(word.upper() for line in terms.splitlines() for word in _before_comment(line).split()),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Malformed("a table of the standard is damaged") from error


def tag_text(tag: int) -> str:
    """`(gggg,eeee)`, as the standard prints a tag."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _before_comment(line: str) -> str:
    return line.partition("#")[0]


def _elements(text: str) -> list[Element]:
    found = []
    for row in csv.DictReader(text.splitlines()):
        # group 0 is network commands, group 2 file meta: never elements of a dataset
        if "X" in row["tag"].upper() or int(row["tag"][:4], 16) < 8:
            continue
        top = row["vm"].rpartition("-")[2]
        found.append(
            Element(
                tag=int(row["tag"], 16),
                vrs=tuple(row["vr"].split(" or ")),
                vm_max=int(top) if top.isdigit() else None,
                retired=row["retired"] == "R",
                keyword=row["keyword"],
            )
        )
    return found


def _confidentiality(text: str) -> dict[int, Confidentiality]:
    rows = {}
    for row in csv.DictReader(text.splitlines()):
        if "X" in row["tag"]:
            continue  # curves and overlays: removed because no rule names them
        options = dict(entry.split("=") for entry in row["options"].split())
        rows[int(row["tag"], 16)] = Confidentiality(row["name"], row["basic"], options)
    return rows
