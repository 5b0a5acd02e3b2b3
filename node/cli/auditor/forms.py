"""A record as a line: in words, as JSON, as CSV, as syslog (RFC 5424)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from mediator.audit import Verdict
from mediator.audit_words import person_of, role_of, sentence
from mediator.canonical import print_time
from node.cli.auditor.log_folder import LogLine

COLUMNS = (
    "sequence", "time", "actor", "role", "person", "action", "object", "permit", "verdict", "code", "checkpoint",
    "words",
)  # fmt: skip

# RFC 5424 section 6.2.1: facility 13 is the log audit; severities by what came of it
_FACILITY = 13
_SEVERITIES = {Verdict.ALLOWED: 6, Verdict.DONE: 6, Verdict.REFUSED: 4, Verdict.FAILED: 3}
# RFC 5424 section 7.2.2: a name of one's own carries an enterprise number; this one is IANA's for documents (RFC 5612)
_STRUCTURED = "cloister@32473"
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "]": "\\]"})


class Form(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    SYSLOG = "syslog"


def fields(line: LogLine) -> dict[str, Any]:
    """Everything of a record, with whose act it was and the first signed checkpoint over it.

    No checkpoint (null): none covers it yet, or none was checked.
    """
    record = line.record
    return {
        "sequence": record.sequence,
        "time": print_time(record.time),
        "actor": record.actor,
        "role": role_of(record.actor) or "",
        "person": person_of(record.actor),
        "action": record.action.value,
        "object": record.object,
        "permit": record.permit,
        "verdict": record.verdict.value,
        "code": record.code,
        "checkpoint": line.checkpoint or None,
        "words": sentence(record),
    }


def in_words(line: LogLine, *, proof: bool = False) -> str:
    """`12  2026-11-27 08:00:00 UTC  the node …`; with `proof`, which checkpoint covers it."""
    said = f"{line.record.sequence}  {line.record.time:%Y-%m-%d %H:%M:%S} UTC  {sentence(line.record)}"
    if not proof:
        return said
    if line.checkpoint is None:
        return f"{said}  [not checked]"
    return f"{said}  [{f'checkpoint {line.checkpoint}' if line.checkpoint else 'in no checkpoint yet'}]"


def as_json(line: LogLine) -> str:
    return json.dumps(fields(line), ensure_ascii=False)


def as_csv(line: LogLine) -> str:
    """RFC 4180, without the line end."""
    return _csv_row([_cell(fields(line)[name]) for name in COLUMNS])


def as_syslog(line: LogLine, site: str) -> str:
    """RFC 5424: the site is the host, the action the message id, everything else structured data and a sentence."""
    told = fields(line)
    priority = _FACILITY * 8 + _SEVERITIES[line.record.verdict]
    names = ("sequence", "actor", "object", "permit", "verdict", "code", "checkpoint")
    values = " ".join(f'{name}="{_cell(told[name]).translate(_ESCAPED)}"' for name in names)
    head = f"<{priority}>1 {told['time']} {site or '-'} cloister - {line.record.action.value}"
    return f"{head} [{_STRUCTURED} {values}] {told['words']}"


def header(form: Form) -> str:
    """The first line of a form that has one."""
    return _csv_row(COLUMNS) if form is Form.CSV else ""


def printer(form: Form, site: str) -> Callable[[LogLine], str]:
    forms: Mapping[Form, Callable[[LogLine], str]] = {
        Form.JSONL: as_json,
        Form.CSV: as_csv,
        Form.SYSLOG: lambda line: as_syslog(line, site),
    }
    return forms[form]


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _csv_row(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
