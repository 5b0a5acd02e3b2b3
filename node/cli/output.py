"""How the command line speaks: data on stdout, talk on stderr, errors as `error:` then `hint:`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mediator.canonical import to_plain
from mediator.errors import CloisterError, exit_code_of
from mediator.images import printable
from node.host.logs import place

talk = Console(stderr=True, highlight=False)
data = Console(highlight=False)


def say(line: str) -> None:
    """One line of talk."""
    talk.print(line, markup=False, soft_wrap=True)


def show(value: Any, *, as_json: bool, table: Rows | None = None) -> None:
    """The answer of a reading command: JSON for programs, a table (or plain lines) for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
    elif table is not None:
        table.print()
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


@dataclass(frozen=True)
class Rows:
    """A plain table as text: its first column is what a row is about. No cell is ever cut: identifiers are copied."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def print(self) -> None:
        """Aligned on a terminal, where too long a line runs on; piped, a line per row with tabs between its cells."""
        if not data.is_terminal:
            for row in (self.columns, *self.rows):
                sys.stdout.write("\t".join(row) + "\n")
            return
        widths = [max(map(cell_len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        for style, row in zip(("bold", *("" for _ in self.rows)), (self.columns, *self.rows), strict=True):
            line = "  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
            data.print(Text(line.rstrip(), style=style), soft_wrap=True)

    def fitted(self) -> Table:
        """The same for a screen that is drawn again and again: folded where it would not fit."""
        built = Table(box=None, pad_edge=False, header_style="bold")
        for column in self.columns:
            built.add_column(column, overflow="fold")
        for row in self.rows:
            built.add_row(*map(Text, row))  # as text: what stands in a cell is no markup
        return built


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Rows:
    """A table of any values. What stands in a cell may be a stranger's: it drives no terminal, and ends no cell."""
    return Rows(tuple(columns), tuple(tuple(printable(_inline(cell), sys.maxsize) for cell in row) for row in rows))


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
    """`KeyError at store/jobs.py:31`: enough to find a defect, nothing that could hold data."""
    at = place(error)
    return f"{type(error).__name__} at {at}" if at else type(error).__name__


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
