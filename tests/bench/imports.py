"""What a durable import costs: seconds by stage, flushes to the disk, and what starting the workers takes.

    python -m tests.bench.imports [STUDIES] [FILES]

STUDIES studies (120) of FILES small slices each (3) are taken in by intake's own code with two workers, for a core
that only copies. Seconds of a processor are this process's and its workers'; on a busy machine those say more than the
clock.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mediator.import_orders import IngestOrder
from node.deid.processes import WorkerProcesses
from node.intake.run_import import IntakeFolders
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.intake import steps_of


class Flushes:
    """Counts what goes to the disk and the time that takes, by standing in for `os.fsync` and `os.fdatasync`."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    def counted(self, flush: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            begun = time.perf_counter()
            flush(descriptor)
            self.count, self.seconds = self.count + 1, self.seconds + time.perf_counter() - begun

        return call


def processor_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def fill(source: Path, studies: int, files: int) -> None:
    source.mkdir()
    for study in range(studies):
        for number in range(files):
            made: Any = ct_slice()
            made.PatientID, made.StudyInstanceUID = f"P{study:04}", f"1.2.826.0.1.{study + 1}"
            made.SeriesInstanceUID = f"{made.StudyInstanceUID}.1"
            made.SOPInstanceUID = f"{made.SeriesInstanceUID}.{number + 1}"
            made.InstanceNumber = number + 1
            (source / f"{study:04}-{number}").write_bytes(to_bytes(made))


def main() -> None:
    given = [int(word) for word in sys.argv[1:3]]
    studies, files = [*given, *(120, 3)[len(given) :]]
    flushes, table = Flushes(), Table("stage", "until (s)")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fill(root / "source", studies, files)
        order = IngestOrder("order-1", "alpha", "liver", "cohort", str(root / "source"), "eucaim", None, (), 0.2)
        rooms = IntakeFolders(root / "quarantine", root / "handover")
        rooms.handover.mkdir()
        os.fsync, os.fdatasync = flushes.counted(os.fsync), flushes.counted(os.fdatasync)
        begun, stage, last = time.perf_counter(), "", None
        for last in steps_of(order, rooms, workers=lambda settings: WorkerProcesses(settings, 2)):
            if last.stage != stage:
                stage = last.stage
                table.add_row(f"{stage} begins", f"{time.perf_counter() - begun:.2f}")
        seconds = time.perf_counter() - begun
    assert last is not None and last.report is not None
    table.add_row("end", f"{seconds:.2f}")
    Console().print(table)
    published = last.report.instances_published
    print(f"{published} of {studies * files} files published; {processor_s():.2f} s of a processor")
    print(f"{flushes.count} flushes of this process's files, {flushes.seconds:.2f} s (SQLite's are not among them)")


if __name__ == "__main__":
    main()
