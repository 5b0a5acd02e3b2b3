"""The runner's contract, on the real engine and on the fake of faster tests; and what only the real one shows."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest

from containers.engine import ContainerEngine
from mediator.errors import Denied
from mediator.ports import JobEvent, Runner
from tests.containers.bench import LIMITS, VERDICT_KEY, Bench, by_name, until, utc_now
from tests.containers.contract import RunnerContract
from tests.sim.runner import FakeRunner


@pytest.mark.engine
class TestTheRealRunner(RunnerContract):
    @pytest.fixture
    def runner(self, bench: Bench) -> Runner:
        return bench.broker()


class TestTheFakeRunner(RunnerContract):
    @pytest.fixture
    def bench(self, tmp_path):
        from containers.sandbox import SandboxPolicy
        from mediator.types import Resources

        digest = "sha256:" + "0" * 64
        assert isinstance(LIMITS, Resources)
        (tmp_path / "work").mkdir()
        return Bench(tmp_path, digest, SandboxPolicy("fake", digest, LIMITS, tmp_path / "work", tmp_path / "probe"))

    @pytest.fixture
    def runner(self, bench: Bench) -> Runner:
        def behave(_task, model: bytes):
            return {"model.safetensors": model, "metrics.json": json.dumps({"num-examples": 64}).encode()}

        return FakeRunner(VERDICT_KEY.verify_key, {bench.image: behave})


@pytest.mark.engine
def test_a_restarted_broker_adopts_what_runs(bench: Bench) -> None:
    first = bench.broker()
    events = bench.start(first)
    assert until(events, "done").task == 1
    events.close()  # the first broker dies here: nothing of it is kept but what the engine knows
    second = bench.broker()
    there = bench.containers()
    assert second.prepare(bench.sign(bench.spec())).job == "job"
    assert bench.containers() == there
    again = second.execute("job")
    assert until(again, "done").task == 1
    assert "metrics.json" in by_name(second.finalise("job", 1))
    bench.give("job", 2)
    assert until(again, "done") == JobEvent("done", task=2)


@pytest.mark.engine
def test_a_broker_that_died_while_a_job_was_frozen_lets_it_go_on(bench: Bench) -> None:
    events = bench.start(bench.broker())
    until(events, "done")
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
    assert engine.freeze(main)
    second = bench.broker()
    again = second.execute("job")
    assert until(again, "done").task == 1
    assert set(by_name(second.finalise("job", 1))) == {"model.safetensors", "metrics.json"}
    assert not (engine.inspect(main) or {})["State"]["Paused"]


@pytest.mark.engine
def test_a_job_that_ignores_sigterm_is_gone_within_5_seconds(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave="ignore-sigterm")
    next(events)
    time.sleep(1)
    began = time.monotonic()
    broker.terminate("job", 2)
    assert time.monotonic() - began < 5
    assert until(events, "stopped", "exited").kind == "stopped"


@pytest.mark.engine
def test_a_frozen_job_is_stopped_too(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker)
    until(events, "done")
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
    engine.freeze(main)
    broker.terminate("job", 2)
    assert (engine.inspect(main) or {})["State"]["Running"] is False


@pytest.mark.engine
def test_a_job_that_exits_is_reported_with_its_status(bench: Bench) -> None:
    assert until(bench.start(bench.broker(), misbehave="exit-at-once"), "exited").status == 37


@pytest.mark.engine
def test_a_done_just_before_the_end_is_not_lost(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker)
    (bench.root / "work" / "job" / "in" / "stop").touch(mode=0o644)
    kinds = [event.kind for event in events]
    assert kinds == ["started", "exited"] or kinds == ["started", "done", "exited"]


@pytest.mark.engine
def test_wall_time_ends_a_job_whether_or_not_anybody_listens(bench: Bench) -> None:
    broker = bench.broker()
    events = bench.start(broker, misbehave="over-time")
    next(events)
    later = bench.broker(clock=lambda: utc_now() + timedelta(seconds=LIMITS.wall_time_s + 5))
    later.enforce_wall_time()
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
    assert (engine.inspect(main) or {})["State"]["Running"] is False


@pytest.mark.engine
def test_a_listener_hears_of_the_time_limit(bench: Bench) -> None:
    start = utc_now()
    ahead = threading.Event()
    clock = lambda: utc_now() + (timedelta(hours=1) if ahead.is_set() else timedelta())  # noqa: E731
    broker = bench.broker(clock=clock)
    events = bench.start(broker, misbehave="over-time")
    next(events)
    ahead.set()
    assert until(events, "time_limit")
    assert utc_now() - start < timedelta(seconds=20)


@pytest.mark.engine
def test_an_unknown_job_is_refused_by_name(bench: Bench) -> None:
    broker = bench.broker()
    for ask in (lambda: broker.execute("nobody"), lambda: broker.finalise("nobody", 1)):
        with pytest.raises(Denied, match="job_unknown"):
            ask()
    broker.terminate("nobody", 0)
