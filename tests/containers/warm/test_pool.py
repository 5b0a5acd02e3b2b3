"""Warm containers: reuse, and everything that ends one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from containers.warm.pool import Sandboxes, SandboxKey, WarmTask
from mediator.errors import Code, Denied, EngineUnavailable, NotNow, Reason
from mediator.ports import JobEvent
from mediator.signatures import SigningKey
from mediator.types import ContainerSpec, Kind, Resources
from tests.sim.runner import FakeRunner

IMAGE = "sha256:" + "1" * 64
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LIMITS = Resources(1.0, 1 << 28, 64, 60, 1 << 20, 1 << 20, 16, 0)
KEY = SandboxKey("run-1", "permit-1", 1, "sha256:" + "2" * 64, Kind.TRAIN, IMAGE, "f" * 64)


def behave(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
    if task["config"].get("crash"):
        raise RuntimeError
    if task["config"].get("hang"):
        time.sleep(30)
    return {"echo": model, "round": str(task["round"]).encode()}


class House:
    def __init__(self, root: Path, runner: type[FakeRunner] = FakeRunner) -> None:
        self.key = SigningKey(bytes(32))
        self.runner = runner(self.key.verify_key, {IMAGE: behave})
        self.destroyed: list[str] = []
        self.trust_error: Denied | None = None
        root.mkdir()
        self.root = root
        self.boxes = Sandboxes(
            self.runner, root, self.key.sign, self._trust, lambda *_: None, lambda box: self.destroyed.append(box.name)
        )

    def _trust(self, *_: object) -> None:
        if self.trust_error:
            raise self.trust_error

    def serve(self, key: SandboxKey = KEY, round_: int = 1, limit_s: float = 10, **config: Any) -> dict[str, bytes]:
        task = WarmTask(Kind.TRAIN, round_, config, b"model")
        files = self.boxes.serve(key, task, self._view, self._spec, limit_s, lambda _: None)
        return {file.name: file.content for file in files}

    def _view(self, folder: Path) -> None:
        folder.mkdir()

    def _spec(self, name: str, data: Path, inbox: Path) -> ContainerSpec:
        return ContainerSpec(name, "job", IMAGE, str(data), str(inbox), LIMITS, NOW, NOW + timedelta(hours=1))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "work")


def test_rounds_of_one_run_share_a_container(house: House) -> None:
    assert house.serve(round_=1)["round"] == b"1"
    assert house.serve(round_=2)["round"] == b"2"
    assert len(house.runner.specs) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"run": "run-2"},
        {"permit": "permit-2"},
        {"permit_version": 2},
        {"dataset_version": "sha256:" + "3" * 64},
        {"task": Kind.EVALUATE},
        {"limits_sha256": "e" * 64},
    ],
)
def test_whatever_a_container_is_bound_to_gets_its_own(house: House, change: dict[str, Any]) -> None:
    house.serve()
    house.serve(key=SandboxKey(**{**KEY.__dict__, **change}))
    assert len(house.runner.specs) == 2


def test_a_crashed_job_is_refused_and_leaves_no_folder_behind(house: House) -> None:
    with pytest.raises(Denied) as refused:
        house.serve(crash=True)
    assert refused.value.reasons[0].code is Code.RAISED_RUNTIME_ERROR
    assert list(house.root.iterdir()) == [] and house.runner.containers == {}
    assert len(house.destroyed) == 1
    assert house.serve()["echo"] == b"model"  # the next task gets a new container


@pytest.mark.parametrize(
    ("said", "end", "code"),
    [
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "exited", Code.RAISED_KEY_ERROR),
        # what was said of another task, or by a code that is no exception's, says nothing of this end
        ([JobEvent("failed", 2, code=Code.RAISED_KEY_ERROR)], "exited", Code.JOB_FAILED),
        ([JobEvent("failed", 1, code=Code.BAD_SIGNATURE)], "exited", Code.JOB_FAILED),
        ([JobEvent("failed", 1)], "exited", Code.JOB_FAILED),
        # what the engine saw is not overruled by what the job says
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "out_of_memory", Code.OUT_OF_MEMORY),
        ([JobEvent("failed", 1, code=Code.RAISED_KEY_ERROR)], "time_limit", Code.TIME_LIMIT),
        ([], "out_full", Code.CONTRACT_OUT_FULL),
    ],
)
def test_the_jobs_own_word_about_its_end_counts_only_where_it_may(
    tmp_path: Path, said: list[JobEvent], end: Any, code: Code
) -> None:
    class Talking(FakeRunner):
        def execute(self, job: str) -> Iterator[JobEvent]:
            return iter([JobEvent("started"), *said, JobEvent(end)])

    house = House(tmp_path / "work", Talking)
    with pytest.raises(Denied) as refused:
        house.serve()
    assert [reason.code for reason in refused.value.reasons] == [code]


def test_a_job_that_never_ends_meets_the_time_limit(house: House) -> None:
    with pytest.raises(Denied) as refused:
        house.serve(hang=True, limit_s=0.3)
    assert refused.value.reasons[0].code is Code.TIME_LIMIT
    assert house.runner.containers == {}


def test_a_pause_ends_a_running_task_with_its_code(house: House) -> None:
    caught: list[Denied] = []

    def work() -> None:
        try:
            house.serve(hang=True)
        except Denied as denied:
            caught.append(denied)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    begun = time.monotonic()
    assert house.boxes.stop(Code.HOSPITAL_PAUSED, lambda key: True) == 1
    thread.join(5)
    assert time.monotonic() - begun < 5
    assert caught[0].reasons[0].code is Code.HOSPITAL_PAUSED
    assert house.boxes.running() == () and house.runner.containers == {}


def test_a_sandbox_that_fails_its_canary_runs_nothing(house: House) -> None:
    house.trust_error = Denied(Reason(Code.CANARY_FAILED))
    with pytest.raises(Denied):
        house.serve()
    assert house.runner.containers == {} and list(house.root.iterdir()) == []


def test_an_idle_container_is_destroyed(house: House) -> None:
    house.serve()
    assert house.boxes.stop_idle(3600) == 0
    time.sleep(0.02)
    assert house.boxes.stop_idle(0.01) == 1
    assert house.runner.containers == {}


def test_one_container_serves_one_task_at_a_time(house: House) -> None:
    def work() -> None:
        with pytest.raises(Denied):
            house.serve(hang=True)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    with pytest.raises(NotNow):
        house.serve()
    house.boxes.stop(Code.STOPPED, lambda key: True)
    thread.join(5)


def test_a_sweep_removes_what_a_crash_left(house: House) -> None:
    house.serve()
    (house.root / "train-left-over").mkdir()
    reborn = Sandboxes(house.runner, house.root, house.key.sign, house._trust, lambda *_: None, lambda _: None)
    reborn.sweep()
    assert list(house.root.iterdir()) == [] and house.runner.containers == {}


def test_an_engine_that_is_away_is_not_now(house: House) -> None:
    house.runner.away = True
    with pytest.raises(NotNow):
        house.serve()


@pytest.mark.parametrize("code", [Code.GPU_UNAVAILABLE, Code.NOT_SEALED])
def test_a_start_that_its_image_had_no_part_in_does_not_blame_the_image(house: House, code: Code) -> None:
    house.runner.refusals["execute"] = Reason(code, "gpus")
    with pytest.raises(Denied) as caught:
        house.serve()
    assert caught.value.reasons == (Reason(code, "gpus"),)
    assert house.runner.containers == {}


def test_any_other_no_at_the_start_is_still_the_end_of_the_job(house: House) -> None:
    house.runner.refusals["execute"] = Reason(Code.JOB_UNKNOWN)
    with pytest.raises(Denied, match="job_failed"):
        house.serve()


def keeping(house: House, keep_log_s: float) -> None:
    house.boxes = Sandboxes(
        house.runner, house.root, house.key.sign, house._trust, lambda *_: None,
        lambda box: house.destroyed.append(box.name), keep_log_s,
    )  # fmt: skip


def test_a_job_that_failed_leaves_its_log_for_a_while_and_nothing_else(house: House) -> None:
    keeping(house, 3600)
    with pytest.raises(Denied):
        house.serve(crash=True)
    assert len(house.runner.containers) == 1 and list(house.root.iterdir()) == []
    house.serve()
    house.boxes.tidy()
    assert len(house.runner.containers) == 2 and len(house.runner.terminated) == 1
    house.boxes._keep_log_s = 0
    house.boxes._kept = {name: (key, 0.0) for name, (key, _) in house.boxes._kept.items()}
    house.boxes.tidy()
    assert len(house.runner.containers) == 1


def test_a_pause_or_a_revocation_removes_kept_logs_too(house: House) -> None:
    keeping(house, 3600)
    with pytest.raises(Denied):
        house.serve(crash=True)
    assert house.boxes.stop(Code.PERMIT_REVOKED, lambda key: key.permit == "another") == 0
    assert len(house.runner.containers) == 1 and not house.boxes.settled()
    house.boxes.stop(Code.HOSPITAL_PAUSED, lambda key: True)
    assert house.runner.containers == {} and house.boxes.settled()


def test_a_container_that_was_stopped_from_outside_keeps_no_log(house: House) -> None:
    keeping(house, 3600)

    def work() -> None:
        with pytest.raises(Denied):
            house.serve(hang=True)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    house.boxes.stop(Code.STOPPED, lambda key: True)
    thread.join(5)
    assert house.runner.containers == {}


def test_a_task_whose_engine_went_away_is_not_now_and_is_served_again(house: House) -> None:
    """What an engine's restart ended is not the job's failure: the container goes, the task is given again."""
    honest = house.runner.execute

    def lost(job: str) -> Iterator[JobEvent]:
        yield JobEvent("started")
        raise EngineUnavailable("gone")

    house.runner.execute = lost  # type: ignore[method-assign]
    with pytest.raises(NotNow, match="went away"):
        house.serve()
    assert house.boxes.running() == () and list(house.root.iterdir()) == []
    house.runner.execute = honest  # type: ignore[method-assign]
    assert house.serve()
