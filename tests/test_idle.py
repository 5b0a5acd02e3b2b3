"""A node that has nothing to do asks nobody by the clock (`python -m tests.bench.footprint` measures what it takes)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from containers.broker import Broker
from containers.engine import Container, ContainerEngine
from containers.sandbox import SandboxPolicy
from containers.warm.pool import Sandboxes
from mediator.capacity import SiteSchedule
from mediator.errors import CloisterError, EngineUnavailable
from mediator.signatures import KeyRing
from node.core.tasks.queue import TICK_S, Ask, Queue
from tests.containers.warm.house import KEY
from tests.mediator import samples


@dataclass
class PlayedEngine:
    """Lists what a test says is there, and counts how often it was asked."""

    there: list[Container] = field(default_factory=list)
    away: bool = False
    asked: int = 0

    def containers(self, _site: str, job: str = "") -> list[Container]:
        self.asked += not job
        if self.away:
            raise EngineUnavailable("the engine does not answer")
        return self.there


def broker_on(engine: PlayedEngine) -> Broker:
    policy = SandboxPolicy(
        site="s", sentinel="", ceiling=samples.RESOURCES, work_root=Path("/"), probe_root=Path("/"), uid=1, gid=1
    )
    return Broker(cast(ContainerEngine, engine), policy, KeyRing([]), lambda: samples.NOW, lambda *_: None)


def test_an_engine_without_containers_is_not_asked_again_until_something_is_started() -> None:
    engine = PlayedEngine()
    broker = broker_on(engine)
    for _ in range(5):
        broker.enforce_wall_time()
    assert engine.asked == 1, "an earlier broker may have left something: once"
    with pytest.raises(CloisterError):
        broker.execute("unknown")
    for _ in range(5):
        broker.enforce_wall_time()
    assert engine.asked == 2


def test_an_engine_that_has_a_container_or_does_not_answer_is_asked_every_time() -> None:
    engine = PlayedEngine([Container("id", "s", "job", "keeper", "")])
    broker = broker_on(engine)
    for _ in range(3):
        broker.enforce_wall_time()
    assert engine.asked == 3
    engine.there, engine.away = [], True
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            broker.enforce_wall_time()
    engine.away = False
    broker.enforce_wall_time()
    broker.enforce_wall_time()
    assert engine.asked == 7


class NoContainers:
    """No container at all; counts how often the queue planned, for it asks once each time."""

    def __init__(self) -> None:
        self.planned, self.again = 0, threading.Event()

    def holdings(self) -> tuple[()]:
        self.planned += 1
        self.again.set()
        return ()


def test_a_queue_without_jobs_plans_once_and_then_when_somebody_enters() -> None:
    boxes, called = NoContainers(), threading.Event()
    queue = Queue(SiteSchedule(), lambda: samples.NOW, cast(Sandboxes, boxes), lambda: False, lambda _: called.set())
    queue.start()
    try:
        time.sleep(TICK_S + 0.5)
        assert boxes.planned == 1
        boxes.again.clear()
        queue.enter(Ask("job", KEY, "p", samples.NOW, samples.NOW, samples.NOW + timedelta(hours=1)))
        assert boxes.again.wait(5) and called.wait(5)
        time.sleep(TICK_S + 0.5)
        assert boxes.planned >= 3, "who has a turn is planned for by the clock"
    finally:
        queue.stop()
