"""SIGKILL, the worst way to go: what was decided stays decided, nothing is lost, nothing is done or charged twice."""

from __future__ import annotations

from collections import Counter

import pytest

from mediator.sizes import reserve_bytes
from mediator.types import Dtype, Kind, TensorSpec
from tests.end_to_end.commands import cloister
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Job, Permit
from tests.end_to_end.machine import eventually

pytestmark = pytest.mark.engine
ROUNDS = 3
TASKS = {(0, "evaluate"), *((number, task) for number in range(1, ROUNDS + 1) for task in ("train", "evaluate"))}


def specs(job: Job) -> list[TensorSpec]:
    return [TensorSpec(each["name"], tuple(each["shape"]), Dtype(each["dtype"])) for each in job.tensors]


def assert_served_once(hospital: Hospital, run: str, job: Job, history: dict) -> None:
    """One release for each round and task, each charged once; ledger and hub agree to the byte."""
    done = [
        tuple(record["object"].split("@")[0].split("/")[1:3])
        for record in hospital.records()
        if record["action"] == "release" and record["verdict"] == "done" and record["object"].startswith(f"{run}/")
    ]
    assert Counter(done) == Counter((str(number), task) for number, task in TASKS)
    assert hospital.count(about=f"{run}/", action="ledger_charge") == len(TASKS)
    ledger = hospital.ledger(run)
    train, evaluate = (reserve_bytes(specs(job), kind) for kind in (Kind.TRAIN, Kind.EVALUATE))
    assert (ledger["rounds_charged"], ledger["releases"], ledger["state"]) == (ROUNDS, len(TASKS), "complete")
    assert ledger["bytes_charged"] == ROUNDS * train + (ROUNDS + 1) * evaluate
    assert ledger["bytes_released"] == sum(entry["bytes"][hospital.site] for entry in history["rounds"])
    assert {job["state"] for job in hospital.jobs(run)} <= {"delivered", "stopped"}


def assert_nothing_left(hospital: Hospital) -> None:
    eventually(lambda: not hospital.containers(), what="the end of every container")
    assert hospital.work_areas() == []


def test_hub_and_node_killed_and_every_round_is_served_once(house: House, rogue: Permit) -> None:
    hub, (first, second) = house.hub, house.hospitals
    run = house.begin("killed", rogue, first, second, rounds=ROUNDS, misbehave="slow")
    eventually(lambda: hub.show(run)["completed_round"] >= 1, within_s=60, what="round 1")
    hub.kill()
    hub.serve()
    first.recorded(about=f"{run}/2/train", action="job_start")
    first.kill()
    assert first.containers(), "killed in the middle of a job, so its container is still there"
    first.serve()
    history = hub.ended(run, within_s=120)
    assert (history["state"], history["completed_round"]) == ("done", ROUNDS), history
    assert history["attempt"] >= 2 and all(not entry["refusals"] for entry in history["rounds"]), history
    for hospital in (first, second):
        assert all(hospital.site in entry["evaluate"] for entry in history["rounds"])
        assert_served_once(hospital, run, rogue.job, history)
        assert_nothing_left(hospital)
        hospital.run("audit", "checkpoint")
        report = cloister("audit", "verify", hospital.audit, *hospital.verify_words, "--json").json()
        assert report["ok"] and report["witnessed"] > 0, report


def test_a_node_killed_and_started_leaves_no_container_behind_though_nobody_asks(house: House, rogue: Permit) -> None:
    """Nothing of the dead node's goes on with patients' data until somebody orders the next run."""
    hospital = house.hospitals[1]
    run = house.begin("abandoned", rogue, hospital, misbehave="over-time")
    hospital.recorded(about=f"{run}/1/train", action="job_start")
    house.hub.run("run", "stop", run)
    left = hospital.containers()
    hospital.kill()
    assert hospital.containers() == left != []
    hospital.serve()
    eventually(lambda: not set(left) & set(hospital.containers()), what="the end of the dead node's containers")
    hospital.run("pause")
    assert_nothing_left(hospital)
    hospital.run("resume")
