"""One import from a hospital's folder to core, study by study; whatever breaks it off, it is run again and goes on.

1. *Check*: the clinical table is read whole and the source opened. What is wrong with an order is told now, and not
   after the minutes that its files take.
2. *Take in*: each source file is numbered and copied into quarantine, encrypted; then workers (`node.deid.pipeline`)
   are asked whose each is, and what names it holds. What belongs to no study is destroyed again.
3. *De-identify*: a study after the other goes through gate 0 and the pixel gate, with what all files of its patients
   say whose names there are. Once all studies of a patient are through, each is searched for what the others lost.
4. *Hand over and forget*: a study is numbered, core takes it, and its originals, names and losses are destroyed.
5. *Report*: when no study is left, the clinical table and the account of everything.

A study with a file that met a defect of ours waits, and its patient's other studies with it; the others go on. How far
everything is stands in `intake.db` (`mediator.imports.StudyState`). Nothing yielded, raised or reported names a path or
a DICOM value: a source is `src#0042`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from durable.files import replace_file
from mediator.deid.pseudonyms import Pseudonyms
from mediator.deid.rules import ENGINE_VERSION, ProfileTable
from mediator.deid.screening import Exclusion
from mediator.errors import CloisterError, UsageFault
from mediator.import_orders import IngestOrder, IngestReport
from mediator.imports import StudyState
from mediator.manifests import Deidentification
from node.deid.pipeline import Batch, Placed, Result, Search, Workers, to_search
from node.deid.worker_settings import LogForm, Settings, table_of
from node.host.disk_errors import is_full
from node.host.versions import REPORT, read_report
from node.intake.clinical import Clinical
from node.intake.handover import Handover, TakeStudy
from node.intake.intake_db import IntakeDb, StudyRow, TakenIn
from node.intake.quarantine import Quarantine, mark
from node.intake.sources.folder import HospitalFolder
from node.intake.sources.source import OriginalSource

_SEARCHED_TOGETHER = 16
# What is recorded in one step: a kill costs that much of work that is done again in seconds.
_SEALED_TOGETHER, _SEALED_TOGETHER_BYTES = 64, 256 << 20
_SURVEYS_KEPT_TOGETHER = 64
_DEFECT = Exclusion.OUR_DEFECT.value


@dataclass(frozen=True)
class IntakeFolders:
    """Where intake works: its own folder (quarantine), and the one it shares with core (handover)."""

    quarantine: Path
    handover: Path

    def of(self, order: str) -> tuple[Path, Path, Path]:
        """An import's quarantine, its staging folder, and what is ready for core."""
        return self.quarantine / order, self.handover / f".{order}.partial", self.handover / order

    def note(self, order: str) -> Path:
        """How many originals an import had that is being destroyed; it goes once core has that on record."""
        return self.quarantine / f".{order}.destroyed"


@dataclass(frozen=True)
class IntakeKeys:
    """Intake's two keys, 32 bytes each; never printed."""

    site: bytes
    quarantine: bytes

    def __repr__(self) -> str:
        return "Keys(…)"


@dataclass(frozen=True)
class Progress:
    """How far an import is. `line` is a sentence for a person. The last one has the `report`, or how many studies
    are `waiting`; `destroyed` counts originals."""

    stage: Literal["take_in", "deidentify", "hand_over", "forget"]
    done: int
    total: int
    line: str = ""
    report: IngestReport | None = None
    waiting: int = 0
    destroyed: int = 0


StartWorkers = Callable[[Settings], AbstractContextManager[Workers]]


def run_import(
    order: IngestOrder,
    *,
    keys: IntakeKeys,
    rooms: IntakeFolders,
    workers: StartWorkers,
    take: TakeStudy,
    give_up: bool = False,
    read_text: bool = True,
    log: LogForm = LogForm("intake"),  # noqa: B008 - frozen
    allowed: Callable[[], None] = lambda: None,
) -> Iterator[Progress]:
    """Carry an order out, from where it was; with `give_up`, destroy what waits. `allowed` is asked while the source is
    still to be read. Raises `UsageFault` for an order that cannot be carried out at all."""
    room, staging, ready = rooms.of(order.order)
    if not (ready / REPORT).is_file():
        source: OriginalSource = HospitalFolder(order.source, order.clinical)
        pseudonyms = Pseudonyms(keys.site, order.project)
        clinical = None
        if not (room / "intake.db").is_file():
            allowed()
            clinical = _checked(source, order, pseudonyms)  # (1)
        originals = Quarantine(room / "files", keys.quarantine)
        database = IntakeDb(room / "intake.db", keys.quarantine)
        try:
            _check_key(database, keys)
            if clinical is None and not database.setting("sealed"):
                allowed()
            kept = _clinical(clinical, source, order, pseudonyms, database, Quarantine(room / "table", keys.quarantine))
            settings = Settings(
                originals.source, order.profile, pseudonyms, defaced_by=order.defaced_by, read_text=read_text, log=log
            )
            handover = Handover(order, kept, pseudonyms, staging, ready)
            with workers(settings) as pool:
                run = _Import(database, originals, handover, pool, take, table_of(order.profile))
                yield from run.take_in(source, again=not give_up)  # (2)
                yield from run.studies(give_up=give_up)
            if database.waiting:
                yield Progress("deidentify", database.count(), database.count(), waiting=database.waiting,
                               destroyed=database.destroyed_files)  # fmt: skip
                return
            run.finish()  # (5)
        finally:
            database.close()
        yield Progress("hand_over", 1, 1)
    report = read_report(ready)
    shutil.rmtree(room, ignore_errors=True)
    shutil.rmtree(staging, ignore_errors=True)
    yield Progress("forget", report.destroyed, report.destroyed, report=report, destroyed=report.destroyed)


def destroy_import(order: str, rooms: IntakeFolders, key: bytes | None) -> int:
    """Destroy all that is left of an import; how many originals it had. With `key` those destroyed before are told."""
    destroyed = _noted(rooms.of(order)[0], rooms.note(order), key)
    for left in rooms.of(order):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
    return destroyed


def _noted(room: Path, note: Path, key: bytes | None) -> int:
    """How many originals an import had, written down before the first of them goes: a kill in between forgets none."""
    if note.exists():
        return int(note.read_text("ascii"))
    if not room.is_dir():
        return 0
    originals = _originals(room, key)
    try:
        replace_file(note, f"{originals}\n".encode("ascii"))
    except OSError as error:
        if not is_full(error):
            raise
        # what is destroyed makes room; a kill right now would cost the number, and waiting would keep the originals
    return originals


def _originals(room: Path, key: bytes | None) -> int:
    """Those there are, and with `key` those destroyed before."""
    there = [path.name for path in (room / "files").glob("*") if path.suffix == ""]
    if key is not None and (room / "intake.db").is_file():
        with suppress(sqlite3.Error, CloisterError):  # it goes, whatever is wrong with it
            database = IntakeDb(room / "intake.db", key)
            try:
                return database.sealed_files + len(database.unnamed(there))
            finally:
                database.close()
    return len(there)


class _Import:
    """An import under way."""

    def __init__(
        self,
        database: IntakeDb,
        originals: Quarantine,
        handover: Handover,
        workers: Workers,
        take: TakeStudy,
        table: ProfileTable,
    ) -> None:
        self._db = database
        self._originals = originals
        self._handover = handover
        self._workers = workers
        self._take = take
        self._table = table
        self._made_by = Deidentification(table.profile, table.fingerprint, ENGINE_VERSION)

    # --- (2)

    def take_in(self, source: OriginalSource, *, again: bool) -> Iterator[Progress]:
        """Seal, number and survey what is not yet; with `again` whatever waits is tried again."""
        if not self._db.setting("sealed"):
            yield from self._seal(source)
            for name in self._db.unnamed(self._originals.names()):  # sealed by one who was killed before he said so
                self._originals.remove(name)
            self._db.keep("sealed", "yes")
        if again and self._db.setting("taken_in"):
            self._db.retry()
        if not self._db.setting("taken_in") or self._db.count(where="surveyed = 0"):
            yield from self._survey()
            self._db.group_studies()
        late = self._db.too_late()
        self._db.refuse([number for number, _ in late], Exclusion.OUR_DEFECT)
        self._remove(late)
        for originals in self._db.sealed(""):
            self._remove(originals)

    def _seal(self, source: OriginalSource) -> Iterator[Progress]:
        done, together, size = 0, list[TakenIn](), 0
        for entry in source.entries():
            done += 1
            try:
                if self._db.knows(entry.path):
                    continue
                if entry.handle is None:
                    together.append(TakenIn(entry.path, refused=entry.refused))
                else:
                    name, length = self._originals.put(entry.handle)
                    together.append(TakenIn(entry.path, quarantined=name))
                    size += length
            finally:
                if entry.handle is not None:
                    os.close(entry.handle)
            if len(together) >= _SEALED_TOGETHER or size >= _SEALED_TOGETHER_BYTES:
                self._sealed(together)
                together, size = [], 0
            yield Progress("take_in", done, 0)
        self._sealed(together)

    def _sealed(self, together: Sequence[TakenIn]) -> None:
        self._originals.flush()
        self._db.add(together)

    def _survey(self) -> Iterator[Progress]:
        done, total = self._db.count(where="surveyed = 1"), self._db.count()
        surveys = self._workers.survey(self._db.unsurveyed())
        while several := tuple(islice(surveys, _SURVEYS_KEPT_TOGETHER)):
            self._db.surveyed(several)
            done += len(several)
            yield Progress("take_in", done, total)

    # --- (3) and (4)

    def studies(self, *, give_up: bool) -> Iterator[Progress]:
        """Every study that does not wait, to its end."""
        done, total = self._db.files_done, self._db.count()
        yield Progress("deidentify", done, total)
        if give_up:
            self._give_up()
        while True:
            for results, through in self._deidentify():
                done = min(done + len(results), total)
                for line in map(_line, results):
                    yield Progress("deidentify", done, total, line)
                for line in self._finish(through):
                    yield Progress("deidentify", done, total, line)
            if not give_up or not self._db.waiting:
                break
            self._give_up()
        self._db.forget_lost()

    def _deidentify(self) -> Iterator[tuple[Sequence[Result], list[tuple[StudyRow, ...]]]]:
        """One study's results after the other, and now and then the studies of patients who are through. Workers go on
        with the next studies while those are dealt with."""
        asked: deque[StudyRow | tuple[StudyRow, ...]] = deque()

        def batches() -> Iterator[Batch]:
            for studies in self._db.people():
                for row in studies:
                    if row.state is StudyState.TAKEN_IN:
                        asked.append(row)
                        self._handover.clear(row.study)
                        files = tuple(self._db.files(row.study))
                        yield Batch(files, self._handover.sink(row.study), self._db.known(row.people))
                asked.append(studies)

        through: list[tuple[StudyRow, ...]] = []
        for done in self._workers.run(batches()):
            while not isinstance(row := asked.popleft(), StudyRow):
                through.append(row)
            if any(map(_is_defect, done.results)):
                self._wait(row.study)
            else:
                self._handover.flush(row.study)
                self._db.deidentified(row.study, done.results, done.traces, self._made_by)
            if sum(map(len, through)) >= _SEARCHED_TOGETHER:
                yield done.results, through
                through = []
            else:
                yield done.results, []
        yield (), through + [each for each in asked if not isinstance(each, StudyRow)]

    def _finish(self, people: Sequence[tuple[StudyRow, ...]]) -> Iterator[str]:
        """Search the studies of these patients, hand them over, and forget them."""
        yield from self._search(people)
        for study in [each.study for studies in people for each in studies]:
            self._hand_over(study)
            yield ""

    def _search(self, people: Sequence[Sequence[StudyRow]]) -> Iterator[str]:
        """Of patients whose studies are all de-identified, each study for what the others lost."""
        wanted: list[tuple[str, Search]] = []
        refused: list[dict[str, list[Result]]] = []
        for rows in people:
            now = [self._db.study(row.study) for row in rows]
            if all(row.state not in (StudyState.TAKEN_IN, StudyState.WAITING) for row in now):
                refused.append({row.study: [] for row in now if row.state is StudyState.DEIDENTIFIED})
                wanted += self._searches([row.study for row in now], frozenset(refused[-1]))
        found = self._workers.search_again([search for _, search in wanted])
        for (study, _), results in zip(wanted, found, strict=True):
            next(each for each in refused if study in each)[study].extend(results)
            yield from map(_line, results)
        for of_patient in refused:
            defects = [study for study, results in of_patient.items() if any(_is_defect(one) for one in results)]
            for study in defects:
                self._wait(study)
            if defects:
                of_patient.clear()  # all of them are searched again
        self._db.searched({study: verdicts for of_patient in refused for study, verdicts in of_patient.items()})

    def _searches(self, studies: Sequence[str], among: frozenset[str]) -> Iterator[tuple[str, Search]]:
        """What files of these studies, all of one patient, may hold that only others lost."""
        traces = [(study, trace) for study in studies for trace in self._db.traces(study)]
        of = {id(trace): study for study, trace in traces}
        for trace, fresh in to_search([trace for _, trace in traces]):
            study = of[id(trace)]
            if study in among:
                sink, originals = self._handover.sink(study), {file.number: file for file in self._db.files(study)}
                standing = [one for one in self._db.passed(study) if one.number in trace.numbers]
                if standing:
                    placed = (Placed(originals[one.number], sink.place(one.name, review=False)) for one in standing)
                    yield study, Search(tuple(placed), fresh)

    def _hand_over(self, study: str) -> None:
        state = self._db.study(study).state
        if state is StudyState.SEARCHED and self._waits_with(study):
            return
        if state is StudyState.SEARCHED:
            self._handover.give(self._db, study, self._take)
        if state in (StudyState.SEARCHED, StudyState.HANDED_OVER):
            self._forget(study)

    def _waits_with(self, study: str) -> bool:
        """Whether another study of its patient is not searched: what that one lost nobody knows."""
        people = str(self._db.study(study).people)
        behind = (StudyState.TAKEN_IN.value, StudyState.DEIDENTIFIED.value, StudyState.WAITING.value)
        return self._db.count("study", "people = ? AND state IN (?, ?, ?)", people, *behind) > 0

    def _forget(self, study: str) -> None:
        self._handover.clear(study)
        for originals in self._db.sealed(study):
            for _, name in originals:
                self._originals.remove(name)
        self._db.forget(study)

    def _remove(self, originals: Sequence[tuple[int, str]]) -> None:
        for _, name in originals:
            self._originals.remove(name)
        self._db.destroyed([number for number, _ in originals])

    def _wait(self, study: str) -> None:
        self._db.wait(study)  # first: a study whose files are gone must not be found as one that is through
        self._handover.clear(study)

    def _give_up(self) -> None:
        """A person decided: what waits is destroyed, and counted as ours."""
        for study in self._db.studies(StudyState.WAITING):
            self._db.give_up(study)
            self._forget(study)
        self._remove(self._db.sealed_defects())

    # --- (5)

    def finish(self) -> None:
        """The account of everything; no original is left before it says so."""
        destroyed = self._db.destroyed_files + self._originals.destroy()
        self._handover.finish(self._db, self._table, destroyed)


def _checked(source: OriginalSource, order: IngestOrder, pseudonyms: Pseudonyms) -> tuple[Clinical, bytes | None]:
    clinical, raw = Clinical(order.columns), source.table()
    if raw is not None:
        clinical.read(raw, pseudonyms)
    source.check()
    return clinical, raw


def _clinical(
    checked: tuple[Clinical, bytes | None] | None,
    source: OriginalSource,
    order: IngestOrder,
    pseudonyms: Pseudonyms,
    database: IntakeDb,
    table: Quarantine,
) -> Clinical:
    """The clinical table as it was when the import began: from then on it is sealed with the originals."""
    if name := database.setting("table"):
        clinical = Clinical(order.columns)
        if name != "none":
            clinical.read(table.get(name), pseudonyms)
        return clinical
    clinical, raw = checked or _checked(source, order, pseudonyms)
    database.keep("table", "none" if raw is None else table.put_bytes(raw))
    return clinical


def _check_key(database: IntakeDb, keys: IntakeKeys) -> None:
    """Pseudonyms made with two keys would be two patients. Raises `UsageFault`."""
    now = mark(keys.quarantine, keys.site).hex()
    before = database.setting("key")
    if before and before != now:
        raise UsageFault("the site's key is another one than when this import began", hint="give the order again")
    database.keep("key", now)


def _line(result: Result) -> str:
    return f"src#{result.number:04d} {result.exclusion}" if result.exclusion else ""


def _is_defect(result: Result) -> bool:
    return result.exclusion == _DEFECT
