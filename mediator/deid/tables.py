"""The standard's facts that gate 0 rests on, read from package data (given as text: nothing is opened here).

* `elements.csv`: PS3.6, every data element with VR, VM and keyword; `uids.txt`: every UID the standard assigns.
* `ps3.15-e1-1.csv`: PS3.15 Table E.1-1, Basic Profile and options.
* `codes.csv`: codes of PS3.16's context groups with the meaning the standard gives them.
* `defined-terms.csv`: the terms PS3.3 (for body parts PS3.16 Annex L) lists for an attribute.
* `safe-private.csv`: private elements that hold numbers of the acquisition and nothing else; which of them PS3.15
  Table E.3.10-1 lists, and the others that measurements rest on, by their makers' conformance statements.
* `terms.txt` and `series.txt`: words that may stay in text that a profile asks to clean.
* `kernels.txt`, `models.txt`, `agents.txt`, `structures.txt`: values of single attributes (`LISTS`) that no standard
  enumerates; in these attributes they stay as they are written, unless the patient is called so.

`deploy/lib/deid_tables.py` writes the first four again, from pydicom's dictionaries and from the standard,
`deploy/lib/deid_terms.py` the terms of PS3.3 and TG-263's structures from packages of their facts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mediator.deid.marks import shapes
from mediator.errors import Malformed

# the files of this package that `parse_standard` wants, by argument name
TABLE_FILES: Mapping[str, str] = {
    "elements": "elements.csv",
    "confidentiality": "ps3.15-e1-1.csv",
    "uids": "uids.txt",
    "terms": "terms.txt",
    "codes": "codes.csv",
    "defined": "defined-terms.csv",
    "safe_private": "safe-private.csv",
    "series": "series.txt",
    "kernels": "kernels.txt",
    "models": "models.txt",
    "agents": "agents.txt",
    "structures": "structures.txt",
}
# whose values each list has
LISTS: Mapping[str, tuple[str, ...]] = {
    "kernels": ("ConvolutionKernel",),
    "models": ("ManufacturerModelName",),
    "agents": ("ContrastBolusAgent",),
    "structures": ("ROIName", "ROIObservationLabel", "SegmentLabel"),
}
_BETWEEN = re.compile(r"[\s_-]+")


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
class SafePrivate:
    """One private element known to be safe: its creator's block, its last two digits, and what it may hold.

    `terms` are all it may say where it is a code string. `listed`: PS3.15 Table E.3.10-1 names it.
    """

    creator: str
    group: int
    element: int
    vr: str
    vm_max: int | None
    meaning: str
    terms: frozenset[str] = frozenset()
    listed: bool = True


@dataclass(frozen=True)
class Standard:
    """All tables. Elements with a masked group (50xx, 60xx) are left out: no rule names them, so they go.

    `code_values` holds codes and coding schemes, `code_meanings` their texts in lower case, `coded` the texts by scheme
    and code. `defined` has an attribute's own terms by keyword; `listed` and `shaped` values and patterns of values
    that no standard enumerates for it.
    """

    elements: Mapping[int, Element]
    confidentiality: Mapping[int, Confidentiality]
    class_uids: frozenset[str]
    terms: frozenset[str]
    code_values: frozenset[str] = frozenset()
    code_meanings: frozenset[str] = frozenset()
    coded: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    defined: Mapping[str, frozenset[str]] = field(default_factory=dict)
    safe_private: tuple[SafePrivate, ...] = ()
    listed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    shaped: Mapping[str, re.Pattern[str]] = field(default_factory=dict)

    def by_keyword(self) -> Mapping[str, Element]:
        return {element.keyword: element for element in self.elements.values()}

    def terms_of(self, element: Element) -> frozenset[str]:
        """What an attribute may say in the standard's own words, whoever's name they are; nothing for free text."""
        return self.defined.get(element.keyword, frozenset())


def parse_standard(
    *,
    elements: str,
    confidentiality: str,
    uids: str,
    terms: str,
    codes: str = "",
    defined: str = "",
    safe_private: str = "",
    series: str = "",
    **lists: str,
) -> Standard:
    """The tables from the text of the files. Raises `Malformed`."""
    try:
        values = {name: frozenset(map(alike, _values(text))) for name, text in lists.items()}
        coded = list(csv.DictReader(codes.splitlines()))
        return Standard(
            elements={element.tag: element for element in _elements(elements)},
            confidentiality=_confidentiality(confidentiality),
            class_uids=frozenset(uids.split()),
            terms=frozenset(word.upper() for text in (terms, series) for word in _words(text)),
            code_values=frozenset(row[column] for row in coded for column in ("scheme", "value")),
            code_meanings=frozenset(row["meaning"].casefold() for row in coded),
            coded=_coded(coded),
            defined={
                row["keyword"]: frozenset(row["terms"].split("|")) for row in csv.DictReader(defined.splitlines())
            },
            safe_private=tuple(_safe_private(row) for row in csv.DictReader(safe_private.splitlines())),
            listed={keyword: found for name, found in values.items() for keyword in LISTS[name]},
            shaped=shapes(values.get("agents", ())),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Malformed("a table of the standard is damaged") from error


def _coded(rows: Iterable[Mapping[str, str]]) -> Mapping[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], frozenset[str]] = {}
    for row in rows:
        key = row["scheme"], row["value"]
        found[key] = found.get(key, frozenset()) | {row["meaning"].casefold()}
    return found


def tag_text(tag: int) -> str:
    """`(gggg,eeee)`, as the standard prints a tag."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def alike(value: str) -> str:
    """A value as those of `LISTS` are compared: `Lung_L`, `LUNG L` and `lung-l` are one."""
    return _BETWEEN.sub(" ", value).strip().casefold()


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.partition("#")[0].split()


def _values(text: str) -> Iterator[str]:
    """What stands between bars and ends of lines."""
    for line in text.splitlines():
        yield from filter(None, map(str.strip, line.partition("#")[0].split("|")))


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


def _safe_private(row: Mapping[str, str]) -> SafePrivate:
    return SafePrivate(
        creator=row["creator"],
        group=int(row["group"], 16),
        element=int(row["element"], 16),
        vr=row["vr"],
        vm_max=int(row["vm"]) if row["vm"] else None,
        meaning=row["meaning"],
        terms=frozenset(row["terms"].split("|")) - {""},
        listed=bool(row["listed"]),
    )


def _confidentiality(text: str) -> dict[int, Confidentiality]:
    rows = {}
    for row in csv.DictReader(text.splitlines()):
        if "X" in row["tag"]:
            continue  # curves and overlays: removed because no rule names them
        options = dict(entry.split("=") for entry in row["options"].split())
        rows[int(row["tag"], 16)] = Confidentiality(row["name"], row["basic"], options)
    return rows
