"""An import whose process is killed: `python -m tests.sim.dying_intake SOURCE ROOM MOMENT COUNT`.

MOMENT is `step` (between two of its steps), or in the middle of one: `survey`, `run` and `search` (before what a worker
said is kept), `take` (before core takes a study) or `taken` (core has it, and intake did not hear so).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mediator.import_orders import Column, IngestOrder
from node.deid.pipeline import Batch, Done, File, Result, Search, Survey
from node.deid.worker_settings import Settings
from node.intake.handover import ReadyStudy
from node.intake.run_import import IntakeFolders
from tests.sim.deid_workers import InProcess, headers_only, started
from tests.sim.intake import KeepingCore, steps_of

T = TypeVar("T")
COLUMNS = (Column("lesion", minimum=0, maximum=1),)


def order_for(source: Path) -> IngestOrder:
    return IngestOrder("order-1", "alpha", "liver", "cohort", str(source), "eucaim", "clinical.csv", COLUMNS, 0.4)


def folders(room: Path) -> IntakeFolders:
    (room / "handover").mkdir(parents=True, exist_ok=True)
    return IntakeFolders(room / "quarantine", room / "handover")


class Reaper:
    """Kills this process at the right moment."""

    def __init__(self, moment: str, count: int) -> None:
        self._moment, self._left = moment, count

    def at(self, moment: str) -> None:
        if moment == self._moment:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, moment: str, values: Iterator[T]) -> Iterator[T]:
        for value in values:
            self.at(moment)
            yield value


class DyingWorkers(InProcess):
    def __init__(self, settings: Settings, reaper: Reaper) -> None:
        inner = started(headers_only)(settings)
        self.__dict__.update(inner.__dict__)
        self._reaper = reaper

    def survey(self, files: Iterable[File]) -> Iterator[Survey]:
        return self._reaper.watch("survey", super().survey(files))

    def run(self, batches: Iterable[Batch]) -> Iterator[Done]:
        return self._reaper.watch("run", super().run(batches))

    def search_again(self, searches: Iterable[Search]) -> Iterator[tuple[Result, ...]]:
        return self._reaper.watch("search", super().search_again(searches))


class DyingTake(KeepingCore):
    def __init__(self, reaper: Reaper) -> None:
        super().__init__()
        self._reaper = reaper

    def take(self, ready: ReadyStudy) -> None:
        self._reaper.at("take")
        super().take(ready)
        self._reaper.at("taken")


def main(source: Path, room: Path, moment: str, count: int) -> None:
    reaper = Reaper(moment, count)
    steps = steps_of(
        order_for(source), folders(room), workers=lambda settings: DyingWorkers(settings, reaper),
        core=DyingTake(reaper),
    )  # fmt: skip
    for _ in reaper.watch("step", steps):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
