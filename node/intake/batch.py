"""One ingest order from a hospital's folder to a handover folder; every step may be broken off and run again.

1. *Look*: the clinical table is read whole and the source opened. What is wrong with an order is told now, and not
   after the minutes that its files take.
2. *Take in*: each source file is numbered and copied into quarantine, encrypted.
3. *De-identify*: each original passes gate 0 into a hidden staging folder, once more where others of its patient's
   say whose name its texts hold, then its series' pixels are read; a worker's failure is a finding. At last each is
   searched for what the files after it lost.
4. *Hand over*: studies in their final order, `clinical.parquet`, `report.json`; made visible by one rename.
5. *Forget*: quarantine and `intake.db` are destroyed, and how many files that were goes into the report.

A run that finds its handover folder complete goes straight to 5. Nothing yielded, raised or reported names a path or
a DICOM value: a source is `src#0042`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mediator import canonical
from mediator.deid.identifiers import Lost
from mediator.deid.orders import IngestOrder, IngestReport
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.screening import Exclusion
from mediator.errors import UsageFault
from node.deid import source_folder as folder
from node.deid.deidentify import (
    DicomEngine,
    Finished,
    Gate0,
    Outcome,
    PixelReader,
    misnamed,
    read_pixels,
    suspects,
    withdrawn,
)
from node.host.versions import REPORT, read_report
from node.intake.clinical import Clinical
from node.intake.handover import Assembly
from node.intake.intake_db import IntakeDb, SourceFile
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


def run_ingest(
    order: IngestOrder, *, engine: DicomEngine, pixels: PixelReader, keys: IntakeKeys, rooms: IntakeFolders
) -> Iterator[Progress]:
    """Carry an order out. Raises `UsageFault` for an order that cannot be carried out at all."""
    if engine.table.profile != order.profile:
        raise UsageFault("the engine was made for another profile")
    finished = rooms.handover / order.order
    room = rooms.quarantine / order.order
    quarantine = Quarantine(room / "files", keys.quarantine)
    if not (finished / REPORT).is_file():
        pseudonyms = Pseudonyms(keys.site, order.project)
        clinical = _clinical(order, pseudonyms)  # (1)
        folder.look(order.source, skip=order.clinical)
        database = IntakeDb(room / "intake.db")
        try:
            yield from _take_in(order, database, quarantine)  # (2)
            staging = _fresh(rooms.handover / f".{order.order}.partial")
            assembly = Assembly(order, engine.table, staging, pseudonyms)
            gate = Gate0(engine, pseudonyms, staging / "studies")
            yield from _deidentify(database, quarantine, gate, engine, pixels, assembly)  # (3)
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


def _deidentify(
    database: IntakeDb,
    quarantine: Quarantine,
    gate: Gate0,
    engine: DicomEngine,
    pixels: PixelReader,
    assembly: Assembly,
) -> Iterator[Progress]:
    sources, outcomes = list(database.sources()), list[Outcome]()
    for done, source in enumerate(sources, start=1):
        outcome = _admit(source, quarantine, gate)
        outcomes.append(outcome)
        yield Progress("deidentify", done, len(sources), _line(source, outcome))
    for place, named in misnamed([_finished(one) for one in outcomes], engine):
        outcomes[place] = _made_again(outcomes[place], sources[place], quarantine, gate, named)
    written = sum(1 for outcome in outcomes if outcome.path is not None)
    yield Progress("read_pixels", 0, written)
    for done, (place, outcome) in enumerate(read_pixels(tuple(outcomes), pixels), start=1):
        outcomes[place] = outcome
        yield Progress("read_pixels", done, written, _line(sources[place], outcome))
    for place, lost in suspects([_finished(one) for one in outcomes], engine):
        reason = _again(outcomes[place], sources[place], quarantine, gate, lost)
        if reason is not None:
            outcomes[place] = withdrawn(outcomes[place], reason)
            yield Progress("read_pixels", written, written, _line(sources[place], outcomes[place]))
    for outcome in outcomes:
        assembly.add(outcome)


def _finished(outcome: Outcome) -> Finished:
    return Finished(outcome.path, outcome.keys, outcome.lost)


def _made_again(
    before: Outcome, source: SourceFile, quarantine: Quarantine, gate: Gate0, named: Sequence[Lost]
) -> Outcome:
    if before.path is not None:
        before.path.unlink()
    outcome = _admit(source, quarantine, gate, named)
    return replace(outcome, lost=(*before.lost, *outcome.lost))


def _again(
    outcome: Outcome, source: SourceFile, quarantine: Quarantine, gate: Gate0, lost: Sequence[Lost]
) -> Exclusion | None:
    if source.quarantined is None or outcome.path is None:
        return Exclusion.UNREADABLE
    try:
        with quarantine.open(source.quarantined) as original:
            return gate.again(original, lost, outcome.path)
    except Exception:  # noqa: BLE001 - the worker loop: a file nobody could make again is held back, the rest goes on
        return Exclusion.UNREADABLE


def _admit(source: SourceFile, quarantine: Quarantine, gate: Gate0, known: Sequence[Lost] = ()) -> Outcome:
    if source.quarantined is None:
        return Outcome(Exclusion(source.refused or Exclusion.NOT_A_FILE))
    try:
        with quarantine.open(source.quarantined) as original:
            return gate.admit(original, known)
    except Exception:  # noqa: BLE001 - the worker loop: one file nobody foresaw is held back, the rest goes on
        return Outcome(Exclusion.UNREADABLE)


def _line(source: SourceFile, outcome: Outcome) -> str:
    return f"src#{source.number:04d} {outcome.exclusion.value}" if outcome.exclusion else ""


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
