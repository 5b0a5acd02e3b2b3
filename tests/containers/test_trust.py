"""A canary that fails ends the jobs of its sandbox: on the real engine, with the store and the log of a real core."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from containers import canary, sandbox
from containers.warm.pool import Sandboxes, SandboxKey, WarmTask
from mediator.audit import Action
from mediator.errors import Code, Denied, Ended
from mediator.types import ContainerSpec, Kind
from node.core.tasks.trust_sandbox import SandboxTrust
from tests.containers.bench import LIMITS, MODEL, Bench, by_name
from tests.containers.test_canary import WEAKER
from tests.node.core.desk import Desk

pytestmark = pytest.mark.engine


class House:
    """A core's trust and containers over a broker on the real engine. `weaken` is what goes wrong with the engine."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self.bench, self.desk, self.weaken = bench, Desk(root, documents=False), ""
        self.broker = bench.broker(self.build)
        self.trust = SandboxTrust(self.desk.core, self.run_canary)
        self.boxes = Sandboxes(
            self.broker, bench.root / "work", bench.sign, self.trust.require, lambda *_: None, lambda _: None
        )
        self.trust.sandboxes = self.boxes

    def build(self, *given: Any) -> dict[str, Any]:
        """The broker's own function, until something is wrong: then the canary's container is weaker."""
        arguments = copy.deepcopy(sandbox.create_arguments(*given))
        if self.weaken and given[1] == "canary":
            WEAKER[self.weaken](arguments)
        return arguments

    def run_canary(self, name: str, spec: ContainerSpec, expected: str | None) -> tuple[str, tuple[str, ...]]:
        site, now = self.bench.site, self.bench.spec().issued
        probe = canary.canary_spec(spec, name=name, sentinel=site.sentinel, probe_root=site.probe_root, now=now)
        assert expected is not None
        return expected, canary.run_canary(self.broker, self.bench.sign(probe), expected).failures

    def serve(self, **config: Any) -> object:
        key = SandboxKey("run", "permit", 1, "sha256:" + "0" * 64, Kind.TRAIN, self.bench.image, "0" * 64)

        def spec(name: str, data: Path, inbox: Path) -> ContainerSpec:
            return replace(self.bench.spec(), job=name, data_dir=str(data), in_dir=str(inbox), resources=LIMITS)

        task = WarmTask(Kind.TRAIN, 1, config, MODEL)
        return self.boxes.serve(key, task, lambda at: None, spec, limit_s=60, guard=lambda _: None)

    def canaries(self) -> list[tuple[str, str]]:
        return [(entry.verdict, entry.code) for entry in self.desk.log() if entry.action == Action.CANARY.value]


@pytest.fixture
def house(bench: Bench, tmp_path: Path) -> Iterator[House]:
    (tmp_path / "desk").mkdir()
    made = House(bench, tmp_path / "desk")
    yield made
    made.boxes.shut_down()


def test_one_canary_serves_the_rounds_of_a_day_and_the_log_says_so(house: House) -> None:
    for _ in range(2):
        assert by_name(house.serve())["model.safetensors"] == MODEL
    assert house.canaries() == [("done", "")]
    house.desk.now += timedelta(hours=24, seconds=1)
    assert house.serve()
    assert house.canaries() == [("done", ""), ("done", "")]


@pytest.mark.parametrize("weaken", ["network", "seccomp and no-new-privileges"])
def test_a_canary_that_fails_after_a_day_stops_the_running_job(house: House, weaken: str) -> None:
    """The job is in the middle of a task; the renewal finds the sandbox weaker, and the job ends with that reason."""
    caught: list[Ended] = []

    def work() -> None:
        try:
            house.serve(misbehave="over-time")
        except Ended as ended:
            caught.append(ended)

    worker = threading.Thread(target=work)
    worker.start()
    deadline = time.monotonic() + 30
    while not any((house.bench.root / "work").glob("train-*/in/tasks/1")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    house.trust.renew()  # the canary is fresh: nothing happens
    assert house.canaries() == [("done", "")] and house.boxes.running()
    house.weaken = weaken
    house.desk.now += timedelta(hours=24, seconds=1)
    house.trust.renew()
    worker.join(30)
    assert [ended.reason.code for ended in caught] == [Code.CANARY_FAILED]
    assert house.canaries() == [("done", ""), ("failed", "canary_failed")]
    assert house.bench.containers() == [] and house.boxes.running() == ()
    with pytest.raises(Denied, match="canary_failed"):  # and nothing starts until one passes
        house.serve()
    house.weaken = ""
    assert by_name(house.serve())["model.safetensors"] == MODEL
