"""One ingest order from a hospital's folder to a handover folder; every step may be broken off and run again.

1. *Look*: the clinical table is read whole and the source opened. What is wrong with an order is told now, and not
   after the minutes that its files take.
2. *Take in*: each source file is numbered and copied into quarantine, encrypted.
3. *De-identify*: workers (`node.deid.pipeline`) are asked whose each original is, and then take one study after the
   other through gate 0 and the pixel gate into a hidden staging folder. At last each file is searched for what other
   studies of its patient lost.
4. *Hand over*: studies in their final order, `clinical.parquet`, `report.json`; made visible by one rename.
5. *Forget*: quarantine and `intake.db` are destroyed, and how many files that were goes into the report.

A run that finds its handover folder complete goes straight to 5. Nothing yielded, raised or reported names a path or
a DICOM value: a source is `src#0042`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mediator import canonical
from mediator.deid.orders import IngestOrder, IngestReport
from mediator.deid.pseudonyms import Pseudonyms
from node.deid import source_folder as folder
from node.deid.pipeline import Batch, File, Placed, Result, Search, Survey, Trace, Workers, known_of, to_search
from node.deid.sinks import StudySink
from node.deid.worker_settings import LogForm, Settings, table_of
from node.host.versions import REPORT, read_report
from node.intake.clinical import Clinical
from node.intake.handover import Assembly
from node.intake.intake_db import IntakeDb
from node.intake.quarantine import Quarantine


@dataclass(frozen=True)
class IntakeFolders:
    """Where intake works: its own folder (quarantine), and the one it shares with core (handover)."""

    quarantine: Path
    handover: Path


@dataclass(frozen=True)
class IntakeKeys:
    """Intake's two keys, 32 bytes each; never printed."""

    site: bytes
    quarantine: bytes

    def __repr__(self) -> str:
        return "Keys(…)"


@dataclass(frozen=True)
class Progress:
    """How far an order is. `line` is a sentence for a person; `report` comes with the last one."""

    stage: Literal["take_in", "deidentify", "read_pixels", "hand_over", "forget"]
    done: int
    total: int
    line: str = ""
    report: IngestReport | None = None


StartWorkers = Callable[[Settings], AbstractContextManager[Workers]]


def run_ingest(
    order: IngestOrder,
    *,
    keys: IntakeKeys,
    rooms: IntakeFolders,
    workers: StartWorkers,
    read_text: bool = True,
    log: LogForm = LogForm("intake"),  # noqa: B008 - frozen
) -> Iterator[Progress]:
    """Carry an order out. Raises `UsageFault` for an order that cannot be carried out at all."""
    finished = rooms.handover / order.order
    room = rooms.quarantine / order.order
    quarantine = Quarantine(room / "files", keys.quarantine)
    if not (finished / REPORT).is_file():
        pseudonyms = Pseudonyms(keys.site, order.project)
        clinical = _clinical(order, pseudonyms)  # (1)
        folder.look(order.source, skip=order.clinical)
        table = table_of(order.profile)
        settings = Settings(quarantine.source, order.profile, pseudonyms, read_text=read_text, log=log)
        database = IntakeDb(room / "intake.db")
        try:
            yield from _take_in(order, database, quarantine)  # (2)
            files = [File(one.number, one.quarantined or "", one.refused) for one in database.sources()]
            staging = _fresh(rooms.handover / f".{order.order}.partial")
            assembly = Assembly(order, table, staging, pseudonyms)
            with workers(settings) as pool:
                yield from _deidentify(files, pool, staging / "studies", assembly)  # (3)
            report = assembly.finish(clinical)
        finally:
            database.close()
        _hand_over(staging, finished, report)  # (4)
        yield Progress("hand_over", 1, 1)
    report = read_report(finished)
    destroyed = quarantine.destroy()  # (5)
    shutil.rmtree(room)
    yield Progress("forget", destroyed, destroyed, report=replace(report, destroyed=destroyed))


def _take_in(order: IngestOrder, database: IntakeDb, quarantine: Quarantine) -> Iterator[Progress]:
    done = 0
    for entry in folder.walk(order.source, skip=order.clinical):
        done += 1
        try:
            if database.knows(entry.path):
                continue
            if entry.handle is None:
                database.add(entry.path, refused=entry.refused)
            else:
                database.add(entry.path, quarantined=quarantine.put(entry.handle)[0])
        finally:
            if entry.handle is not None:
                os.close(entry.handle)
        yield Progress("take_in", done, 0)


def _deidentify(files: Sequence[File], workers: Workers, studies: Path, assembly: Assembly) -> Iterator[Progress]:
    surveys = []
    for survey in workers.survey(files):
        surveys.append(survey)
        yield Progress("deidentify", len(surveys), len(files))
    results: dict[int, Result] = {}
    traces: list[Trace] = []
    yield Progress("read_pixels", 0, len(files))
    for done in workers.run(_batches(files, surveys, studies)):
        traces += done.traces
        for result in done.results:
            results[result.number] = result
            yield Progress("read_pixels", len(results), len(files), _line(result))
    for found in workers.search_again(_searches(files, results, traces, studies)):
        for result in found:
            results[result.number] = replace(results[result.number], outcome="refused", reasons=result.reasons)
            yield Progress("read_pixels", len(results), len(files), _line(result))
    for _, result in sorted(results.items()):
        assembly.add(result, _sink(studies, result.identity.study).place(result.name, review=False))
    for study in studies.iterdir() if studies.exists() else ():
        StudySink(study).tidy()


def _batches(files: Sequence[File], surveys: Sequence[Survey], studies: Path) -> Iterator[Batch]:
    """One study after the other, with what all files of its patients say whose names there are."""
    members: dict[str, list[int]] = {}
    for place, survey in enumerate(surveys):
        members.setdefault(survey.identity.study, []).append(place)
    known = known_of(surveys)
    for study, places in members.items():
        everybody = {patient: values for place in places for patient, values in known[place].items()}
        yield Batch(tuple(files[place] for place in places), _sink(studies, study), everybody)


def _searches(
    files: Sequence[File], results: dict[int, Result], traces: Sequence[Trace], studies: Path
) -> Iterator[Search]:
    """The files of each study, and what other studies of their patient lost that it did not."""
    by_number = {file.number: file for file in files}
    for trace, fresh in to_search(traces):
        standing = [results[number] for number in trace.numbers if results[number].outcome == "written"]
        paths = [_sink(studies, one.identity.study).place(one.name, review=False) for one in standing]
        placed = [Placed(by_number[one.number], path) for one, path in zip(standing, paths, strict=True)]
        if placed:
            yield Search(tuple(placed), fresh)


def _sink(studies: Path, study: str) -> StudySink:
    """What belongs to no study passes nowhere."""
    return StudySink(studies / (study or "none"))


def _line(result: Result) -> str:
    return f"src#{result.number:04d} {result.exclusion}" if result.exclusion else ""


def _clinical(order: IngestOrder, pseudonyms: Pseudonyms) -> Clinical:
    clinical = Clinical(order.columns)
    if order.clinical is not None:
        clinical.read(folder.open_inside(order.source, order.clinical), pseudonyms)
    return clinical


def _fresh(path: Path) -> Path:
    """An empty folder: what an earlier, broken run left in it is gone."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(mode=0o750)
    return path


def _hand_over(staging: Path, finished: Path, report: IngestReport) -> None:
    handle = os.open(staging / REPORT, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(handle, "wb") as file:
        file.write(canonical.encode(report))
        file.flush()
        os.fsync(file.fileno())
    staging.rename(finished)
