"""Logging of a node's processes: one line each, to stderr or a file, and never a word of another library's error.

A text by pydicom or SQLAlchemy may quote the value it choked on. Whatever does not come from our own packages is
logged by logger, level and the class of its exception; its message is left out.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Literal

from mediator.errors import CloisterError

# whose messages are ours: texts written in this repository, with arguments chosen there
_OURS = ("cloister", "node", "mediator", "containers", "federation")


def set_up(process: str, *, level: str, form: Literal["text", "json"], file: Path | None = None) -> None:
    """Log to stderr, or to `file` (0600, appended to). Replaces every handler there was."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.touch(mode=0o600)
        handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(JsonForm(process) if form == "json" else TextForm(process))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    # of others without their texts, only what went wrong is worth a line
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    # a warning or an unraisable error is printed by Python itself, text and all, unless it is caught here
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    # a formatting error would print the record's arguments
    logging.raiseExceptions = False


class TextForm(logging.Formatter):
    """`2026-03-01T12:00:00.123Z core INFO node.wiring: served round 2`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        said = "".join(f" [{error}]" for error in _error_of(record))
        return f"{_moment(record)} {self._process} {record.levelname} {record.name}: {_message(record)}{said}"


class JsonForm(logging.Formatter):
    """One JSON object a line: time, process, level, logger, message and, if there was one, error."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": _moment(record),
            "process": self._process,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for error in _error_of(record):
            members["error"] = error
        return json.dumps(members, ensure_ascii=True)


def describe(error: BaseException) -> str:
    """What may be logged of an exception: our own text, or the class of another's."""
    return f"{error.code}: {error.message}" if isinstance(error, CloisterError) else type(error).__name__


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] not in _OURS:
        return "(text left out)"
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        return "(message with wrong arguments)"
    # one record is one line: a line break in an argument must not forge another record
    return text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _error_of(record: logging.LogRecord) -> tuple[str, ...]:
    if not record.exc_info or record.exc_info[1] is None:
        return ()
    return (describe(record.exc_info[1]).replace("\n", "\\n"),)


def _moment(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _uncaught(kind: type[BaseException], error: BaseException, _trace: object) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("node").critical("ended by %s", describe(error))
