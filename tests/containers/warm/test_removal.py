"""Warm containers: everything that ends one, and what is swept away."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from containers.warm.inventory import WarmInventory
from containers.warm.pool import Sandboxes, WarmContainer
from mediator.errors import CloisterError, Code, Ended, Reason
from tests.containers.warm.house import KEY, House
from tests.sim.runner import FakeRunner


def test_a_pause_ends_a_running_task_with_its_code(house: House) -> None:
    caught: list[Ended] = []

    def work() -> None:
        try:
            house.serve(hang=True)
        except Ended as ended:
            caught.append(ended)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    begun = time.monotonic()
    assert house.boxes.stop(Code.HOSPITAL_PAUSED, lambda key: True) == 1
    thread.join(5)
    assert time.monotonic() - begun < 5
    assert caught[0].reason.code is Code.HOSPITAL_PAUSED
    assert house.boxes.running() == () and house.runner.containers == {}


def test_an_idle_container_is_destroyed(house: House) -> None:
    house.serve()
    assert house.boxes.stop_idle(3600) == 0
    time.sleep(0.02)
    assert house.boxes.stop_idle(0.01) == 1
    assert house.runner.containers == {}


def test_a_sweep_removes_what_a_crash_left(house: House) -> None:
    house.serve()
    (house.root / "train-left-over").mkdir()
    reborn = Sandboxes(house.runner, house.root, house.key.sign, house._trust, lambda *_: None, lambda _: None)
    reborn.sweep()
    assert list(house.root.iterdir()) == [] and house.runner.containers == {}


def keeping(house: House, keep_log_s: float) -> None:
    house.boxes = Sandboxes(
        house.runner, house.root, house.key.sign, house._trust, lambda *_: None,
        lambda box: house.destroyed.append(box.name), keep_log_s,
    )  # fmt: skip


def test_a_job_that_failed_leaves_its_log_for_a_while_and_nothing_else(house: House) -> None:
    keeping(house, 1.0)
    with pytest.raises(Ended):
        house.serve(crash=True)
    assert len(house.runner.containers) == 1 and list(house.root.iterdir()) == []
    house.serve()
    house.boxes.tidy()
    assert len(house.runner.containers) == 2 and len(house.runner.terminated) == 1
    time.sleep(1.0)
    house.boxes.tidy()
    assert len(house.runner.containers) == 1


def test_a_pause_or_a_revocation_removes_kept_logs_too(house: House) -> None:
    keeping(house, 3600)
    with pytest.raises(Ended):
        house.serve(crash=True)
    assert house.boxes.stop(Code.PERMIT_REVOKED, lambda key: key.permit == "another") == 0
    assert len(house.runner.containers) == 1 and not house.boxes.settled()
    house.boxes.stop(Code.HOSPITAL_PAUSED, lambda key: True)
    assert house.runner.containers == {} and house.boxes.settled()


def test_a_container_that_was_stopped_from_outside_keeps_no_log(house: House) -> None:
    keeping(house, 3600)

    def work() -> None:
        with pytest.raises(Ended):
            house.serve(hang=True)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    house.boxes.stop(Code.STOPPED, lambda key: True)
    thread.join(5)
    assert house.runner.containers == {}


class FailingRunner(FakeRunner):
    """A broker with a defect: it answers a removal, or a stream of events, with an error that nobody foresaw."""

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        if self.broken:
            raise CloisterError("internal error in another process of this node")
        return super().clean(keep)

    broken = False


def test_a_broker_that_fails_at_a_removal_keeps_nobody_waiting_for_its_end(tmp_path: Path) -> None:
    house = House(tmp_path / "work", FailingRunner)
    house.serve()
    house.runner.broken = True  # type: ignore[attr-defined]
    assert house.boxes.begin_stop(Code.HOSPITAL_PAUSED, lambda key: True).wait(5)
    assert house.boxes.running() == () and not house.boxes.settled() and list(house.root.iterdir()) == []
    house.runner.broken = False  # type: ignore[attr-defined]
    house.boxes.tidy()
    assert house.runner.containers == {} and house.boxes.settled()


class GracefulRunner(FakeRunner):
    """A job that needs its grace: SIGTERM is followed by so long a wait, and only then may it be removed."""

    terminating = False
    cut_short = False

    def terminate(self, job: str, grace_s: float) -> None:
        self.terminating = True
        time.sleep(grace_s / 2)
        self.terminating = False
        super().terminate(job, grace_s)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        gone = super().clean(keep)
        self.cut_short |= self.terminating and bool(gone)
        return gone


def test_a_busy_container_that_is_stopped_has_its_grace_to_the_end(tmp_path: Path) -> None:
    """The thread whose task it serves sees within 0.2 s that it is told to stop, and takes nothing away before."""
    house = House(tmp_path / "work", GracefulRunner)
    runner, ended = house.runner, list[Code]()
    assert isinstance(runner, GracefulRunner)

    def work() -> None:
        with pytest.raises(Ended) as caught:
            house.serve(hang=True)
        ended.append(caught.value.reason.code)

    thread = threading.Thread(target=work)
    thread.start()
    while not runner.specs:
        time.sleep(0.01)
    stopping = house.boxes.begin_stop(Code.HOSPITAL_PAUSED, lambda _: True)
    time.sleep(0.6)
    assert runner.terminating and len(runner.containers) == 1 and not house.boxes.settled()
    assert stopping.wait(5) and house.boxes.settled(), "gone is said when it is"
    thread.join(5)
    assert ended == [Code.HOSPITAL_PAUSED] and not runner.cut_short
    assert runner.containers == {} and list(house.root.iterdir()) == [] and len(house.destroyed) == 1


def test_a_container_that_is_given_a_task_at_this_moment_is_not_evicted_as_idle(house: House) -> None:
    """Who looks for idle ones and who takes one meet again and again: no task ever finds its container ended."""
    over, threads = threading.Event(), list[threading.Thread]()

    def evict() -> None:
        while not over.is_set():
            for holding in house.boxes.holdings():
                house.boxes.evict(holding.name)
            house.boxes.stop_idle(-1.0)

    threads = [threading.Thread(target=evict) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 60):
            assert house.serve(round_=number)["round"] == str(number).encode()
    finally:
        over.set()
        for thread in threads:
            thread.join(5)


def test_a_disk_that_hangs_under_a_request_to_make_room_keeps_no_pause_waiting(tmp_path: Path) -> None:
    inventory, go = WarmInventory(), threading.Event()

    class Hanging(WarmContainer):
        def ask_to_end(self) -> bool:
            assert go.wait(10)
            return False

    container = Hanging("train-1", KEY, tmp_path)
    container.make_folders()
    inventory.take(KEY, lambda: container)
    answers = list[bool]()
    asking = threading.Thread(target=lambda: answers.append(inventory.ask_to_leave(KEY, 60)))
    asking.start()
    while container.leave_by_s is None:
        time.sleep(0.01)
    begun = time.monotonic()
    assert len(inventory.tell(Code.HOSPITAL_PAUSED, lambda _: True)[0]) == 1
    assert time.monotonic() - begun < 1
    go.set()
    asking.join(5)
    assert answers == [False] and container.leave_by_s is None, "nobody was asked, so nobody leaves"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount one")
@pytest.mark.parametrize("tasks_before", [0, 1])
def test_a_canary_that_fails_inside_a_task_does_not_wait_for_that_task(house: House, tasks_before: int) -> None:
    """The thread that serves a task runs the canary, and the canary's failure ends every container, its own too."""
    ended: list[bool] = []

    def trust(*_: object) -> None:
        if fails:
            ended.append(house.boxes.begin_stop(Code.CANARY_FAILED, lambda _: True).wait(5))
            raise Ended(Reason(Code.CANARY_FAILED))

    fails = False
    house.boxes = Sandboxes(house.runner, house.root, house.key.sign, trust, lambda *_: None, lambda _: None)
    for _ in range(tasks_before):
        house.serve()
    fails = True
    with pytest.raises(Ended, match="canary_failed"):
        house.serve()
    assert ended == [True]
    assert house.boxes.running() == () and house.boxes.settled() and house.runner.containers == {}


def test_a_full_disk_under_a_request_to_make_room_asks_nobody(tmp_path: Path) -> None:
    """A file system that has no inode left: the task computes on, and is asked again later."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=8", "tmpfs", str(tmp_path)], check=True)
    try:
        inventory = WarmInventory()
        container = WarmContainer("train-1", KEY, tmp_path / "box")
        container.make_folders()
        inventory.take(KEY, lambda: container)
        fillers = 0
        with pytest.raises(OSError):
            while True:
                (tmp_path / f"filler-{fillers}").touch()
                fillers += 1
        assert not inventory.ask_to_leave(KEY, 60) and container.leave_by_s is None
        (tmp_path / "filler-0").unlink()
        assert inventory.ask_to_leave(KEY, 60) and (container.in_dir / "stop").exists()
        assert inventory.ask_to_leave(KEY, 60), "asking again changes nothing"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
