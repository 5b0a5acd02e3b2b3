"""Warm containers: which one serves a task, and when one is made."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from containers.warm.pool import SandboxKey
from mediator.errors import Code, Denied, Ended, NotNow, Reason
from mediator.types import Kind
from tests.containers.warm.house import KEY, House


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


def test_a_crashed_job_has_ended_and_leaves_no_folder_behind(house: House) -> None:
    with pytest.raises(Ended) as ended:
        house.serve(crash=True)
    assert ended.value.reason.code is Code.RAISED_RUNTIME_ERROR
    assert list(house.root.iterdir()) == [] and house.runner.containers == {}
    assert len(house.destroyed) == 1
    assert house.serve()["echo"] == b"model"  # the next task gets a new container


def test_a_sandbox_that_fails_its_canary_runs_nothing(house: House) -> None:
    house.trust_error = Denied(Reason(Code.CANARY_FAILED))
    with pytest.raises(Denied):
        house.serve()
    assert house.runner.containers == {} and list(house.root.iterdir()) == []


def test_one_container_serves_one_task_at_a_time(house: House) -> None:
    def work() -> None:
        with pytest.raises(Ended):
            house.serve(hang=True)

    thread = threading.Thread(target=work)
    thread.start()
    while not house.runner.specs:
        time.sleep(0.01)
    with pytest.raises(NotNow):
        house.serve()
    house.boxes.stop(Code.STOPPED, lambda key: True)
    thread.join(5)


def test_an_engine_that_is_away_is_not_now(house: House) -> None:
    house.runner.away = True
    with pytest.raises(NotNow):
        house.serve()
