"""Whatever breaks an import off, it goes on: one study is lost at most, no original is forgotten, nothing is published
that an undisturbed import would not publish."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pydicom
import pytest

from mediator.errors import UsageFault
from mediator.imports import StudyState
from node.deid.pipeline import Result
from node.deid.worker_settings import PartsMaker
from node.intake import run_import
from node.intake.handover import Handover, ReadyStudy
from node.intake.intake_db import IntakeDb, TakenIn
from node.intake.run_import import IntakeFolders, IntakeKeys, Progress, destroy_import
from tests.sim.cohort import write_cohort
from tests.sim.deid_workers import defective, headers_only, never_searched, started, surveyed_with_a_defect
from tests.sim.dicom import ct_slice, to_bytes
from tests.sim.dying_intake import folders, order_for
from tests.sim.intake import KEYS, KeepingCore, steps_of

PATIENTS = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few patients, one of them with two studies, and a file that is no DICOM."""
    path = tmp_path_factory.mktemp("source")
    write_cohort(path, "alpha", PATIENTS, seed=2, second_study=1)
    (path / "notes.txt").write_text("Hartog")
    return path


def contents(rooms: IntakeFolders) -> dict[str, bytes]:
    """What core was given, without the account's number of destroyed files."""
    root = rooms.handover / "order-1"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def finish(source: Path, rooms: IntakeFolders, core: KeepingCore | None = None) -> Progress:
    return list(steps_of(order_for(source), rooms, core=core))[-1]


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    rooms = folders(tmp_path_factory.mktemp("whole"))
    last = finish(source, rooms)
    assert (
        last.report is not None and last.destroyed == last.report.instances_in and not any(rooms.quarantine.iterdir())
    )
    return contents(rooms)


MOMENTS = [
    ("step", 1), ("step", 8), ("survey", 1), ("survey", 5), ("run", 1), ("run", 3), ("search", 1), ("take", 1),
    ("taken", 1), ("taken", 3), ("step", 28),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "count"), MOMENTS)
def test_an_intake_that_is_killed_ends_where_an_undisturbed_one_does(
    source: Path, tmp_path: Path, undisturbed: dict[str, bytes], moment: str, count: int
) -> None:
    rooms = folders(tmp_path)
    words = [sys.executable, "-m", "tests.sim.dying_intake", str(source), str(tmp_path), moment, str(count)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = KeepingCore()
    finish(source, rooms, again)
    assert contents(rooms) == undisturbed
    assert not any(rooms.quarantine.iterdir()) and not list(rooms.handover.glob(".*"))
    assert len(again.taken) == len({ready.study for ready in again.taken})  # each once more at most


def test_a_study_that_core_has_and_that_is_not_forgotten_yet_is_forgotten(
    source: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Killed between the two: core's answer is kept, the originals are still there."""
    rooms = folders(tmp_path)

    class DiesAfter(KeepingCore):
        def take(self, ready: ReadyStudy) -> None:
            super().take(ready)
            raise KeyboardInterrupt

    core = DiesAfter()
    with pytest.raises(KeyboardInterrupt):
        finish(source, rooms, core)
    (ready,) = core.taken
    room = rooms.quarantine / "order-1"
    database = IntakeDb(room / "intake.db", KEYS.quarantine)
    first = database.passed(ready.study)[0].identity
    database.handed_over(ready.study, ready.patient, first.patient_alone, ready.split, ready.instances)
    sealed = [name for page in database.sealed(ready.study) for _, name in page]
    database.close()
    assert all((room / "files" / name).exists() for name in sealed)
    steps = steps_of(order_for(source), rooms)
    for step in steps:
        if step.stage == "deidentify" and not any((room / "files" / name).exists() for name in sealed):
            break
    database = IntakeDb(room / "intake.db", KEYS.quarantine)
    assert database.study(ready.study).state is StudyState.FORGOTTEN
    database.close()
    list(steps)
    assert contents(rooms) == undisturbed


def test_a_forgotten_study_leaves_no_original_no_name_and_nothing_it_lost(source: Path, tmp_path: Path) -> None:
    rooms = folders(tmp_path)
    room = rooms.quarantine / "order-1"
    left: list[tuple[int, int, int, int]] = []

    class Looks(KeepingCore):
        def take(self, ready: ReadyStudy) -> None:
            with sqlite3.connect(room / "intake.db") as database:
                gone = "SELECT study FROM study WHERE state = 'forgotten'"
                counts = [
                    database.execute(f"SELECT count(*) FROM {table} WHERE study IN ({gone})").fetchone()[0]
                    for table in ("named", "trace")
                ]
                kept = database.execute("SELECT count(*) FROM source WHERE destroyed = 0").fetchone()[0]
            left.append((*counts, kept, len(list((room / "files").iterdir()))))
            super().take(ready)

    finish(source, rooms, Looks())
    assert [each[:2] for each in left] == [(0, 0)] * len(left)
    assert [each[2] for each in left] == [each[3] for each in left] == sorted((each[2] for each in left), reverse=True)
    assert left[-1][2] < left[0][2]  # study by study, not all at the end


def test_what_a_forgotten_study_lost_is_in_no_file_any_more_not_even_sealed(source: Path, tmp_path: Path) -> None:
    rooms = folders(tmp_path)
    room = rooms.quarantine / "order-1"
    sealed: dict[bytes, str] = {}
    forgotten: list[bool] = []

    class Looks(KeepingCore):
        def take(self, ready: ReadyStudy) -> None:
            with closing(sqlite3.connect(room / "intake.db")) as database:
                for table in ("named", "trace"):
                    sealed.update(database.execute(f"SELECT sealed, study FROM {table}"))
                gone = {row[0] for row in database.execute("SELECT study FROM study WHERE state = 'forgotten'")}
            everything = b"".join(path.read_bytes() for path in room.glob("intake.db*"))
            for value, study in sealed.items():
                if study in gone:
                    forgotten.append(value in everything)
            super().take(ready)

    finish(source, rooms, Looks())
    assert forgotten and not any(forgotten)


def test_the_source_folder_may_go_once_everything_is_taken_in(
    source: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    mine, rooms = tmp_path / "mine", folders(tmp_path)
    shutil.copytree(source, mine)
    steps = steps_of(order_for(mine), rooms)
    while next(steps).stage == "take_in":
        pass
    steps.close()  # type: ignore[attr-defined]
    shutil.rmtree(mine)
    last = list(steps_of(order_for(mine), rooms))[-1]
    assert last.report is not None and last.report.studies_published >= PATIENTS
    assert contents(rooms) == undisturbed and not any(rooms.quarantine.iterdir())


# --- what met a defect of ours ----------------------------------------------------------------------------------


def put(
    source: Path, name: str, study: int, number: int, patient: str, description: str = "CHEST", operator: str = ""
) -> None:
    source.mkdir(exist_ok=True)
    data = ct_slice()
    data.PatientID, data.StudyInstanceUID = patient, f"1.2.826.0.1.555.{study}"
    data.SeriesInstanceUID = f"1.2.826.0.1.556.{study}"
    data.SOPInstanceUID, data.InstanceNumber = f"1.2.826.0.1.557.{study}.{number}", number
    data.SeriesDescription = description
    if operator:
        data.OperatorsName = operator
    (source / name).write_bytes(to_bytes(data))


@pytest.fixture
def defect(tmp_path: Path) -> Path:
    """Two patients: the first has two studies, one of them with a file our engine has a defect over."""
    source = tmp_path / "defect"
    put(source, "a1", 1, 1, "P1")
    put(source, "a2", 1, 2, "P1", "DEFECT")
    put(source, "b1", 2, 1, "P1")
    put(source, "c1", 3, 1, "P2")
    (source / "clinical.csv").write_text("PatientID,StudyInstanceUID,lesion\nP2,1.2.826.0.1.555.3,1\n")
    return source


def steps(
    source: Path, rooms: IntakeFolders, parts: PartsMaker, core: KeepingCore, *, give_up: bool = False
) -> Progress:
    return list(steps_of(order_for(source), rooms, workers=started(parts), core=core, give_up=give_up))[-1]


def test_a_study_that_meets_a_defect_of_ours_waits_sealed_and_its_patient_with_it_and_the_others_go_on(
    defect: Path, tmp_path: Path
) -> None:
    rooms, core = folders(tmp_path), KeepingCore()
    last = steps(defect, rooms, defective, core)
    assert (last.waiting, last.report, last.destroyed) == (1, None, 1)
    assert len(core.taken) == 1  # the other patient's
    assert len(list((rooms.quarantine / "order-1" / "files").iterdir())) == 3
    assert steps(defect, rooms, defective, core).waiting == 1 and len(core.taken) == 1  # the same version: the same


def test_what_waited_is_published_by_a_version_without_the_defect_as_if_nothing_had_happened(
    defect: Path, tmp_path: Path
) -> None:
    rooms, core, whole = folders(tmp_path / "a"), KeepingCore(), folders(tmp_path / "b")
    steps(defect, rooms, defective, core)
    last = steps(defect, rooms, headers_only, core)
    assert last.report is not None and last.report.instances_published == 4 and last.report.instances_excluded == {}
    steps(defect, whole, headers_only, KeepingCore())
    assert contents(rooms) == contents(whole)


def test_what_is_given_up_is_destroyed_and_counted_as_our_defect(defect: Path, tmp_path: Path) -> None:
    rooms, core = folders(tmp_path), KeepingCore()
    steps(defect, rooms, defective, core)
    # by a version that could read it, too: the person decided
    last = steps(defect, rooms, headers_only, core, give_up=True)
    assert last.report is not None and last.report.studies_excluded == {"our_defect": 1}
    assert last.report.instances_excluded == {"our_defect": 2} and last.report.instances_published == 2
    assert last.destroyed == 4 and not any(rooms.quarantine.iterdir())


@pytest.mark.parametrize("after", [1, 2, 3])
def test_giving_up_that_is_broken_off_is_given_up_whole(defect: Path, tmp_path: Path, after: int) -> None:
    rooms, core, whole = folders(tmp_path / "a"), KeepingCore(), folders(tmp_path / "b")
    steps(defect, whole, defective, KeepingCore())
    undisturbed = steps(defect, whole, headers_only, KeepingCore(), give_up=True)
    steps(defect, rooms, defective, core)
    broken = steps_of(order_for(defect), rooms, workers=started(headers_only), core=core, give_up=True)
    list(islice(broken, after))
    broken.close()  # type: ignore[attr-defined]
    last = steps(defect, rooms, headers_only, core, give_up=True)
    assert last.report == undisturbed.report and contents(rooms) == contents(whole)
    assert not any(rooms.quarantine.iterdir())


def test_an_import_is_not_continued_with_another_site_key(defect: Path, tmp_path: Path) -> None:
    rooms = folders(tmp_path)
    steps(defect, rooms, defective, KeepingCore())
    with pytest.raises(UsageFault, match="key"):
        next(steps_of(order_for(defect), rooms, IntakeKeys(b"t" * 32, KEYS.quarantine)))


def test_destroying_an_import_counts_what_was_destroyed_before_and_says_so_until_it_is_on_record(
    defect: Path, tmp_path: Path
) -> None:
    rooms = folders(tmp_path)
    steps(defect, rooms, defective, KeepingCore())
    assert destroy_import("order-1", rooms, KEYS.quarantine) == 4
    assert [*rooms.quarantine.iterdir()] == [rooms.note("order-1")] and not any(rooms.handover.iterdir())
    assert destroy_import("order-1", rooms, KEYS.quarantine) == 4  # core did not hear it
    rooms.note("order-1").unlink()
    assert destroy_import("order-1", rooms, KEYS.quarantine) == 0


def test_a_file_in_the_way_is_no_import_and_is_taken_away(tmp_path: Path) -> None:
    rooms = folders(tmp_path)
    for room in (rooms.quarantine, rooms.handover):
        room.mkdir(exist_ok=True)
    (rooms.quarantine / "note.txt").write_text("left here")
    (rooms.handover / "elsewhere").symlink_to(tmp_path)
    for name in ("note.txt", "elsewhere"):
        destroy_import(name, rooms, None)
    assert not any(rooms.quarantine.iterdir()) and not any(rooms.handover.iterdir()) and tmp_path.is_dir()


def test_a_source_that_is_no_longer_allowed_is_not_read_on(source: Path, tmp_path: Path) -> None:
    rooms = folders(tmp_path)
    steps = steps_of(order_for(source), rooms)
    next(steps)
    steps.close()  # type: ignore[attr-defined]

    def narrowed() -> None:
        raise UsageFault("the folder is under none of the configured source roots")

    with pytest.raises(UsageFault, match="source roots"):
        list(steps_of(order_for(source), rooms, allowed=narrowed))


# --- at the wrong moment ----------------------------------------------------------------------------------------


def test_what_a_row_speaks_of_is_on_the_disk_before_the_row(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut would find it."""
    flushed: set[str] = set()
    fsync, add, deidentified = os.fsync, IntakeDb.add, IntakeDb.deidentified

    def watched(handle: int) -> None:
        flushed.add(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def added(self: IntakeDb, sources: list[TakenIn]) -> None:
        assert {f"{one.quarantined}.part" for one in sources if one.quarantined} | {"files"} <= flushed
        add(self, sources)

    def through(self: IntakeDb, study: str, results: list[Result], *more: Any) -> None:
        assert {study, *(one.name for one in results if one.name)} <= flushed
        deidentified(self, study, results, *more)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(IntakeDb, "add", added)
    monkeypatch.setattr(IntakeDb, "deidentified", through)
    finish(source, folders(tmp_path))
    assert {"clinical.parquet", ".report.json.part", "quarantine", "handover", ".order-1.partial"} <= flushed


def test_a_copy_that_was_sealed_and_not_yet_recorded_is_removed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, add = folders(tmp_path), IntakeDb.add

    def killed(self: IntakeDb, sources: list[TakenIn]) -> None:
        if self.count() == 2:
            raise KeyboardInterrupt
        add(self, sources)

    monkeypatch.setattr(run_import, "_SEALED_TOGETHER", 1)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(IntakeDb, "add", killed)
        finish(source, rooms)
    files = rooms.quarantine / "order-1" / "files"
    assert len(list(files.iterdir())) == 3
    (files / "0123.part").write_bytes(b"half")
    steps = steps_of(order_for(source), rooms)
    while (step := next(steps)).stage == "take_in":
        pass
    assert len(list(files.iterdir())) == step.total - 1  # what is no DICOM is destroyed already
    last = list(steps)[-1]
    assert last.report is not None and last.destroyed == last.report.instances_in


def test_a_file_that_a_dead_worker_left_in_its_place_is_not_handed_over(
    source: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, flush = folders(tmp_path), Handover.flush

    def left(self: Handover, study: str) -> None:
        flush(self, study)
        (self.sink(study).folder / "2.25.99.dcm").write_bytes(b"of a file that is refused")

    monkeypatch.setattr(Handover, "flush", left)
    finish(source, rooms)
    assert contents(rooms) == undisturbed


@pytest.mark.parametrize("moment", ["before it is kept", "after it is cleared"])
def test_a_study_whose_search_met_a_defect_waits_even_if_intake_is_killed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    source, rooms, core = tmp_path / "two", folders(tmp_path / "a"), KeepingCore()
    put(source, "a1", 1, 1, "P1", "PELVIS")
    put(source, "b1", 2, 1, "P1", "CHEST")
    (source / "clinical.csv").write_text("PatientID,StudyInstanceUID,lesion\nP1,1.2.826.0.1.555.1,1\n")
    cleared, clear = [], Handover.clear

    def killed(self: Handover, study: str) -> None:
        clear(self, study)
        if study in cleared:
            raise KeyboardInterrupt
        cleared.append(study)

    def kept(self: IntakeDb, study: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "before it is kept":
            patch.setattr(IntakeDb, "wait", kept)
        else:
            patch.setattr(Handover, "clear", killed)
        steps(source, rooms, never_searched, core)
    assert len(list((rooms.quarantine / "order-1" / "files").iterdir())) == 2
    assert steps(source, rooms, never_searched, core).waiting == 1 and not core.taken
    last = steps(source, rooms, headers_only, core)
    assert last.report is not None and last.report.instances_excluded == {}


def test_a_study_that_another_try_reveals_is_searched_for_what_its_patients_forgotten_ones_lost(
    tmp_path: Path,
) -> None:
    source, rooms, core = tmp_path / "late", folders(tmp_path), KeepingCore()
    put(source, "a1", 1, 1, "P1", operator="H\u00e4nd^X")
    put(source, "b1", 2, 1, "P1", "HAND CHEST DEFECT")
    put(source, "c1", 3, 1, "P2")
    (source / "clinical.csv").write_text("PatientID,StudyInstanceUID,lesion\nP1,1.2.826.0.1.555.1,1\n")

    def kept() -> int:
        """Forgotten studies of which something is still sealed."""
        with sqlite3.connect(rooms.quarantine / "order-1" / "intake.db") as database:
            query = "SELECT count(DISTINCT study) FROM named JOIN study USING (study) WHERE state = 'forgotten'"
            found: int = database.execute(query).fetchone()[0]
        return found

    assert steps(source, rooms, surveyed_with_a_defect, core).waiting == 1 and kept() == 2
    assert steps(source, rooms, defective, core).waiting == 1 and kept() == 1  # it is known whose it is
    last = steps(source, rooms, headers_only, core)
    assert last.report is not None and last.report.instances_published == 3
    (late,) = (one for one in core.taken if one not in core.taken[:2])
    (path,) = (rooms.handover / "order-1" / "studies" / late.study).iterdir()
    said = pydicom.dcmread(path).SeriesDescription
    assert "CHEST" in said and "HAND" not in said


def test_a_full_disk_does_not_keep_an_import_from_being_destroyed(
    defect: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = folders(tmp_path)
    steps(defect, rooms, defective, KeepingCore())

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(run_import, "replace_file", full)
    assert destroy_import("order-1", rooms, KEYS.quarantine) == 4
    assert not any(rooms.quarantine.iterdir()) and not any(rooms.handover.iterdir())


# --- memory -----------------------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from pathlib import Path
from node.intake.intake_db import IntakeDb, TakenIn
from node.deid.outcome import Identity
from node.deid.pipeline import Survey
from mediator.deid.identifiers import Identifier
database, files = IntakeDb(Path(sys.argv[1]) / "intake.db", b"q" * 32), int(sys.argv[2])
for begin in range(0, files, 64):
    database.add(
        TakenIn(f"a/folder/of/files/{number:08d}.dcm", quarantined=f"{number:032x}")
        for number in range(begin, min(begin + 64, files))
    )
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
study = Identity("1" * 32, "2" * 32, "3" * 32, "2.25.1", "2.25.2", "2.25.3", 1, 1)
told = []
for file in database.unsurveyed():
    told.append(Survey(file.number, study, (Identifier("name", "Hartog"),), None))
    if len(told) == 64:
        database.surveyed(told)
        told.clear()
database.surveyed(told)
database.group_studies()
assert database.count(where="surveyed = 1") == files
for page in database.sealed("3" * 32):
    database.destroyed([number for number, _ in page])
assert database.destroyed_files == files
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """20,000 files; at 2 kB a file that would be 40 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path, "20000"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 6 * 1024, done.stdout
