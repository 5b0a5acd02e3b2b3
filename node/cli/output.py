"""How the command line speaks: data on stdout, talk on stderr, errors as `error:` then `hint:`.

Lines are printed as they are. Rich is for what moves (bars, screens that are drawn again), and loaded by what has that:
it takes longer to load than a command does to answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

import click

from mediator.canonical import to_plain
from mediator.errors import CloisterError, exit_code_of
from mediator.images import printable
from node.host.logs import place

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# bell, backspace, tabulators down the page and carriage return: a terminal obeys them, and no line of ours has one
_OBEYED = dict.fromkeys((7, 8, 11, 12, 13))


class TextStream:
    """Standard output or standard error, whichever it is at this moment."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _file(self) -> TextIO:
        file: TextIO = getattr(sys, self._name)
        return file

    @property
    def is_terminal(self) -> bool:
        return self._file.isatty()

    def print(self, line: str = "", end: str = "\n") -> None:
        self._file.write(line.translate(_OBEYED) + end)
        self._file.flush()

    def styled(self, text: str, **style: Any) -> str:
        """The text as `click.style` has it, where the stream is a terminal that draws in colour and bold."""
        plain = not self.is_terminal or "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
        return text if plain else click.style(text, **style)

    @cached_property
    def console(self) -> Console:
        """The same stream for what moves."""
        from rich.console import Console

        return Console(stderr=self._name == "stderr", highlight=False)


talk = TextStream("stderr")
data = TextStream("stdout")


def say(line: str) -> None:
    """One line of talk."""
    talk.print(line)


def show(value: Any, *, as_json: bool, table: Rows | None = None) -> None:
    """The answer of a reading command: JSON for programs, a table (or plain lines) for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
    elif table is not None:
        table.print()
    else:
        for key, item in plain(value).items():
            data.print(f"{key}: {_inline(item)}")


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
        from rich.cells import cell_len, set_cell_size

        widths = [max(map(cell_len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        for number, row in enumerate((self.columns, *self.rows)):
            line = "  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
            data.print(line if number else data.styled(line, bold=True))

    def fitted(self) -> Table:
        """The same for a screen that is drawn again and again: folded where it would not fit."""
        from rich.table import Table
        from rich.text import Text

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
        talk.print(f"error: {error.message}")
        if error.hint:
            talk.print(f"hint: {error.hint}")
    else:
        talk.print(f"error: internal error ({where(error)})")
        talk.print("hint: this is a defect in cloister; please report this line")
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
