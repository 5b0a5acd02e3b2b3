"""SIGKILL, the worst way to go: what was decided stays decided, nothing is lost, nothing is done or charged twice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.demo import permits
from mediator.sizes import reserve_bytes
from mediator.types import Dtype, Kind, TensorSpec
from tests.end_to_end.commands import Done, attempt, cloister
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Job, Permit
from tests.end_to_end.machine import eventually, give, kill_role
from tests.sim.cohort import write_cohort

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
    # whichever served no last round ends by being idle, after 120 s (`hospital.py`)
    eventually(lambda: not hospital.containers(), within_s=150, what="the end of every container")
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


# --- imports ----------------------------------------------------------------------------------------------------

# the record on whose sight a process is killed: the import is in that state then
MOMENTS = {
    "ordered": ("ingest_order", ""),
    "taking in": ("import_advance", "/take_in"),
    "de-identifying": ("import_advance", "/deidentify"),
    "a study taken": ("study_take", "/"),
    "publishing": ("ingest_report", ""),
}


@pytest.fixture
def small(house: House) -> Iterator[Path]:
    """A source of three patients, one with two studies, below the second hospital's."""
    hospital = house.hospitals[1]
    path = hospital.source / "small"
    path.mkdir()
    write_cohort(path, hospital.site, 3, seed=7, second_study=1)
    for each in (path, *path.rglob("*")):
        give(each, hospital.uids["intake"])
    yield path
    shutil.rmtree(path)


def order(hospital: Hospital, source: Path) -> Done:
    return attempt(
        "node", "ingest", source, "--project", permits.PROJECT, "--dataset", "small", "--clinical", "clinical.csv",
        "--column", "lesion=0:1", "--json", "--config", hospital.config,
    )  # fmt: skip


@pytest.mark.parametrize("role", ["core", "intake"])
def test_an_import_goes_on_over_the_death_of_core_and_of_intake_in_every_state(
    house: House, small: Path, role: str
) -> None:
    """The same version as an undisturbed import, every study in one place, no original left, one trail."""
    hospital = house.hospitals[1]
    hospital.stop()
    hospital.serve()  # a supervisor waits longer each time for a process that keeps dying
    assert hospital.process is not None
    wanted = order(hospital, small).json()["dataset_version"]
    for moment, (action, tail) in MOMENTS.items():
        before = hospital.last()
        with ThreadPoolExecutor(1) as pool:
            followed = pool.submit(order, hospital, small)  # the steward's command may lose its core
            name = hospital.recorded(before, action="ingest_order")["object"]
            hospital.recorded(before, action=action, about=f"{name}{tail}")
            kill_role(hospital.process, role)
            hospital.recorded(before, action="import_advance", about=f"{name}/publish", within_s=120)
            followed.result()
        answers = ("node", "dataset", "imports", "--json", "--config", hospital.config)
        eventually(lambda answers=answers: attempt(*answers).code == 0, within_s=60, what="core's next start")
        line = next(each for each in hospital.json("dataset", "imports") if f"ingest/{each['order']}" == name)
        assert (line["state"], line["dataset_version"], line["studies_waiting"]) == ("published", wanted, 0), moment
        assert hospital.count(before, f"{name}/", action="study_take") == line["studies_done"] == line["studies"]
        for once in ("ingest_order", "quarantine_destroy", "ingest_report"):
            assert hospital.count(before, name, action=once) == 1, (moment, once)
        for folder in ("intake/quarantine", "handover"):
            eventually(lambda folder=folder: not any((hospital.state / folder).iterdir()), what=f"an empty {folder}")


def test_an_import_stopped_by_a_person_leaves_nothing_and_a_killed_node_does_not_bring_it_back(
    house: House, small: Path
) -> None:
    hospital = house.hospitals[1]
    hospital.stop()
    hospital.serve()
    before = hospital.last()
    with ThreadPoolExecutor(1) as pool:
        followed = pool.submit(order, hospital, small)
        name = hospital.recorded(before, action="ingest_order")["object"]
        hospital.run("dataset", "stop", name.removeprefix("ingest/"))
        hospital.kill()
        hospital.serve()
        hospital.recorded(before, action="import_stop", about=name, verdict="done")
        assert followed.result().code != 0
    assert not any((hospital.state / "intake" / "quarantine").iterdir())
    assert (
        hospital.count(before, name, action="dataset_publish") == hospital.count(before, name, action="study_take") == 0
    )
