"""What the person at the keyboard sees: live bars on a terminal, one line per state change elsewhere.

Every line that stays on the screen also goes to `logs/terminal.log`, which the identifier search reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from deploy.demo.spent import processor_seconds

DONE, FAILED = "✓", "✗"
_NAME_WIDTH = 11
_LOG_WIDTH = 120


class Screen:
    """The terminal and its record."""

    def __init__(self, log: Path | None = None, *, stream: IO[str] | None = None) -> None:
        self.console = Console(file=stream or sys.stdout, highlight=False)
        if not self.console.is_terminal:
            self.console = Console(file=stream or sys.stdout, highlight=False, width=_LOG_WIDTH, no_color=True)
        self._early: list[RenderableType] = []
        self._record: Console | None = None
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.began = time.monotonic()
        if log:
            self.record_to(log)

    def record_to(self, log: Path) -> None:
        """Keep everything shown so far, and from now on, in this file."""
        self._record = Console(file=log.open("a", encoding="utf-8"), width=_LOG_WIDTH, no_color=True, highlight=False)
        for shown in self._early:
            self._record.print(shown, soft_wrap=isinstance(shown, Text))
        self._early.clear()

    def show(self, what: RenderableType = "") -> None:
        """Print something that stays."""
        # a line is the terminal's to fold: what is copied from it, a path above all, is then whole
        self.console.print(what, soft_wrap=isinstance(what, Text))
        if self._record is None:
            self._early.append(what)
            return
        self._record.print(what, soft_wrap=isinstance(what, Text))
        self._record.file.flush()

    def remember(self, text: str) -> None:
        """Keep a line in the record that the person has seen already."""
        if self._record is not None:
            self._record.print(text, markup=False)

    def title(self, text: str, where: str) -> None:
        self.show(Text.assemble((text, "bold"), "\n", (where, "dim"), "\n"))

    def line(self, text: str, style: str = "") -> None:
        self.show(Text(text, style=style))

    def add_seconds(self, name: str, seconds: float) -> None:
        """Count time that a phase took outside `phase` (the shell's part of the work)."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 2)

    @contextmanager
    def phase(self, name: str, lanes: Iterable[str] = ()) -> Iterator[Phase]:
        """One step of the demo: a spinner and a bar per lane while it lasts, a line with its seconds at the end."""
        began, used = time.monotonic(), processor_seconds()
        phase = Phase(self, name, tuple(lanes))
        with phase.live:
            try:
                yield phase
            except BaseException:
                phase.live.stop()
                self.show(_closing(FAILED, "bold red", name, time.monotonic() - began, phase.summary))
                raise
        self.add_seconds(name, time.monotonic() - began)
        self.processor[name] = round(self.processor.get(name, 0.0) + processor_seconds() - used, 2)
        self.show(_closing(DONE, "bold green", name, self.seconds[name], phase.summary))


class Phase:
    """A running step. Lanes are hospitals; all methods may be called from any thread."""

    def __init__(self, screen: Screen, name: str, lanes: tuple[str, ...]) -> None:
        self._screen = screen
        self._lock = threading.Lock()
        self._notes: dict[str, str] = {}
        self.summary = ""
        self.live = Progress(
            SpinnerColumn(),
            TextColumn(f"{{task.description:<{_NAME_WIDTH}}}"),
            BarColumn(bar_width=30, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            console=screen.console,
            transient=True,
            disable=not screen.console.is_terminal,
        )
        self._headline = self.live.add_task(name, total=None, note="")
        self._lanes: dict[str, TaskID] = {lane: self.live.add_task(f"  {lane}", total=None, note="") for lane in lanes}

    def update(
        self, lane: str, note: str, done: float | None = None, total: float | None = None, *, passing: bool = False
    ) -> None:
        """Where a lane stands. The bar moves with every call; off a terminal a new `note` makes a line, unless it is
        only passing.
        """
        self.live.update(self._lanes.get(lane, self._headline), note=note, completed=done, total=total)
        if passing:
            return
        with self._lock:
            changed = self._notes.get(lane) != note
            self._notes[lane] = note
        if changed and not self._screen.console.is_terminal:
            self.say(f"{lane:<6} {note}")

    def say(self, text: str, style: str = "dim") -> None:
        """A line of this phase that stays on the screen."""
        self._screen.show(Text.assemble(("    ", ""), (text, style)))


def _closing(mark: str, style: str, name: str, seconds: float, summary: str) -> Text:
    return Text.assemble((mark, style), f" {name:<{_NAME_WIDTH + 1}}", (f"{seconds:6.1f} s  ", "cyan"), summary)
