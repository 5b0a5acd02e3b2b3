"""What the stream of checkpoints costs: it is woken by every commit, and looks into an index, however long the log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event as events
from sqlalchemy import text
from sqlalchemy.orm import Session

from mediator.audit import Action, Verdict
from node.core.audit.witness import WitnessDesk
from node.core.context import event
from node.core.tasks.watch import checkpoint
from tests.node.core.desk import Desk

LINES = 100_000
LOOKS = 50
# as many records as checkpoints: an earlier log need not be made for this
_MANY = f"WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {LINES})"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, documents=False)
    with desk.core.store.transaction(desk.now) as tx:
        run, at = tx._session.execute, {"at": "2026-11-22 00:00:00.000000"}
        run(text(f"INSERT INTO checkpoint (size, text, time) {_MANY} SELECT n, '{{}}', :at FROM count"), at)
        run(text(f"INSERT INTO witnessed (size, text, time) {_MANY} SELECT n, '{{}}', :at FROM count"), at)
    yield desk
    desk.core.store.close()


def test_a_look_costs_the_same_after_a_hundred_thousand_witnessed_lines(desk: Desk) -> None:
    loaded = 0

    def count(_session: Session, _row: object) -> None:
        nonlocal loaded
        loaded += 1

    looks = 0

    def active() -> bool:
        """A commit before every look: the stream has something to look at each time."""
        nonlocal looks
        looks += 1
        with desk.core.store.transaction(desk.now) as tx:
            tx.record(event=event(Action.ACCESS, "log/job-1", Verdict.ALLOWED))
        return looks <= LOOKS

    events.listen(Session, "loaded_as_persistent", count)
    try:
        began = time.process_time()
        assert list(WitnessDesk(desk.core).to_show(active)) == []
        took_s = time.process_time() - began
    finally:
        events.remove(Session, "loaded_as_persistent", count)
    # the newest checkpoint, and the head that each of our own records is added to
    assert loaded <= 3 * LOOKS, loaded
    assert took_s < 20.0, took_s  # reading every line took 1.9 s a look


def test_a_proof_reads_what_was_added_and_not_what_was_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    checkpoint(desk.core)
    with desk.core.store.transaction(desk.now) as tx:
        for number in range(2000):
            tx.record(event=event(Action.ACCESS, f"log/job-{number}", Verdict.ALLOWED))
    checkpoint(desk.core)
    with desk.core.store.read() as snapshot:
        newest = snapshot.newest_checkpoint()
        assert newest is not None
        assert list(snapshot.lines_between(newest.size, newest.size)) == []
        # the lines before a checkpoint are gone in this copy of the log: its frontier stands for them
        snapshot._session.execute(text("DELETE FROM audit_record WHERE sequence <= :size"), {"size": newest.size})
        assert snapshot.tree_at(newest.size) == snapshot.audit_tree()
    desk.core.store.close()
