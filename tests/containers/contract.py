"""What every runner promises (`mediator.ports.Runner`): inherited by the real one's tests and by the fake's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from mediator.errors import CloisterError
from mediator.ports import JobEvent, Runner
from tests.containers.bench import MODEL, Bench, by_name, until


class RunnerContract:
    """A subclass gives `runner`, a fresh one on `bench`, whose image returns the model and two metrics."""

    @pytest.fixture
    def runner(self, bench: Bench) -> Runner:
        raise NotImplementedError

    @pytest.fixture
    def started(self, bench: Bench, runner: Runner) -> Callable[[], Iterator[JobEvent]]:
        def start() -> Iterator[JobEvent]:
            runner.prepare(bench.sign(bench.spec()))
            bench.give("job", 1)
            return runner.execute("job")

        return start

    def test_preparing_twice_gives_the_same_container(self, bench: Bench, runner: Runner) -> None:
        signed = bench.sign(bench.spec())
        first = runner.prepare(signed)
        assert runner.prepare(signed) == first
        assert first.job == "job"
        assert len(bytes.fromhex(first.fingerprint)) == 32

    def test_a_task_ends_in_done_and_its_files_come_back(
        self, runner: Runner, started: Callable[[], Iterator[JobEvent]]
    ) -> None:
        events = started()
        assert next(events) == JobEvent("started")
        assert until(events, "done", "exited").task == 1
        files = by_name(runner.finalise("job", 1))
        assert files["model.safetensors"] == MODEL
        assert json.loads(files["metrics.json"])["num-examples"] == 64

    def test_one_container_serves_task_after_task(
        self, bench: Bench, runner: Runner, started: Callable[[], Iterator[JobEvent]]
    ) -> None:
        events = started()
        for number in (1, 2, 3):
            if number > 1:
                bench.give("job", number)
            assert until(events, "done", "exited") == JobEvent("done", task=number)
            assert set(by_name(runner.finalise("job", number))) == {"model.safetensors", "metrics.json"}

    def test_stopping_ends_the_events_and_twice_is_as_good(
        self, runner: Runner, started: Callable[[], Iterator[JobEvent]]
    ) -> None:
        events = started()
        next(events)
        runner.terminate("job", 0)
        runner.terminate("job", 0)
        assert until(events, "stopped")
        assert list(events) == []

    def test_cleaning_removes_all_but_what_is_kept(self, bench: Bench, runner: Runner) -> None:
        for job in ("one", "two"):
            runner.prepare(bench.sign(bench.spec(job)))
        assert list(runner.clean(["two"])) == ["one"]
        assert list(runner.clean(["two"])) == []
        assert list(runner.clean([])) == ["two"]

    def test_a_spec_of_another_key_is_refused(self, bench: Bench, runner: Runner) -> None:
        from mediator.signatures import SigningKey

        with pytest.raises(CloisterError):
            runner.prepare(SigningKey(b"x" * 32).sign(bench.spec()))
        assert list(runner.clean([])) == []
