"""The bar of `cloister deid run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from node.cli.output import TextStream

if TYPE_CHECKING:
    from node.deid.processes import WorkerProcesses


def progress(workers: WorkerProcesses, talk: TextStream) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _UnderWay(workers),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=talk.console, disable=not talk.is_terminal, transient=True)


class _UnderWay(ProgressColumn):
    """What workers did of files that are not finished yet: reading pixels takes longest, and is done by series."""

    def __init__(self, workers: WorkerProcesses) -> None:
        super().__init__()
        self._workers = workers

    def render(self, task: Task) -> Text:
        converted, pictures = self._workers.under_way
        return Text(f"{converted} converted, {pictures} pictures")
