"""Refusals by the thousand: what a stranger sends costs a bounded number of records a day, and hides nothing honest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mediator.audit import MAX_LINE_BYTES
from mediator.errors import Code, Denied, HubCode, Malformed
from mediator.jobs import JobState
from node.core.refusals import KEPT_PER_DAY, Refusals
from node.core.tasks import admit_task
from tests.mediator import samples
from tests.node.core.desk import Desk, Gate, Written, eventually

HUNDREDS = 300
# a refusal that is kept: two records, an instruction without its words, a job
_KEPT_BYTES = 6_000


def weight(root: Path) -> int:
    """The bytes of the database, its write-ahead log emptied."""
    with closing(sqlite3.connect(root / "node.db", isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (root / "node.db").stat().st_size


def words(desk: Desk, instruction: str) -> tuple[str, bytes, str]:
    with desk.core.store.read() as snapshot:
        row = snapshot.instruction(instruction)
    assert row is not None
    return row.text, row.reply_context, row.text_sha256


def instructions(desk: Desk) -> int:
    with closing(sqlite3.connect(desk.root / "node.db")) as other:
        return int(other.execute("SELECT count(*) FROM instruction").fetchone()[0])


def test_hundreds_of_signed_instructions_without_a_permit_stay_bounded(desk: Desk, gate: Gate) -> None:
    """As large as an instruction may be, as fast as core reads: the hub's own signature is on each."""
    before, at_first, kept = desk.size(), weight(desk.root), 50
    core = replace(desk.core, refusals=Refusals(kept))
    big = {f"key-{n:03d}": "x" * 60 for n in range(50)}
    for attempt in range(1, HUNDREDS + 1):
        text = samples.HUB.sign(samples.instruction(permit="nobodys", attempt=attempt, config=big))
        assert admit_task.receive(core, text, b"c" * 2_000, [b"model"]) is HubCode.REFUSED_PERMIT
    assert instructions(desk) == kept and len(desk.log(before)) == 2 * kept
    assert weight(desk.root) - at_first < kept * _KEPT_BYTES
    text, context, digest = words(desk, "run-1/1/train/1")
    assert (text, context) == ("", b"") and len(digest) == 64, "id and hash, nothing more"
    assert next(iter(_outgoing(desk)), None) is None, "answered at once, so nothing of it waits"

    gate.open.set()
    at = desk.size()
    assert desk.ask(attempt=HUNDREDS + 1) is None, "an honest one is served all the same"
    eventually(desk.releases)
    assert words(desk, f"run-1/1/train/{HUNDREDS + 1}")[0] == samples.HUB.sign(
        samples.instruction(attempt=HUNDREDS + 1)
    ), "and recorded whole"
    assert [each.action for each in desk.log(at)][:3] == ["instruction_receive", "task_admit", "ledger_charge"]


def _outgoing(desk: Desk) -> tuple[object, ...]:
    with desk.core.store.read() as snapshot:
        return snapshot.outgoing()


def test_what_was_refused_beyond_the_limit_is_one_record_when_the_day_is_over(desk: Desk) -> None:
    for number in range(KEPT_PER_DAY + 50):
        admit_task.receive(desk.core, f"junk {number}", b"", [])
        with pytest.raises(Malformed):
            desk.documents.receive(f"junk {number}")
    refusals, store = desk.core.refusals, desk.core.store
    before = desk.size()
    refusals.sum_up(store, desk.now)
    assert desk.size() == before, "the day is not over"
    day = desk.now.date().isoformat()
    desk.now += timedelta(days=1)
    refusals.sum_up(store, desk.now)
    assert [(each.action, each.about.rpartition("/")[2]) for each in desk.log(before)] == [("refusals_count", "50")] * 2
    assert Written("refusals_count", f"refusals/link/unread/{day}/50", "refused", "") in desk.log(before)
    before = desk.size()
    refusals.sum_up(store, desk.now)
    assert desk.size() == before, "once"
    admit_task.receive(desk.core, "junk of the next day", b"", [])
    assert desk.size() == before + 1, "a new day has room again"


def test_thousands_of_junk_documents_stay_bounded(desk: Desk) -> None:
    before, at_first = desk.size(), weight(desk.root)
    for number in range(2_000):
        forged = samples.STRANGER.sign(samples.revocations(number=number + 100))
        with pytest.raises(Denied):
            desk.documents.receive(forged)
    assert desk.size() - before == KEPT_PER_DAY
    assert weight(desk.root) - at_first < KEPT_PER_DAY * MAX_LINE_BYTES
    revoked = samples.COMMITTEE.sign(samples.revocations(number=6, permits=("lesions-2026",)))
    assert desk.documents.receive(revoked), "and a true one is taken in and recorded"
    assert Written("document_import", "revocation-list/6", "done", "") in desk.log(before)


def test_a_replay_by_the_hundred_is_bounded_too(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    before = desk.size()
    for number in range(KEPT_PER_DAY + 50):
        assert desk.ask(context=f"message {number}".encode()) is HubCode.REFUSED_INSTRUCTION
    assert desk.size() - before == KEPT_PER_DAY and instructions(desk) == 1


def test_attempts_of_a_task_that_is_computed_do_not_pile_up_with_their_models(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    answers = [desk.ask(attempt=attempt) for attempt in range(2, 12)]
    assert answers.count(None) == 7 and len(list((desk.root / "jobs").iterdir())) == 8
    with desk.core.store.read() as snapshot:
        assert {row.code for row in snapshot.jobs() if row.state is JobState.REFUSED} == {Code.TOO_MANY_OPEN}


def test_a_release_is_not_enveloped_again_without_end(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    answers = [desk.ask(attempt=attempt) for attempt in range(2, 80)]
    assert answers.count(None) == 63 and set(answers[63:]) == {HubCode.REFUSED_INSTRUCTION}


def test_the_same_refused_instruction_again_gets_the_same_answer_and_does_nothing(desk: Desk) -> None:
    assert desk.ask(permit="nobodys") is HubCode.REFUSED_PERMIT
    before = desk.size()
    assert desk.ask(permit="nobodys") is HubCode.REFUSED_PERMIT and desk.size() == before


def test_a_restart_gives_no_second_day(desk: Desk) -> None:
    for number in range(KEPT_PER_DAY):
        admit_task.receive(desk.core, f"junk {number}", b"", [])
    before, again = desk.size(), replace(desk.core, refusals=Refusals())
    admit_task.receive(again, "junk after the restart", b"", [])
    assert desk.size() == before
