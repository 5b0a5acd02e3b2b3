"""Tasks and a member of staff at the canary's door together, and a canary that gives way while they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from containers.warm.pool import Sandboxes
from mediator.errors import CloisterError, Code, Denied, Reason
from mediator.types import ContainerSpec
from node.core.tasks.trust_sandbox import SandboxTrust
from tests.containers.warm.house import KEY, LIMITS, House
from tests.node.core.desk import Desk, Written


class Door:
    """Containers that ask for a canary, which takes its time and gives way where it is told to."""

    def __init__(self, root: Path) -> None:
        self.desk, self.house = Desk(root, documents=False), House(root / "warm")
        self.gives_way, self.begun, self.said = True, threading.Event(), list[str]()
        self.trust = SandboxTrust(self.desk.core, self._canary)
        self.house.boxes = self.trust.sandboxes = Sandboxes(
            self.house.runner, self.house.root, self.house.key.sign, self.trust.require, lambda *_: None, lambda _: None
        )

    def _canary(self, _name: str, _spec: ContainerSpec, expected: str | None) -> tuple[str, tuple[str, ...]]:
        self.begun.set()
        time.sleep(0.3)
        return expected or "f" * 64, ("network",) if self.gives_way else ()

    def task(self, run: str) -> threading.Thread:
        def work() -> None:
            try:
                self.house.serve(replace(KEY, run=run))
            except CloisterError as error:
                self.said.append(error.message.partition(":")[0])

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def ended(self, *threads: threading.Thread) -> bool:
        for thread in threads:
            thread.join(10)
        return not any(thread.is_alive() for thread in threads)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_two_tasks_that_wait_for_one_canary_both_end_when_it_gives_way(door: Door) -> None:
    """Whoever ran it waits for nobody's container: the other one holds its own and waits for the canary."""
    assert door.ended(door.task("run-1"), door.task("run-2"))
    assert door.said == ["canary_failed"] * 2
    assert door.house.boxes.settled() and door.house.runner.containers == {}
    door.gives_way = False
    door.house.serve()
    assert len(door.house.boxes.running()) == 1, "the sandbox is mended, and the next task finds it so"


def test_a_persons_canary_that_gives_way_waits_for_no_task_at_the_door(door: Door) -> None:
    found: list[tuple[str, ...]] = []
    asking = threading.Thread(target=lambda: found.append(door.trust.probe_now(LIMITS, "it_admin.a")[1]), daemon=True)
    asking.start()
    assert door.begun.wait(5)
    assert door.ended(asking, door.task("run-1"))
    assert found == [("network",)] and len(door.said) == 1 and door.house.boxes.settled()


def test_a_broker_that_fails_at_the_sweep_hides_no_canary_that_gave_way(door: Door) -> None:
    door.gives_way = False
    door.house.serve()
    door.gives_way = True

    def clean(_keep: Sequence[str]) -> Sequence[str]:
        raise Denied(Reason(Code.INTERNAL))

    mended, door.house.runner.clean = door.house.runner.clean, clean  # type: ignore[method-assign]
    assert door.trust.probe_now(LIMITS, "it_admin.a")[1] == ("network",)
    assert door.house.boxes.running() == () and door.desk.core.deferred.settle(5)
    assert Written("canary", f"sandbox/{'f' * 64}", "failed", "canary_failed") in door.desk.log()
    assert not door.house.boxes.settled(), "the container is ended, and to be removed when the broker can"
    door.house.runner.clean = mended  # type: ignore[method-assign]
    door.house.boxes.tidy()
    assert door.house.boxes.settled() and door.house.runner.containers == {}
