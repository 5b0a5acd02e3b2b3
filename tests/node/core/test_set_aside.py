"""What fails while everything around it answers: counted over restarts, set aside with a record, and nothing waits
behind it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.client.ports import OutgoingReply
from mediator.errors import HubCode
from mediator.jobs import JobState
from mediator.types import Kind
from node.core.records import REFUSAL, RELEASE
from node.core.refusals import KEPT_PER_DAY
from node.core.store import failures
from node.core.tasks import set_aside
from node.core.tasks.outbox import Outbox
from tests.node.core.desk import Desk, Gate, Written, eventually, later

# answers that came in the same moment go out in the order of their names
FIRST, SECOND = "run-1/1/evaluate/1", "run-1/1/train/1"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_aside, "_FIRST_PAUSE_S", 0.01)


def two_releases(desk: Desk, gate: Gate) -> None:
    gate.open.set()
    desk.ask()
    desk.until(JobState.RELEASED)
    desk.ask(task=Kind.EVALUATE)
    eventually(lambda: desk.job(task=Kind.EVALUATE).state is JobState.RELEASED)


def take(outbox: Outbox, count: int, within_s: float = 10.0) -> list[OutgoingReply]:
    """What a link is given in one stream: up to `count` answers."""
    until = time.monotonic() + within_s
    stream, found = outbox.follow(lambda: time.monotonic() < until), []
    for row in stream:
        found.append(row)
        if len(found) == count:
            break
    return found


def test_a_release_whose_files_were_swept_keeps_nothing_behind_it_waiting(desk: Desk, gate: Gate) -> None:
    """The first of two: the second goes out at once, the first becomes a refusal that the hub can act on."""
    two_releases(desk, gate)
    shutil.rmtree(desk.root / "releases/run-1/1-evaluate")
    before = desk.size()
    found = take(desk.outbox, 2)
    assert [(row.instruction, row.folder is None, row.hub_code) for row in found] == [
        (SECOND, False, None),
        (FIRST, True, HubCode.INTERNAL),
    ]
    job = desk.job(task=Kind.EVALUATE)
    assert job.state is JobState.FAILED and str(job.code) == "set_aside"
    assert desk.log(before) == [
        Written("deliver", FIRST, "failed", "set_aside"),
        Written("job_end", FIRST, "failed", "set_aside"),
    ]
    with desk.core.store.read() as snapshot:
        (row,) = snapshot.set_aside()
    assert (row.kind, row.subject, row.times, row.reason) == ("release", FIRST, 5, "integrity_broken")


def test_counts_and_what_is_set_aside_are_known_after_a_restart(desk: Desk, gate: Gate, tmp_path: Path) -> None:
    two_releases(desk, gate)
    shutil.rmtree(desk.root / "releases/run-1/1-evaluate")
    for _ in range(3):
        set_aside.failed(desk.core, RELEASE, FIRST, "internal")
    again = Outbox(desk.core)  # nothing is in its memory
    assert set_aside.failed(desk.core, RELEASE, FIRST, "internal").times == 4
    assert [row.instruction for row in take(again, 2)] == [SECOND, FIRST]
    for _ in range(5):
        set_aside.failed(desk.core, REFUSAL, FIRST, "internal")
    assert [row.instruction for row in take(Outbox(desk.core), 2, within_s=1.5)] == [SECOND]
    with desk.core.store.read() as snapshot:
        assert {(row.kind, row.subject) for row in snapshot.set_aside()} == {("release", FIRST), ("refusal", FIRST)}


def test_a_copy_that_the_link_could_not_read_is_made_anew_before_anything_is_set_aside(desk: Desk, gate: Gate) -> None:
    two_releases(desk, gate)
    row = next(row for row in take(desk.outbox, 2) if row.instruction == FIRST)
    spooled = desk.root / "spool" / str(row.folder)
    for path in spooled.iterdir():
        path.write_bytes(b"damaged")
    assert not desk.outbox.failed(RELEASE, FIRST, "integrity_broken").set_aside
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in spooled.iterdir())
    for _ in range(4):
        last = desk.outbox.failed(RELEASE, FIRST, "integrity_broken")
    assert last.set_aside and not spooled.exists()


def test_an_answer_too_large_for_the_socket_is_never_made(desk: Desk, gate: Gate) -> None:
    """What a reply needs is the hub's to choose, and crosses beside an envelope of a megabyte."""
    before = desk.size()
    assert desk.ask(context=b"x" * (1 << 20)) is HubCode.REFUSED_INSTRUCTION
    assert [each.code for each in desk.log(before)] == ["malformed"]
    two_releases(desk, gate)
    assert [row.instruction for row in take(desk.outbox, 2)] == [FIRST, SECOND]


def test_a_failure_that_is_told_of_what_went_well_meanwhile_changes_nothing(desk: Desk, gate: Gate) -> None:
    two_releases(desk, gate)
    desk.outbox.delivered(FIRST)
    before, job = desk.size(), desk.job(task=Kind.EVALUATE)
    for kind, subject in (
        (REFUSAL, FIRST), (RELEASE, "run-9/1/train/1"), ("message", "a patient's name"), ("patient", "ab" * 32),
    ):  # fmt: skip
        assert set_aside.failed(desk.core, kind, subject, "internal", final=True).set_aside
    assert desk.size() == before and desk.job(task=Kind.EVALUATE) == job
    with desk.core.store.read() as snapshot:
        assert snapshot.set_aside() == ()


def test_a_hub_that_sends_rubbish_all_day_fills_neither_table_nor_log(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST_ROWS", 210)
    before = desk.size()
    for number in range(KEPT_PER_DAY + 20):
        subject = hashlib.sha256(b"%d" % number).hexdigest()
        set_aside.failed(desk.core, "message", subject, "malformed", final=True)
    with desk.core.store.read() as snapshot:
        assert snapshot.count_set_aside() == 210
    written = desk.log(before)
    assert len(written) == KEPT_PER_DAY and {each.code for each in written} == {"set_aside"}
    desk.now = later(days=2)
    set_aside.failed(desk.core, "message", "ab" * 32, "malformed", final=True)
    assert desk.log(before)[-1].about == f"message/{'ab' * 32}"


def test_answers_that_were_set_aside_take_no_room_from_what_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MOST_ROWS", 20)
    with desk.core.store.transaction(desk.now) as tx:
        for attempt in range(25):
            tx.count_failure(RELEASE, f"run-1/1/train/{attempt}", "internal", set_aside=True, event=None)
    for _ in range(set_aside.MOST_TRIES):
        tries = [set_aside.failed(desk.core, "document", subject * 32, "internal") for subject in ("ab", "cd")]
    assert [each.set_aside for each in tries] == [True, True]
    with desk.core.store.read() as snapshot:
        assert snapshot.count_set_aside() == 27


@pytest.fixture
def small_spool(desk: Desk) -> Iterator[Path]:
    spool = desk.root / "spool"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(spool)], check=True)
    yield spool
    subprocess.run(["umount", "-l", str(spool)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_under_the_spool_sets_nothing_aside_and_holds_up_no_refusal(
    desk: Desk, gate: Gate, small_spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.core.tasks.outbox._FULL_S", 0.1)
    two_releases(desk, gate)
    for _ in range(5):
        set_aside.failed(desk.core, RELEASE, FIRST, "internal")
    filler = small_spool / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 1024):
                pass
        except OSError:
            pass
    assert [row.hub_code for row in take(desk.outbox, 2, within_s=2.5)] == [HubCode.INTERNAL]
    with desk.core.store.read() as snapshot:
        assert snapshot.failure(RELEASE, SECOND) is None and len(snapshot.outgoing()) == 2
    filler.unlink()
    assert {row.instruction for row in take(desk.outbox, 2)} == {FIRST, SECOND}
