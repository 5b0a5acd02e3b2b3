"""Warm containers: everything that ends one, and what is swept away."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from containers.warm.pool import Sandboxes
from mediator.errors import CloisterError, Code, Ended
from tests.containers.warm.house import House
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
