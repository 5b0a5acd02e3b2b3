"""Tables out of a container, read as strictly as they can be and written in exactly one way.

A CSV file here is lines of cells with commas between them, printable ASCII, without quotes: nothing that a permit
allows to stand in a cell needs any. A JSON file is one flat object (a table of one row), or a list of objects with the
same keys. Both become the same value, and only our own encoding of that value ever leaves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mediator import canonical
from mediator.analysis import MAX_FILE_BYTES, FileType
from mediator.errors import Code, Denied, Reason

# An integer part of 15 digits and the exponents below stay within what a double prints exactly.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?")
_COUNT = re.compile(r"0|[1-9][0-9]{0,8}")
_LARGEST_EXPONENT = 15
# What a spreadsheet may take for a formula (OWASP, "CSV injection"); a minus is one unless a number follows.
_FORMULA = re.compile(r"[=+@|%]|-(?![0-9])")
# Images, archives, documents, arrays and programs, by their first bytes.
MAGIC = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"BM", b"RIFF", b"\x00\x00\x00\x0cjP", b"%PDF",
    b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd",
    b"PAR1", b"\x93NUMPY", b"\x89HDF", b"SQLite format 3", b"\x7fELF", b"\x80\x04", b"\x80\x05", b"\xd0\xcf\x11\xe0",
    b"n+1\x00", b"\\\x01\x00\x00",
)  # fmt: skip
# Part 10 of DICOM: the four letters behind a preamble that may hold anything.
_DICOM_AT = 128
_PRINTABLE = frozenset(range(0x20, 0x7F)) | {0x0A, 0x0D}


@dataclass(frozen=True)
class OutputTable:
    """Column names and rows of texts, as they stood in the file: (rows, columns). An empty text is no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> tuple[str, ...]:
        at = self.columns.index(name)
        return tuple(row[at] for row in self.rows)

    def without(self, names: Sequence[str]) -> OutputTable:
        kept = [at for at, name in enumerate(self.columns) if name not in names]
        return OutputTable(
            tuple(self.columns[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in self.rows)
        )


def check_plain(raw: bytes) -> None:
    """Refuse what is not plain text, before anything reads it: images, archives, binaries, control characters.

    Raises `Denied` (`file_not_permitted`).
    """
    if len(raw) > MAX_FILE_BYTES:
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, f"over {MAX_FILE_BYTES} bytes"))
    if raw.startswith(MAGIC) or raw[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, "an image, an archive or a program under another name"))
    if not _PRINTABLE.issuperset(raw):
        raise Denied(Reason(Code.FILE_NOT_PERMITTED, "not printable ASCII"))


def parse(raw: bytes, kind: FileType, *, rows: int, columns: int) -> OutputTable:
    """The table in `raw`, which `check_plain` has passed. Raises `Denied` (`table_not_permitted`).

    1. At most `rows` rows and `columns` columns, at least one of each; counted before they are built.
    2. Column names are different from one another, and every row has a cell for each.
    3. CSV: no quotes, no empty line. JSON: flat, no duplicate key, no boolean, nothing but numbers, texts and null.
    """
    return _parse_csv(raw, rows, columns) if kind == "csv" else _parse_json(raw, rows, columns)


def encode(table: OutputTable, kind: FileType, labels: Sequence[str]) -> bytes:
    """The one file of this kind for these values: numbers printed anew, JSON canonical, lines ended by `\\n`."""
    printed = [
        [cell if name in labels or not cell else print_number(Decimal(cell)) for name, cell in _cells(table, row)]
        for row in table.rows
    ]
    if kind == "csv":
        return "".join(",".join(line) + "\n" for line in [list(table.columns), *printed]).encode("ascii")
    members = [
        {name: cell if name in labels else _plain(cell) for name, cell in zip(table.columns, line, strict=True)}
        for line in printed
    ]
    return canonical.dumps(members[0] if len(members) == 1 else members)


def number(text: str, digits: int) -> Decimal | None:
    """The number in a cell, or None for anything else, and for more than `digits` significant digits."""
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text).normalize()
    if len(value.as_tuple().digits) > digits or (value and abs(value.adjusted()) > _LARGEST_EXPONENT):
        return None
    return value


def count(text: str) -> int | None:
    """The whole number in a cell of counts, or None."""
    return int(text) if _COUNT.fullmatch(text) else None


def is_formula(text: str) -> bool:
    """Whether a spreadsheet could run this cell."""
    return _FORMULA.match(text) is not None


def print_number(value: Decimal) -> str:
    """The one spelling of a number: no exponent, no zeros that say nothing, no minus before zero."""
    return format(value.normalize(), "f") if value else "0"


def _parse_csv(raw: bytes, rows: int, columns: int) -> OutputTable:
    text = raw.decode("ascii").replace("\r\n", "\n").removesuffix("\n")
    if "\r" in text or '"' in text:  # (3)
        raise _refused("a quote, or a line end of another kind")
    if text.count("\n") > rows:  # (1) the first line holds the names
        raise _refused(f"more than {rows} rows")
    lines = [tuple(line.split(",")) for line in text.split("\n")]
    return _table(lines[0], lines[1:], columns)


def _parse_json(raw: bytes, rows: int, columns: int) -> OutputTable:
    try:
        found = json.loads(raw, object_pairs_hook=_members, parse_int=str, parse_float=str, parse_constant=_members)
    except Exception:  # noqa: BLE001 - without a word of what it met, which is a patient's perhaps
        raise _refused("not strict JSON") from None
    members = found if isinstance(found, list) else [found]
    if not members or not all(isinstance(entry, dict) for entry in members):
        raise _refused("not a flat object, nor a list of them")
    if len(members) > rows:  # (1)
        raise _refused(f"more than {rows} rows")
    names = tuple(members[0])
    if any(set(entry) != set(names) for entry in members):
        raise _refused("objects with different keys")
    lines = [tuple("" if entry[name] is None else entry[name] for name in names) for entry in members]
    if not all(isinstance(cell, str) for line in lines for cell in line):
        raise _refused("a value that is no number, text or null")
    return _table(names, lines, columns)


def _table(names: tuple[str, ...], lines: Sequence[tuple[str, ...]], columns: int) -> OutputTable:
    if not lines or not 0 < len(names) <= columns:  # (1)
        raise _refused(f"no row, or not 1 to {columns} columns")
    if len(set(names)) != len(names) or any(len(line) != len(names) for line in lines):  # (2)
        raise _refused("a column stands twice, or a row has another number of cells")
    return OutputTable(names, tuple(lines))


def _members(pairs: Any) -> dict[str, Any]:
    members = dict(pairs)  # for NaN and infinity a text comes in, which is no list of pairs
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _cells(table: OutputTable, row: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(table.columns, row, strict=True))


def _plain(printed: str) -> int | float | None:
    if not printed:
        return None
    return float(printed) if "." in printed else int(printed)


def _refused(rule: str) -> Denied:
    return Denied(Reason(Code.TABLE_NOT_PERMITTED, rule))
