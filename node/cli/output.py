"""How the command line speaks: data on stdout, talk on stderr, errors as `error:` then `hint:`."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mediator.canonical import to_plain
from mediator.errors import CloisterError, exit_code_of

talk = Console(stderr=True, highlight=False)
data = Console(highlight=False)


def say(line: str) -> None:
    """One line of talk."""
    talk.print(line, markup=False, soft_wrap=True)


def show(value: Any, *, as_json: bool, table: Table | None = None) -> None:
    """The answer of a reading command: JSON for programs, a table (or plain lines) for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
    elif table is not None:
        data.print(table)
    else:
        for key, item in plain(value).items():
            data.print(f"{key}: {_inline(item)}", markup=False, soft_wrap=True)


def plain(value: Any) -> Any:
    """JSON-ready data for documents, pydantic models and containers of them."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude={"version"})
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return to_plain(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table: first column is what the row is about."""
    built = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        built.add_column(column)
    for row in rows:
        # as text: what stands in a cell may be a stranger's, and is no markup
        built.add_row(*(Text(_inline(cell)) for cell in row))
    return built


def fail(error: BaseException) -> int:
    """Print an error the one way we do, and return its exit code.

    Texts of other libraries' exceptions may quote what they choked on, a patient's name included: of an error that
    is not ours only the class and our own line are shown.
    """
    if isinstance(error, CloisterError):
        talk.print(f"error: {error.message}", markup=False, soft_wrap=True)
        if error.hint:
            talk.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
    else:
        talk.print(f"error: internal error ({where(error)})", markup=False, soft_wrap=True)
        talk.print("hint: this is a defect in cloister; please report this line", markup=False)
    return exit_code_of(error)


def where(error: BaseException) -> str:
    """`KeyError at node/store/jobs.py:31`: enough to find a defect, nothing that could hold data."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).resolve().parents[2]
    ours = [
        frame
        for frame in frames
        if Path(frame.filename).resolve().is_relative_to(root) and "site-packages" not in frame.filename
    ]
    at = ours[-1] if ours else (frames[-1] if frames else None)
    place = f" at {Path(at.filename).parent.name}/{Path(at.filename).name}:{at.lineno}" if at else ""
    return f"{type(error).__name__}{place}"


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inline(item) for item in value)
    return str(value)
