"""Regenerate or check the tables of the DICOM standard that gate 0 rests on.

    python deploy/lib/deid_tables.py                    write elements.csv, uids.txt and codes.csv (PS3.6, PS3.16)
    python deploy/lib/deid_tables.py --table SOURCE     write ps3.15-e1-1.csv from a copy of PS3.15 Table E.1-1
    python deploy/lib/deid_tables.py --check SOURCE     compare ps3.15-e1-1.csv with that copy

PS3.6 and PS3.16 come through the dictionaries of the installed pydicom. SOURCE is one of

* `part15.xml`, the standard's own DocBook file (https://dicom.nema.org/medical/dicom/current/source/docbook/part15/);
* `confidentiality_profile_attributes.json` of https://github.com/innolitics/dicom-standard (MIT), made from it.

`--table` keeps rows that SOURCE does not hold and says how many: an older source never shortens the table, and a
removed element is removed by default anyway. Exit 0: nothing differs; exit 4: a row differs.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

TABLES = Path(__file__).resolve().parents[2] / "mediator" / "deid" / "tables"
E1_1 = TABLES / "ps3.15-e1-1.csv"
# column of the JSON -> option of ours, in the order of Table E.1-1's columns after "Basic Prof."
OPTIONS = {
    "rtnSafePrivOpt": "safe-private",
    "rtnUIDsOpt": "uids",
    "rtnDevIdOpt": "device-identity",
    "rtnInstIdOpt": "institution-identity",
    "rtnPatCharsOpt": "patient-characteristics",
    "rtnLongFullDatesOpt": "full-dates",
    "rtnLongModifDatesOpt": "modified-dates",
    "cleanDescOpt": "clean-descriptors",
    "cleanStructContOpt": "clean-structured-content",
    "cleanGraphOpt": "clean-graphics",
}
# codes every segmentation, report and PET measurement uses and pydicom's dictionary lacks (PS3.16 CID 7181, CID 84,
# UCUM), and coding schemes of PS3.16 Table 8-1 without codes of their own there
MORE_CODES = (
    ("UCUM", "g", "gram"), ("UCUM", "ml", "milliliter"), ("UCUM", "{pixels}", "pixels"), ("UCUM", "/min", "per minute"),
    ("UCUM", "{SUVbw}g/ml", "Standardized Uptake Value body weight"), ("UCUM", "ml/100ml/s", "ml/100ml/s"),
    ("UCUM", "{SUVlbm}g/ml", "Standardized Uptake Value lean body mass"), ("RFC5646", "en", "English"),
    ("RFC5646", "eng", "English"), ("RFC5646", "en-US", "English (United States)"), ("RFC3066", "en", "English"),
    ("ISO639_2", "eng", "English"), ("ISO3166_1", "US", "United States"), ("SNM3", "T-62000", "Liver"),
    ("99SDM", "T-62000", "Liver"),
)  # fmt: skip
_DOCBOOK = "{http://docbook.org/ns/docbook}"
_ID = "{http://www.w3.org/XML/1998/namespace}id"

Row = tuple[str, str, str, str]  # tag, name, basic code, options


def write_elements() -> None:
    """`elements.csv`: tag, VR, VM, retired, keyword of every data element of PS3.6."""
    rows = [(f"{tag:08X}", *entry) for tag, entry in DicomDictionary.items()]
    rows += [(mask.upper(), *entry) for mask, entry in RepeatersDictionary.items()]
    with (TABLES / "elements.csv").open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tag", "vr", "vm", "retired", "keyword"])
        for tag, vr, vm, _name, retired, keyword in sorted(rows):
            writer.writerow([tag, vr, vm, "R" if retired else "", keyword])


def write_uids() -> None:
    """`uids.txt`: every UID the standard itself assigns (classes, transfer syntaxes, contexts): these name nobody."""
    (TABLES / "uids.txt").write_text("".join(f"{uid}\n" for uid in sorted(UID_dictionary)), encoding="ascii")


def write_codes() -> None:
    """`codes.csv`: scheme, value and meaning of the codes in PS3.16's context groups, SNOMED also in its older form."""
    rows = {
        (scheme, value, " ".join(meaning.split()))
        for scheme, by_keyword in concepts.items()
        for by_value in by_keyword.values()
        for value, (meaning, _groups) in by_value.items()
    }
    meanings = {value: meaning for scheme, value, meaning in rows if scheme == "SCT"}
    rows |= {("SRT", old, meanings[new]) for old, new in mapping["SRT"].items() if new in meanings}
    rows |= set(MORE_CODES)
    with (TABLES / "codes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scheme", "value", "meaning"])
        writer.writerows(sorted(rows))


def read_source(path: Path) -> dict[str, Row]:
    """Table E.1-1 out of the standard's DocBook file or its JSON form, by tag."""
    rows = _from_json(path) if path.suffix == ".json" else _from_docbook(path)
    return {row[0]: row for row in rows}


def _from_json(path: Path) -> list[Row]:
    rows = []
    for entry in json.loads(path.read_text(encoding="utf-8")):
        codes = [entry.get(key, "") for key in OPTIONS]
        if row := _row(entry["name"], entry["tag"], entry["basicProfile"], codes):
            rows.append(row)
    return rows


def _from_docbook(path: Path) -> list[Row]:
    root = ElementTree.parse(path).getroot()  # noqa: S314 - a file of the standard, named by whoever runs this
    (table,) = (found for found in root.iter(f"{_DOCBOOK}table") if found.get(_ID) == "table_E.1-1")
    rows = []
    for line in table.iter(f"{_DOCBOOK}tr"):
        cells = [" ".join("".join(cell.itertext()).split()) for cell in line.iter(f"{_DOCBOOK}td")]
        # name, tag, retired, in a standard IOD, Basic Profile, then the options
        if len(cells) >= 5 + len(OPTIONS) and (row := _row(cells[0], cells[1], cells[4], cells[5:])):
            rows.append(row)
    return rows


def _row(name: str, tag: str, basic: str, codes: list[str]) -> Row | None:
    """None for the row of all private attributes: a rule of its own, not a tag."""
    found = re.match(r"\(?([0-9A-FX]{4}),?([0-9A-FX]{4})\)?$", tag.strip().upper())
    if found is None:
        return None
    options = " ".join(f"{option}={code}" for option, code in zip(OPTIONS.values(), codes, strict=False) if code)
    return found[1] + found[2], name.replace("\u200b", ""), basic, options


def our_rows() -> dict[str, Row]:
    """Table E.1-1 as it stands here."""
    with E1_1.open(newline="", encoding="ascii") as file:
        rows = csv.DictReader(file)
        return {row["tag"]: (row["tag"], row["name"], row["basic"], row["options"]) for row in rows}


def write_table(source: Path) -> int:
    """`ps3.15-e1-1.csv` with every row of SOURCE; how many rows of ours it does not hold and that stay."""
    theirs, ours = read_source(source), our_rows()
    rows = {**ours, **theirs}
    with E1_1.open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tag", "name", "basic", "options"])
        writer.writerows(rows[tag] for tag in sorted(rows))
    return len(ours.keys() - theirs.keys())


def differences(source: Path) -> list[str]:
    """Rows of SOURCE that our copy of Table E.1-1 does not hold with the same codes."""
    ours = our_rows()
    return [
        f"{tag}: {row[2]} [{row[3]}] here {ours.get(tag, ('', '', None, None))[2:]}"
        for tag, row in sorted(read_source(source).items())
        if ours.get(tag, row)[2:] != row[2:] or tag not in ours
    ]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--check", source]:
            found = differences(Path(source))
            print("\n".join(found) or f"{E1_1.name}: nothing differs")
            return 4 if found else 0
        case ["--table", source]:
            print(f"{E1_1.name}: {write_table(Path(source))} rows are not in the source and stay")
            return 0
    write_elements()
    write_uids()
    write_codes()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
