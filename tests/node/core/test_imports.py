"""An import as core has it: a row that outlives core, studies taken once, and one trail of records."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mediator.audit import Action, Verdict, decode_line
from mediator.errors import CloisterError, IntegrityBroken, NotNow, UsageFault
from mediator.import_orders import IngestOrder
from mediator.imports import ImportState, ImportStep
from node.core.context import event
from node.core.datasets.removal import remove_unheld
from node.core.imports.imports import Imports
from node.core.records import ImportRow
from node.ipc import intake as words
from node.ipc.imports import IngestHappened
from tests.mediator import samples
from tests.node.core.desk import Desk
from tests.node.core.handover import PROJECT, bring, ready, study, write_import

STEWARD = "data_steward"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, documents=False)
    yield made
    made.core.store.close()


def make(name: str) -> IngestOrder:
    return IngestOrder(name, samples.SITE, PROJECT, "images", "/data/src", "eucaim", None, (), 0.0)


def row(desk: Desk, name: str) -> ImportRow:
    with desk.core.store.read() as snapshot:
        found = snapshot.find_import(name)
    assert found is not None
    return found


def restarted(desk: Desk, software: str = "1") -> Imports:
    """A core that was killed and started again."""
    desk.core.store.close()
    desk._open()
    with desk.core.datasets_lock:
        remove_unheld(desk.core)
    imports = Imports(desk.core, software)
    imports.start()
    return imports


def first_work(imports: Imports) -> words.Work:
    return next(imports.work(lambda: True))


def last_news(imports: Imports, name: str) -> IngestHappened:
    return list(imports.follow(name, lambda: True))[-1]


def told(desk: Desk) -> list[str]:
    """The trail, without what the sweep and others say."""
    return [f"{each.action} {each.about.partition('/')[2]} {each.verdict}" for each in desk.log()]


def trail(name: str, numbers: list[int]) -> list[str]:
    return [
        f"ingest_order {name} allowed",
        f"import_advance {name}/take_in done",
        f"import_advance {name}/deidentify done",
        *(f"study_take {name}/{study(number).study} done" for number in numbers),
        f"quarantine_destroy {name}/{2 * len(numbers)} done",
        f"ingest_report {name} done",
        "dataset_publish  done",
        f"import_advance {name}/publish done",
    ]


def test_an_import_is_published_with_one_trail_and_keeps_no_order(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    assert "/data/src" in row(desk, name).order_text and "/data/src" not in repr(row(desk, name))
    assert first_work(imports) == words.Work("carry_out", make(name))
    write_import(desk.root / "handover" / name, [1, 2, 3], name)
    bring(imports, name, [1, 2, 3])
    assert told(desk) == trail(name, [1, 2, 3])
    done = row(desk, name)
    assert (done.state, done.order_text, done.studies, done.studies_done) == (ImportState.PUBLISHED, "", 3, 3)
    last = last_news(imports, name)
    assert last.kind == "published" and last.dataset_version == done.dataset_version and last.counts["studies"] == 3
    with desk.core.store.read() as snapshot:
        assert snapshot.import_studies(name) == () and snapshot.imports(unfinished=True) == ()


def test_what_a_steward_says_took_the_faces_off_is_on_record_with_the_order_and_his_name(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(lambda name: replace(make(name), defaced_by="pydeface-2.1"), f"{STEWARD}.anna")
    with desk.core.store.read() as snapshot:
        records = [decode_line(line.encode()) for line in snapshot.audit_lines(0, 100)]
    (last,) = [each for each in records if each.action is Action.INGEST_ORDER]
    assert last.object == f"ingest/{name}/defaced-by/pydeface-2.1" and last.actor == f"{STEWARD}.anna"
    assert first_work(imports).order.defaced_by == "pydeface-2.1"


STAGES = ("ordered", "taking_in", "deidentifying", "one taken", "all taken", "publishing")


@pytest.mark.parametrize("killed", STAGES)
def test_a_core_killed_in_any_state_publishes_the_same_version_in_one_trail(tmp_path: Path, killed: str) -> None:
    undisturbed = Desk(tmp_path / "a", documents=False)
    imports = Imports(undisturbed.core, "1")
    name = imports.give(make, STEWARD)
    write_import(undisturbed.root / "handover" / name, [1, 2], name)
    bring(imports, name, [1, 2])
    version = row(undisturbed, name).dataset_version

    desk = Desk(tmp_path / "b", documents=False)
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1, 2], name)

    def dies_when(now: str) -> Imports:
        return restarted(desk) if now == killed else imports

    imports = dies_when("ordered")
    imports.progress(words.IngestProgress(name, "take_in", 0, 0))
    imports = dies_when("taking_in")
    imports.progress(words.IngestProgress(name, "deidentify", 0, 4))
    imports = dies_when("deidentifying")
    assert imports.take(ready(name, 1, 2)) == "taken"
    imports = dies_when("one taken")
    assert imports.take(ready(name, 1, 2)) == imports.take(ready(name, 2, 2)) == "taken"  # said twice, taken once
    imports = dies_when("all taken")
    if killed == "publishing":
        with desk.core.store.transaction(desk.now) as tx:  # what core writes before it makes the version
            tx.record(event=event(Action.QUARANTINE_DESTROY, f"ingest/{name}/4", Verdict.DONE))
            reported = event(Action.INGEST_REPORT, f"ingest/{name}", Verdict.DONE)
            tx.advance_import(name, ImportStep.REPORT, event=reported)
        imports = restarted(desk)
        assert first_work(imports).kind == "carry_out"
    imports.ended(words.IngestEnd(name, 4))
    imports.ended(words.IngestEnd(name, 4))  # intake did not hear the answer
    assert row(desk, name).dataset_version == version
    assert told(desk) == trail(name, [1, 2])
    with desk.core.store.read() as snapshot:
        assert [each.dataset_version for each in snapshot.dataset_versions()] == [version]
    for each in (undisturbed, desk):
        each.core.store.close()


def test_studies_of_an_import_under_way_outlive_a_restart_and_of_a_failed_one_nothing_stays(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1, 2], name)
    for stage in ("take_in", "deidentify"):
        imports.progress(words.IngestProgress(name, stage, 0, 0))  # type: ignore[arg-type]
    imports.take(ready(name, 1, 2))
    imports = restarted(desk)
    studies = desk.core.folders.datasets / PROJECT / "studies"
    assert len(list(studies.iterdir())) == 1
    imports.ended(words.IngestEnd(name, 3, error="the source folder is gone", hint="look"))
    assert list(studies.iterdir()) == []
    last = last_news(imports, name)
    assert (last.kind, last.error, last.hint, last.again) == ("failed", "the source folder is gone", "look", False)
    assert told(desk)[-2:] == [f"quarantine_destroy {name}/3 done", f"ingest_report {name} failed"]


def test_a_stopped_import_is_on_record_before_anything_is_destroyed_and_takes_no_study(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1], name)
    for stage in ("take_in", "deidentify"):
        assert imports.progress(words.IngestProgress(name, stage, 0, 0))  # type: ignore[arg-type]
    imports.stop(name, STEWARD)
    assert told(desk)[-1] == f"import_stop {name} allowed"
    imports = restarted(desk)
    assert first_work(imports).kind == "destroy"
    assert not imports.progress(words.IngestProgress(name, "deidentify", 0, 0))
    assert imports.take(ready(name, 1, 1)) == "stopped"
    imports.ended(words.IngestEnd(name, 2))  # even where intake was through in that moment
    assert row(desk, name).state is ImportState.STOPPED and last_news(imports, name).kind == "stopped"
    assert told(desk)[-2:] == [f"quarantine_destroy {name}/2 done", f"import_stop {name} done"]
    with pytest.raises(UsageFault, match="is stopped"):
        imports.stop(name, STEWARD)


@pytest.mark.parametrize("decision", ["retry", "give_up", "a newer version", "the same version"])
def test_what_waits_is_tried_again_by_a_person_or_a_newer_version_or_given_up(desk: Desk, decision: str) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1], name)
    for stage in ("take_in", "deidentify"):
        imports.progress(words.IngestProgress(name, stage, 0, 0))  # type: ignore[arg-type]
    imports.take(ready(name, 1, 2))
    imports.ended(words.IngestEnd(name, 2, waiting=1))
    assert row(desk, name).state is ImportState.WAITING and row(desk, name).studies_waiting == 1
    last = last_news(imports, name)
    assert (last.kind, last.waiting) == ("waiting", 1)
    assert told(desk)[-1] == f"import_advance {name}/wait done"  # nothing is destroyed, nothing reported
    if decision == "retry":
        imports.retry(name, STEWARD)
    elif decision == "give_up":
        imports.give_up(name, STEWARD)
    else:
        imports = restarted(desk, "2" if decision == "a newer version" else "1")
    if decision == "the same version":
        with desk.core.store.read() as snapshot:
            assert snapshot.imports(unfinished=True)[0].state is ImportState.WAITING
        return
    assert first_work(imports).kind == ("give_up" if decision == "give_up" else "carry_out")
    imports.ended(words.IngestEnd(name, 4))
    assert row(desk, name).state is ImportState.PUBLISHED


def test_a_study_that_is_not_what_was_taken_before_or_holds_less_is_refused(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    handover = desk.root / "handover" / name
    write_import(handover, [1, 2], name)
    for stage in ("take_in", "deidentify"):
        imports.progress(words.IngestProgress(name, stage, 0, 0))  # type: ignore[arg-type]
    (handover / study(2).study / "0002.dcm").unlink()
    with pytest.raises(IntegrityBroken):
        imports.take(ready(name, 2, 2))
    for strange in ("../../etc", "A" * 32, ""):
        with pytest.raises(CloisterError):
            imports.take(words.StudyReady(name, 1, strange, "1" * 32, "train", 1, ready(name, 1, 1).made_by))
    imports.take(ready(name, 1, 2))
    imports.ended(words.IngestEnd(name, 4))  # its account names a study core does not have
    assert row(desk, name).state is ImportState.FAILED and row(desk, name).dataset_version is None


def test_two_follow_an_import_and_both_hear_of_its_end_and_whoever_comes_late_too(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1], name)
    heard: list[list[IngestHappened]] = [[], []]
    followers = [
        threading.Thread(target=lambda into=into: into.extend(imports.follow(name, lambda: True))) for into in heard
    ]
    for follower in followers:
        follower.start()
    while len(imports._followers.get(name, ())) < 2:
        pass
    bring(imports, name, [1])
    for follower in followers:
        follower.join(10)
    assert [each[-1].kind for each in heard] == ["published", "published"]
    assert [news.stage for news in heard[0]] == ["take_in", "deidentify", ""]
    assert last_news(imports, name).kind == "published"


def test_what_belonged_to_no_import_is_on_record_once_it_is_destroyed(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    assert imports.live() == (name,)
    imports.swept("ingest-0123456789ab", 7)
    assert told(desk)[-1] == "quarantine_destroy ingest-0123456789ab/7 done"


def test_an_unknown_import_can_be_neither_followed_nor_stopped(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    for ask in (imports.stop, imports.retry, imports.give_up):
        with pytest.raises(UsageFault, match="no such import"):
            ask("ingest-000000000000", STEWARD)
    with pytest.raises(UsageFault, match="no such import"), suppress(StopIteration):
        next(imports.follow("ingest-000000000000", lambda: True))


# --- what happens at the wrong moment -----------------------------------------------------------------------------


def under_way(desk: Desk, numbers: list[int]) -> tuple[Imports, str]:
    """An import of which intake has begun to de-identify."""
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, numbers, name)
    for stage in ("take_in", "deidentify"):
        assert imports.progress(words.IngestProgress(name, stage, 0, 0))  # type: ignore[arg-type]
    return imports, name


def test_a_version_that_a_held_database_could_not_take_is_made_once_it_can(desk: Desk) -> None:
    imports, name = under_way(desk, [1, 2])
    assert [imports.take(ready(name, number, 2)) for number in (1, 2)] == ["taken", "taken"]
    with desk.core.store.transaction(desk.now) as tx:
        tx.advance_import(name, ImportStep.REPORT, event=event(Action.INGEST_REPORT, f"ingest/{name}", Verdict.DONE))
    with closing(sqlite3.connect(desk.root / "node.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotNow):
            imports.ended(words.IngestEnd(name, 4))
        other.execute("ROLLBACK")
    assert row(desk, name).state is ImportState.PUBLISHING
    assert first_work(restarted(desk)) == words.Work("carry_out", make(name), begun=True)
    imports = Imports(desk.core, "1")
    imports.ended(words.IngestEnd(name, 4))
    assert row(desk, name).state is ImportState.PUBLISHED
    with desk.core.store.read() as snapshot:
        assert [each.dataset_version for each in snapshot.dataset_versions()] == [row(desk, name).dataset_version]


def test_an_import_stopped_while_intake_says_that_it_waits_is_still_to_be_destroyed(desk: Desk) -> None:
    imports, name = under_way(desk, [1])
    imports.stop(name, STEWARD)
    before = told(desk)
    imports.ended(words.IngestEnd(name, 0, waiting=1))
    assert row(desk, name).state is ImportState.STOPPING and told(desk) == before
    assert first_work(imports).kind == "destroy"
    imports.ended(words.IngestEnd(name, 2))
    assert row(desk, name).state is ImportState.STOPPED
    assert told(desk)[-2:] == [f"quarantine_destroy {name}/2 done", f"import_stop {name} done"]


def test_a_study_handed_over_twice_is_the_same_or_refused(desk: Desk) -> None:
    imports, name = under_way(desk, [1])
    said = ready(name, 1, 1)
    assert imports.take(said) == imports.take(said) == "taken"
    for other in (replace(said, instances=1), replace(said, patient="9" * 32)):
        with pytest.raises(IntegrityBroken, match="differs"):
            imports.take(other)


def test_what_is_tried_again_is_given_out_again_at_once(desk: Desk) -> None:
    imports, name = under_way(desk, [1])
    stream = imports.work(lambda: True)
    assert next(stream).begun
    imports.ended(words.IngestEnd(name, 0, waiting=1))
    imports.retry(name, STEWARD)
    assert next(stream).kind == "carry_out"
    stream.close()  # type: ignore[attr-defined]


def test_a_core_restored_from_a_backup_hears_of_an_end_it_never_saw_begin(desk: Desk) -> None:
    imports = Imports(desk.core, "1")
    name = imports.give(make, STEWARD)
    write_import(desk.root / "handover" / name, [1], name)
    imports.ended(words.IngestEnd(name, 2))  # no study of it is here: its account cannot be right
    assert row(desk, name).state is ImportState.FAILED


def test_a_core_killed_while_a_person_gives_up_hands_the_decision_out_again(desk: Desk) -> None:
    imports, name = under_way(desk, [1, 2])
    assert imports.take(ready(name, 1, 2)) == "taken"
    imports.ended(words.IngestEnd(name, 2, waiting=1))
    imports.give_up(name, STEWARD)
    before = told(desk)
    imports = restarted(desk)
    assert row(desk, name).state is ImportState.GIVING_UP and told(desk) == before
    assert first_work(imports) == words.Work("give_up", make(name), begun=True)
    assert imports.take(ready(name, 2, 2)) == "taken"
    imports.ended(words.IngestEnd(name, 4))
    assert row(desk, name).state is ImportState.PUBLISHED
    assert told(desk).count(f"quarantine_destroy {name}/4 done") == 1
