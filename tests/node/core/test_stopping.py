"""Whatever stops a container stops it first and records it after: on a full disk, and with a database that is held."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mediator.errors import Code, Denied, NotNow
from mediator.jobs import JobState
from node.core.airlock.airlock import hold
from node.core.audit.witness import WitnessDesk
from node.core.deferred_records import DeferredRecords
from node.core.images import images
from node.core.reserve import Reserve
from node.core.switch import Switch
from node.core.tasks import pause
from node.core.tasks.certificate_alarm import CertificateAlarms
from node.core.tasks.run_job import JobThreads
from node.core.tasks.trust_sandbox import SandboxTrust
from node.core.tasks.watch import Watch
from node.ipc.caller import Caller
from node.ipc.node import PauseResult
from tests.mediator import samples
from tests.node.core.desk import Desk, Gate, Written, eventually
from tests.sim.runner import FakeRunner

WITHIN_S = 5.0


class Locked:
    """Another process holds the database."""

    def __init__(self, root: Path) -> None:
        self._other = sqlite3.connect(root / "node.db", isolation_level=None)

    def break_(self) -> None:
        self._other.execute("BEGIN EXCLUSIVE")

    def mend(self) -> None:
        if self._other.in_transaction:
            self._other.execute("ROLLBACK")

    def close(self) -> None:
        self.mend()
        self._other.close()


class Full:
    """The disk has not a byte left, and the write-ahead log no room that it was given before."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def break_(self) -> None:
        with closing(sqlite3.connect(self._root / "node.db", isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        fill(self._root / "filler")

    def mend(self) -> None:
        (self._root / "filler").unlink(missing_ok=True)

    close = mend


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount one")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@dataclass
class Scene:
    """A container at work on a store that can be broken."""

    desk: Desk
    gate: Gate
    fault: Locked | Full


@pytest.fixture(params=["locked", "full"])
def scene(request: pytest.FixtureRequest, gate: Gate) -> Iterator[Scene]:
    root = request.getfixturevalue("place" if request.param == "full" else "tmp_path")
    desk = Desk(root, gate)
    desk.jobs.start()
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.watch.look()
    fault = Full(root) if request.param == "full" else Locked(root)
    yield Scene(desk, gate, fault)
    fault.close()
    gate.open.set()
    desk.jobs.stop()
    desk.core.deferred.close(1)
    desk.core.store.close()


def by_pause(scene: Scene) -> None:
    answer = pause.pause(scene.desk.core, scene.desk.boxes, "it_admin")
    assert answer == PauseResult(1, True, False, True), answer


def by_revocation(scene: Scene) -> None:
    threading.Thread(target=_revoke, args=(scene.desk,), daemon=True).start()


def _revoke(desk: Desk) -> None:
    """The committee's next list, which names the permit. The link brings it again while the store does not take it."""
    text = samples.COMMITTEE.sign(samples.revocations(number=6, permits=("lesions-2026",)))
    with suppress(NotNow):
        desk.documents.receive(text)


def by_expiry(scene: Scene) -> None:
    scene.desk.now += 25 * samples.DAY
    scene.desk.watch.look()


def by_the_staff(scene: Scene) -> None:
    with pytest.raises(NotNow, match="not written down yet"):
        scene.desk.jobs.end(scene.desk.job().job, "it_admin")


def by_a_failed_canary(scene: Scene) -> None:
    trust = SandboxTrust(scene.desk.core, lambda *_: ("f" * 64, ("network",)))
    trust.sandboxes = scene.desk.boxes
    assert trust.probe_now(samples.RESOURCES, "it_admin.unknown") == ("f" * 64, ("network",))
    assert not trust._is_valid("f" * 64)


STOPS: dict[str, tuple[Callable[[Scene], None], Code, str]] = {
    "pause": (by_pause, Code.HOSPITAL_PAUSED, "pause"),
    "revocation": (by_revocation, Code.PERMIT_REVOKED, "permit_end"),
    "expiry": (by_expiry, Code.RUN_ORDER_EXPIRED, "permit_end"),
    "job-stop": (by_the_staff, Code.STOPPED, "job_stop"),
    "canary": (by_a_failed_canary, Code.CANARY_FAILED, "canary"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_stops_a_container_waits_for_no_record(scene: Scene, stop: str) -> None:
    act, code, action = STOPS[stop]
    desk = scene.desk
    scene.fault.break_()
    begun = time.monotonic()
    act(scene)
    eventually(lambda: desk.runner.containers == {} and not list((desk.root / "work").iterdir()), WITHIN_S)
    assert time.monotonic() - begun < WITHIN_S
    assert action not in [each.action for each in desk.log()], "the store took nothing"
    scene.fault.mend()
    row = eventually(lambda: row if (row := desk.job()).state in (JobState.STOPPED, JobState.FAILED) else None, 25)
    assert row.code is code
    written = eventually(lambda: [each for each in desk.log() if each.action == action] or None, 25)
    assert len(written) == 1, written
    assert desk.releases() == []


@pytest.mark.slow
def test_a_pause_that_cannot_be_written_down_admits_nothing_and_is_written_down_when_it_can(scene: Scene) -> None:
    desk = scene.desk
    scene.fault.break_()
    answer = pause.pause(desk.core, desk.boxes, "it_admin")
    assert (answer.stopped, answer.all_ended, answer.recorded, answer.kept) == (1, True, False, True)
    with pytest.raises(NotNow):
        desk.ask(round=2)
    with pytest.raises(NotNow, match="pause itself"):
        pause.resume(desk.core, "it_admin")
    assert desk.core.switch.on and desk.runner.containers == {} and scene.gate.asked == 1
    scene.fault.mend()
    assert desk.core.deferred.settle(25)
    with desk.core.store.read() as snapshot:
        assert snapshot.paused()
    desk.ask(round=3)
    assert desk.job(round_=3).code is Code.HOSPITAL_PAUSED
    assert [each.action for each in desk.log()].count("pause") == 1
    # and every thread is alive to go on with
    pause.resume(desk.core, "it_admin")
    assert not desk.core.switch.on
    scene.gate.open.set()
    eventually(lambda: desk.job().state is JobState.STOPPED, 25)
    desk.ask(attempt=2)
    desk.until(JobState.RELEASED, attempt=2)


@pytest.mark.slow
def test_a_withdrawn_image_runs_no_longer_though_its_withdrawal_cannot_be_written_down(scene: Scene) -> None:
    desk = scene.desk
    scene.fault.break_()
    stopped: list[str] = []

    def withdraw() -> None:
        with pytest.raises(NotNow):
            images.withdraw(desk.core, desk.boxes, samples.IMAGE, "a.silva", caller=Caller("it_admin"))
        stopped.append("told")

    threading.Thread(target=withdraw, daemon=True).start()
    eventually(lambda: desk.runner.containers == {}, within_s=WITHIN_S)
    eventually(lambda: stopped == ["told"], within_s=25)


@pytest.mark.slow
def test_a_revocation_heard_and_not_stored_admits_nothing_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    fault = Locked(tmp_path)
    fault.break_()
    _revoke(desk)
    fault.close()
    desk.ask()
    assert desk.job().code is Code.PERMIT_REVOKED
    # an older list, replayed, takes nothing back
    with pytest.raises(Denied):
        desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=4)))
    desk.ask(attempt=2)
    assert desk.job(2).code is Code.PERMIT_REVOKED
    desk.core.store.close()


def test_a_database_that_cannot_even_be_read_ends_no_container_early_and_none_late(tmp_path: Path, gate: Gate) -> None:
    """What was read last is held against the clock."""
    desk = Desk(tmp_path, gate)
    desk.jobs.start()
    desk.ask()
    eventually(lambda: gate.asked == 1)
    desk.watch.look()
    whole = (tmp_path / "node.db").read_bytes()
    desk.core.store.close()  # connections that are open would go on with the file they hold
    (tmp_path / "node.db").write_bytes(b"\0" * len(whole))
    for name in ("node.db-wal", "node.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    desk.watch.look()
    assert len(desk.runner.containers) == 1
    desk.now += 25 * samples.DAY
    desk.watch.look()
    assert desk.runner.containers == {}
    gate.open.set()
    desk.jobs.leave_off()


# ---- the mark


def test_a_restart_before_the_pause_could_be_written_down_finds_the_node_paused(tmp_path: Path) -> None:
    desk, fault = Desk(tmp_path), Locked(tmp_path)
    fault.break_()
    assert not pause.pause(desk.core, desk.boxes, "data_steward").recorded
    desk.core.deferred._ended.set()  # as a crash ends it
    fault.close()
    reborn = Desk(tmp_path, documents=False)
    with reborn.core.store.read() as snapshot:
        assert reborn.core.paused(snapshot)
    reborn.ask()
    assert reborn.job().code is Code.HOSPITAL_PAUSED
    reborn.watch.look()
    assert reborn.core.deferred.settle(25)
    assert [each.action for each in reborn.log()].count("pause") == 1
    reborn.watch.look()
    assert reborn.core.deferred.settle(5) and [each.action for each in reborn.log()].count("pause") == 1
    pause.resume(reborn.core, "it_admin")
    assert not (tmp_path / "paused").exists()
    reborn.ask(attempt=2)
    assert reborn.job(2).state is JobState.ADMITTED
    reborn.core.store.close()


def test_a_mark_left_by_hand_pauses_a_core_that_runs(desk: Desk, gate: Gate) -> None:
    desk.ask()
    eventually(lambda: gate.asked == 1)
    assert Switch(desk.root / "paused").mark("it_admin")
    desk.ask(round=2)
    assert desk.job(round_=2).code is Code.HOSPITAL_PAUSED
    desk.watch.look()
    assert desk.runner.containers == {}
    assert desk.until(JobState.STOPPED).code is Code.HOSPITAL_PAUSED
    assert desk.core.deferred.settle(5)
    with desk.core.store.read() as snapshot:
        assert '"actor":"it_admin.unknown"' in next(line for line in snapshot.audit_lines(0, 1000) if '"pause"' in line)


@pytest.mark.parametrize("said", [b"", b"nobody_we_know", b"\xff" * 500, b"it_admin\n", b".it_admin"])
def test_a_mark_that_says_nothing_pauses_all_the_same(tmp_path: Path, said: bytes) -> None:
    (tmp_path / "paused").write_bytes(said)
    switch = Switch(tmp_path / "paused")
    assert switch.on and switch.marked_by() == ""
    assert switch.mark("it_admin") and switch.marked_by() == "", "one that is there is kept as it is"


def test_a_mark_proves_a_role_at_most(tmp_path: Path) -> None:
    """Whoever may write the file may write a colleague's name into it."""
    (tmp_path / "paused").write_bytes(b"it_admin.a.silva")
    assert Switch(tmp_path / "paused").marked_by() == "it_admin.unknown"


def test_a_mark_made_later_than_the_resume_goes_with_its_pause(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "paused")
    turn = switch.turn_on()
    switch.turn_off(turn)
    assert not switch.mark("it_admin", turn) and not switch.on


def test_a_pause_during_a_resume_stands(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "paused")
    turn = switch.turn_on()
    switch.turn_on()
    switch.turn_off(turn)
    assert switch.on


def test_a_pause_that_falls_into_a_resume_keeps_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "paused"
    switch = Switch(mark)
    switch.prepare()
    turn = switch.turn_on()
    assert switch.mark("it_admin", turn)
    unlink, paused_again = Path.unlink, list[int]()

    def slowly(path: Path, missing_ok: bool = False) -> None:
        if path == mark and not paused_again:
            paused_again.append(switch.turn_on())
            assert switch.mark("it_admin", paused_again[0]), "it finds the old mark, which goes now"
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", slowly)
    switch.turn_off(turn)
    assert switch.on and Switch(mark).on, "after a restart too"


def test_a_mark_is_heeded_while_a_container_of_another_permit_is_still_made(tmp_path: Path, gate: Gate) -> None:
    desk, making, go_on = Desk(tmp_path, gate), threading.Event(), threading.Event()

    def view(_version: str, _split: str, _columns: object, into: Path) -> None:
        into.mkdir(exist_ok=True)
        making.set()
        go_on.wait(20)

    desk.jobs = JobThreads(desk.core, desk.boxes, view, hold)
    desk.jobs.start()
    desk.watch.start()
    try:
        desk.ask()
        assert making.wait(10)
        desk.now += timedelta(days=400)  # the order ends, and its container with it
        time.sleep(1.5)
        (tmp_path / "paused").touch()
        begun = time.monotonic()
        eventually(lambda: desk.core.switch.heeded)
        assert time.monotonic() - begun < WITHIN_S
    finally:
        go_on.set()
        desk.watch.stop()
        desk.jobs.stop()


def test_a_reserve_that_a_kill_left_empty_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "reserve").touch()
    assert Reserve(tmp_path / "reserve", 1 << 16).make()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 16


# ---- a store that is busy, and a clock that was ahead, silence nothing


def test_what_the_store_did_not_take_is_not_noted_as_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    watch = Watch(desk.core, desk.boxes, desk.outbox, lambda: None, idle_s=900, checkpoint_every_s=0.1)
    witness, busy = WitnessDesk(desk.core), True

    def before_writing(_now: datetime) -> None:
        if busy:
            raise NotNow("the database does not answer")

    desk.core.store.before_writing = before_writing
    time.sleep(0.2)
    for attempt in (watch._checkpoint_when_due, lambda: witness.holds("", True)):
        with pytest.raises(NotNow):
            attempt()
    busy = False
    watch._checkpoint_when_due()
    for _ in range(3):
        witness.holds("", True)
    with desk.core.store.read() as snapshot:
        assert snapshot.newest_checkpoint() is not None
    assert [each.about for each in desk.log()].count("witness/0") == 1 and witness.refused


def test_an_alarm_by_a_clock_that_was_ahead_silences_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, documents=False)
    alarms = CertificateAlarms(desk.core)
    desk.now += timedelta(days=20)
    alarms.record(Code.RENEWED_TWICE)
    desk.now -= timedelta(days=20)
    for _ in range(3):
        alarms.record(Code.RENEWED_TWICE)
    assert [each.action for each in desk.log()].count("certificate_alarm") == 2


# ---- what is owed


def test_what_is_owed_is_written_in_order_and_one_that_cannot_be_holds_up_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    owed, seen = DeferredRecords(desk.core.store, desk.core.clock, retry_s=0.02), []
    tries = []

    def never(_tx: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("PATIENT 17")

    owed.add(lambda _tx: seen.append(1))
    bad = owed.add(never)
    last = owed.add(lambda _tx: seen.append(2))
    assert last.paid.wait(5) and seen == [1, 2]
    assert bad.paid.wait(5) and owed.count() == 0
    owed.close(1)
    desk.core.store.close()


def test_what_can_never_be_written_is_not_tried_for_ever_and_its_loss_is_written(tmp_path: Path) -> None:
    desk, tries = Desk(tmp_path), list[int]()
    owed = DeferredRecords(desk.core.store, desk.core.clock, retry_s=0.02)

    def never(_tx: object) -> None:
        tries.append(1)
        raise ValueError("PATIENT 17")

    before, debt = desk.size(), owed.add(never)
    assert debt.paid.wait(5) and len(tries) == 5 and owed.count() == 0
    assert desk.log(before) == [Written("recover", "deferred-record", "failed", "internal")]
    owed.close(1)
    desk.core.store.close()


def test_a_container_asked_for_while_the_node_shuts_down_is_not_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.jobs.start()
    desk.boxes.shut_down()
    desk.ask()
    time.sleep(0.5)
    assert isinstance(desk.runner, FakeRunner) and desk.runner.specs == []
    desk.jobs.stop()
    desk.core.store.close()


def test_a_last_rounds_container_ends_though_its_output_cannot_be_kept(tmp_path: Path, gate: Gate) -> None:
    desk, fault = Desk(tmp_path, gate), Locked(tmp_path)
    desk.jobs.start()
    desk.ask(round=samples.order().rounds)
    eventually(lambda: gate.asked == 1)
    fault.break_()
    gate.open.set()
    eventually(lambda: desk.runner.containers == {}, within_s=WITHIN_S)
    fault.close()
    desk.until(JobState.RELEASED, round_=samples.order().rounds)
    desk.jobs.stop()
    desk.core.store.close()
