"""Files in the airlock, kept: content goes with the end, reviews count once."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
from sqlalchemy import text as sql

from mediator.airlock.review import FileEvent, FileState
from mediator.errors import Code, IntegrityBroken
from node.core.store.migrate import MIGRATIONS
from node.core.store.store import Store
from tests.node.core.store import samples
from tests.node.core.store.samples import NOW, event
from tests.node.core.store.test_writes import run_steps


@pytest.fixture
def held(store: Store) -> Store:
    run_steps(store, "add_airlock_file")
    return store


def test_a_file_comes_back_as_it_was_kept(held: Store) -> None:
    with held.read() as reads:
        row = reads.airlock_file("file-1")
        assert row is not None and reads.airlock_files() == reads.airlock_files(waiting=True) == (row,)
        assert (row.state, row.needed, row.code, row.created) == (FileState.CHECKED, 2, None, NOW)
        assert reads.airlock_content("file-1") == samples.airlock_file().content
        assert reads.airlock_file("file-2") is None and reads.airlock_content("file-2") is None


def test_what_ends_a_file_deletes_its_content_and_keeps_its_record(held: Store) -> None:
    with held.transaction(NOW) as tx:
        tx.advance_airlock_file("file-1", FileEvent.EXPIRE, event=event(), code=Code.REVIEW_OVERDUE)
    with held.read() as reads:
        row = reads.airlock_file("file-1")
        assert row is not None and (row.state, row.code) == (FileState.EXPIRED, Code.REVIEW_OVERDUE)
        assert reads.airlock_content("file-1") is None and row.record == "{}"
        assert reads.airlock_files(waiting=True) == ()


def test_a_review_held_already_changes_nothing(held: Store) -> None:
    with held.transaction(NOW) as tx:
        assert tx.add_review(samples.review(), FileEvent.ENDORSE, event=event()) is FileState.WAITING
        size = tx.audit_size()
    with pytest.raises(IntegrityBroken, match="held already"), held.transaction(NOW) as tx:
        tx.add_review(samples.review(), FileEvent.APPROVE, event=event())
    with held.read() as reads:
        assert reads.audit_size() == size and len(reads.airlock_reviews("file-1")) == 1
        row = reads.airlock_file("file-1")
        assert row is not None and row.state is FileState.WAITING


def test_a_file_cannot_leave_its_table(held: Store) -> None:
    for name, happened in (("file-1", FileEvent.RELEASE), ("file-2", FileEvent.EXPIRE)):
        with pytest.raises(IntegrityBroken), held.transaction(NOW) as tx:
            tx.advance_airlock_file(name, happened, event=event())
    with pytest.raises(IntegrityBroken), held.transaction(NOW) as tx:
        tx.add_airlock_file(samples.airlock_file("file-3"), FileEvent.RELEASE, event=event())
    with held.read() as reads:
        assert len(reads.airlock_files()) == 1 and reads.airlock_content("file-1")


def test_counts_go_with_a_file_that_never_leaves_and_stay_with_one_that_was_handed_out(store: Store) -> None:
    run_steps(store, "mark_delivered")
    for file in ("file-1", "file-2"):
        with store.transaction(NOW) as tx:
            new = samples.airlock_file(file)
            tx.add_airlock_file(new, FileEvent.CHECK, replace(samples.shown_counts(file), left=False), event=event())
    with store.transaction(NOW) as tx:
        tx.hand_out("file-2", event=event())
        for file in ("file-1", "file-2"):
            tx.advance_airlock_file(file, FileEvent.EXPIRE, event=event())
    with store.read() as reads:
        assert [(row.source, row.left) for row in reads.shown_counts("p-1")] == [("file-2", True)]


def test_what_left_before_counts_were_kept_is_a_row_without_any(held: Store) -> None:
    """The migration's own statements, on a database that has a file and a release from before."""
    (module,) = [path.stem for path in (MIGRATIONS / "versions").glob("*_shown_counts.py")]
    migration = importlib.import_module(f"node.core.store.migrations.versions.{module}")
    with held.transaction(NOW) as tx:
        tx._session.execute(sql("DELETE FROM shown_counts"))
        for statement in (migration._FILES, migration._ROUNDS):
            tx._session.execute(sql(statement))
    with held.read() as reads:
        rows = reads.shown_counts("p-1")
    assert {row.name for row in rows} == {"a.csv", "rounds"}
    assert all(row.counts is None and row.dataset_version is None and row.run == "run-1" for row in rows)
    assert {row.name: row.left for row in rows} == {"a.csv": False, "rounds": True}
