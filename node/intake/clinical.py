"""The clinical table: identifiers become pseudonyms, named columns survive value by value, the rest is never read on.

1. UTF-8 CSV of at most `MAX_CSV_BYTES` with the columns PatientID and StudyInstanceUID, and every column of the order;
   every row has as many cells as the first line, or a value might stand under another's name. A table of which no row
   could ever count is refused: it is another table than the one that was meant.
2. A row counts when its study was published for that very patient; a study with two rows has none.
3. A value stays when the order's column accepts it (a number within bounds, a listed category), else it is null.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mediator.deid.pseudonyms import Pseudonyms
from mediator.errors import UsageFault
from mediator.import_orders import Column
from mediator.types import Study

# A hundred thousand studies with a page of columns each.
MAX_CSV_BYTES = 1 << 26
_SAVE_AS = "save it as CSV UTF-8, with commas"
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
PATIENT_COLUMN, STUDY_COLUMN = "PatientID", "StudyInstanceUID"

Row = dict[str, float | str | None]


class Clinical:
    """The clinical values of an order, by study pseudonym."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._rows: dict[str, tuple[str, Row]] = {}
        self._twice: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._named = 0

    def read(self, raw: bytes, pseudonyms: Pseudonyms) -> None:
        """Take a CSV file in. Raises `UsageFault`, which says no cell of the file: in a file without its first line,
        even a column's name is a patient's."""
        if len(raw) > MAX_CSV_BYTES:
            raise UsageFault("the clinical file is over its size limit", hint=f"at most {MAX_CSV_BYTES >> 20} MiB")
        try:
            reader = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
            header = next(reader, [])
            places = self._places(header)  # (1)
            for cells in filter(None, reader):
                if len(cells) != len(header):
                    raise UsageFault(
                        f"line {reader.line_num} of the clinical file has {len(cells)} cells, its first {len(header)}",
                        hint="a cell with a comma in it stands between double quotes",
                    )
                self._row([cells[place] for place in places], pseudonyms)
        except (UnicodeDecodeError, csv.Error):
            raise UsageFault(
                "the clinical file is not CSV in UTF-8", hint="save it as CSV UTF-8, with commas"
            ) from None
        self._check_rows()
        for study in self._twice:
            self._rows.pop(study, None)
            self.refused["study_twice"] += 1

    def _places(self, header: Sequence[str]) -> list[int]:
        """Where the identifiers and the ordered columns stand. Only what the order names is ever named."""
        wanted = [PATIENT_COLUMN, STUDY_COLUMN, *(column.name for column in self._columns)]
        if twice := [name for name in wanted if header.count(name) > 1]:
            raise UsageFault(
                f"the clinical file has the column {twice[0]} twice", hint="rename one of them in the file"
            )
        missing = [name for name in wanted if name not in header]
        if not missing:
            return [header.index(name) for name in wanted]
        alike = {cell.strip().casefold() for cell in header}
        hint = f"its first line names its columns; wanted are {', '.join(wanted)}"
        if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
            hint = f"its cells are not separated by commas: {_SAVE_AS}"
        elif otherwise := [name for name in missing if name.casefold() in alike]:
            hint = f"in other letters, or with blanks, it has {', '.join(otherwise)}: rename that in the file"
        raise UsageFault(f"the clinical file has no column {', '.join(missing)}", hint=hint)

    def _row(self, cells: Sequence[str], pseudonyms: Pseudonyms) -> None:
        patient, study_uid, *texts = cells
        self._named += bool(patient.strip()) and bool(_UID.fullmatch(study_uid.strip()))
        study = pseudonyms.study(study_uid)
        row: Row = {}
        for column, text in zip(self._columns, texts, strict=True):
            row[column.name] = column.accept(text)  # (3)
            self._accepted[column.name] += row[column.name] is not None
            if row[column.name] is None and text.strip() and study not in self._rows:
                self.refused[column.name] += 1
        if study in self._rows:
            self._twice.add(study)  # (2)
        else:
            self._rows[study] = (pseudonyms.patient(patient), row)

    def _check_rows(self) -> None:
        """What would end, after all the work, in a dataset without a single label."""
        if not self._rows:
            raise UsageFault("the clinical file has no row under its first line")
        if not self._named:
            raise UsageFault(
                f"no row of the clinical file has a {PATIENT_COLUMN} and a UID under {STUDY_COLUMN}",
                hint="a spreadsheet may have made numbers of them: make those columns text",
            )
        for column in self._columns:
            if not self._accepted[column.name]:
                allowed = (
                    f"one of {', '.join(column.categories)}"
                    if column.kind == "category"
                    else f"a number of {column.minimum:g} to {column.maximum:g}"
                )
                raise UsageFault(
                    f"no row of the clinical file has a value for {column.name} that --column allows",
                    hint=f"allowed is {allowed}",
                )
        if len(self._twice) == len(self._rows):
            raise UsageFault("every study has several rows in the clinical file", hint="one row for each study")

    def of(self, study: str, patient_alone: str) -> Row | None:
        """The row of a published study, if it speaks of the same patient. (2)"""
        patient, row = self._rows.get(study, ("", None))
        return row if patient == patient_alone else None

    def contradicts(self, study: str, patient_alone: str) -> bool:
        """Whether there is a row of this study that speaks of another patient."""
        return study in self._rows and self._rows[study][0] != patient_alone

    def is_label(self, row: Row | None) -> bool:
        """Whether a study has a value in every ordered column."""
        return row is not None and bool(self._columns) and all(value is not None for value in row.values())

    @property
    def types(self) -> dict[str, str]:
        """Column name to Arrow type, as the manifest names them."""
        return {column.name: "double" if column.kind == "number" else "string" for column in self._columns}

    def write(self, path: Path, rows: Sequence[tuple[Study, Row | None]]) -> None:
        """`clinical.parquet`: study, patient, split and the ordered columns; equal rows give equal bytes.

        A published study without a row has nulls: the table, and so the version's id, covers every study's split.
        """
        kinds = {name: pa.float64() if kind == "double" else pa.string() for name, kind in self.types.items()}
        fixed = [(name, pa.string()) for name in ("study", "patient", "split")]
        nothing: Row = dict.fromkeys(kinds)
        plain = [
            {"study": study.study, "patient": study.patient, "split": study.split, **(row or nothing)}
            for study, row in sorted(rows, key=lambda pair: pair[0].study)
        ]
        schema = pa.schema([*fixed, *kinds.items()])
        pq.write_table(pa.Table.from_pylist(plain, schema=schema), path, compression="zstd")
