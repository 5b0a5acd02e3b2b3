"""The clinical table: identifiers become pseudonyms, named columns survive value by value, the rest is never read on.

1. UTF-8 CSV of at most `MAX_CSV_BYTES` with the columns PatientID and StudyInstanceUID, and every column of the order.
2. A row counts when its study was published for that very patient; a study with two rows has none.
3. A value stays when the order's column accepts it (a number within bounds, a listed category), else it is null.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mediator.deid.orders import Column
from mediator.deid.pseudonyms import Pseudonyms
from mediator.errors import UsageFault
from mediator.types import Study

# A hundred thousand studies with a page of columns each.
MAX_CSV_BYTES = 1 << 26
PATIENT_COLUMN, STUDY_COLUMN = "PatientID", "StudyInstanceUID"

Row = dict[str, float | str | None]


class Clinical:
    """The clinical values of an order, by study pseudonym."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._rows: dict[str, tuple[str, Row]] = {}
        self._twice: set[str] = set()
        self.refused: Counter[str] = Counter()

    def read(self, handle: int, pseudonyms: Pseudonyms) -> None:
        """Take the CSV behind a descriptor in (and close it). Raises `UsageFault`."""
        with os.fdopen(handle, "rb") as file:
            raw = file.read(MAX_CSV_BYTES + 1)
        if len(raw) > MAX_CSV_BYTES:
            raise UsageFault("the clinical file is over its size limit")
        try:
            reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
            header = reader.fieldnames or ()
            wanted = [PATIENT_COLUMN, STUDY_COLUMN, *(column.name for column in self._columns)]
            if missing := [name for name in wanted if header.count(name) != 1] if isinstance(header, list) else wanted:
                raise UsageFault(f"the clinical file has no single column {missing[0]}")  # (1)
            for line in reader:
                self._row(line, pseudonyms)
        except (UnicodeDecodeError, csv.Error):
            raise UsageFault("the clinical file is not CSV in UTF-8") from None
        for study in self._twice:
            self._rows.pop(study, None)
            self.refused["study_twice"] += 1

    def _row(self, line: Mapping[str, str | None], pseudonyms: Pseudonyms) -> None:
        study = pseudonyms.study(line[STUDY_COLUMN] or "")
        if study in self._rows:
            self._twice.add(study)  # (2)
            return
        row: Row = {}
        for column in self._columns:
            text = line[column.name] or ""
            row[column.name] = column.accept(text)  # (3)
            if row[column.name] is None and text.strip():
                self.refused[column.name] += 1
        self._rows[study] = (pseudonyms.patient(line[PATIENT_COLUMN] or ""), row)

    def of(self, study: str, patient_alone: str) -> Row | None:
        """The row of a published study, if it speaks of the same patient. (2)"""
        patient, row = self._rows.get(study, ("", None))
        if row is not None and patient != patient_alone:
            self.refused["patient_mismatch"] += 1
            return None
        return row

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
