"""Logging of our processes, a node's and the hub's: one line each, never a word of another library's error.

A text by pydicom or SQLAlchemy may quote the value it choked on, one by aiohttp what a stranger sent. Whatever does not
come from our own packages is logged by logger, level, and the class and place of its exception; its message is left
out.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
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
    # a warning, and an error that nothing catches, is printed by Python itself, text and all, unless it is caught here
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)
    sys.unraisablehook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)
    # a formatting error would print the record's arguments
    logging.raiseExceptions = False


class TextForm(logging.Formatter):
    """`2026-03-01T12:00:00.123Z core INFO node.host.processes: served round 2`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        error = " at ".join(_error_of(record))
        said = f" [{error}]" if error else ""
        return f"{_moment(record)} {self._process} {record.levelname} {record.name}: {_message(record)}{said}"


class JsonForm(logging.Formatter):
    """One JSON object a line: time, process, level, logger, message and, if there was one, error and its place."""

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
        members |= dict(zip(("error", "place"), _error_of(record), strict=False))
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


def place(error: BaseException) -> str:
    """`store/jobs.py:31`, the last line of ours that an exception came through; empty for one that was never raised."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).resolve().parents[2]
    ours = [
        frame
        for frame in frames
        if Path(frame.filename).resolve().is_relative_to(root) and "site-packages" not in frame.filename
    ]
    at = ours[-1] if ours else (frames[-1] if frames else None)
    return f"{Path(at.filename).parent.name}/{Path(at.filename).name}:{at.lineno}" if at else ""


def _error_of(record: logging.LogRecord) -> list[str]:
    """An exception's description and, unless its text is ours, its place; nothing without an exception."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return []
    said = describe(error).replace("\n", "\\n")
    at = "" if isinstance(error, CloisterError) else place(error)
    return [said, at] if at else [said]


def _moment(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _uncaught(kind: type[BaseException], error: BaseException | None, _trace: object) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    at = place(error) if error is not None else ""
    said = describe(error) if error is not None else kind.__name__
    logging.getLogger("node").critical("ended by %s%s", said, f" at {at}" if at else "")
