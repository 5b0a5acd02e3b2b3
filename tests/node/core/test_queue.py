"""The queue in a core of real parts, on an engine that is played: turns, GPUs, hours, room made, checkpoints."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any

import pytest

from mediator.audit import Action, Verdict
from mediator.capacity import Calendar, Capacity, Closed, Gpu, SiteSchedule
from mediator.errors import Code, UsageFault
from mediator.jobs import JobState
from mediator.types import SiteDatasets
from node.core.airlock.airlock import hold
from node.core.context import event
from node.core.tasks import pause
from node.core.tasks.queue import Ask
from node.core.tasks.run_job import JobThreads
from node.core.tasks.schedule import Wait
from tests.mediator import samples
from tests.node.core.desk import Desk, eventually, learn, manifest
from tests.sim.runner import Leave

GIB = 1 << 30
LARGE, SMALL = Gpu("GPU-large", 80 * GIB), Gpu("GPU-small", 16 * GIB)
TWO_GPUS = SiteSchedule(
    Capacity((LARGE, SMALL), concurrent_jobs=4), quantum=timedelta(minutes=30), grace=timedelta(seconds=5)
)
ONE_SLOT = SiteSchedule(Capacity(concurrent_jobs=1), quantum=timedelta(minutes=30), grace=timedelta(seconds=5))
OFFICE = Calendar((Closed(clock(13), clock(14)),), UTC)
SECRET = b"Hartog^Wilhelmina, optimiser state"


class Work:
    """A job by the test's clock: each task takes its minutes, and makes room with what it has done so far."""

    def __init__(self, minutes: Callable[[Mapping[str, Any]], float] = lambda task: 60) -> None:
        self.desk: Desk
        self.minutes = minutes
        self.lock = threading.Lock()
        self.due: dict[int, datetime] = {}
        self.begun: Counter[int] = Counter()
        self.given: list[bytes | None] = []
        self.obeys = True

    def __call__(self, task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        me, start = threading.get_ident(), self.desk.now
        done_s = float(task["checkpoint"].split(b"|")[0]) if task["checkpoint"] else 0.0
        until = start + timedelta(minutes=self.minutes(task)) - timedelta(seconds=done_s)
        with self.lock:
            self.given.append(task["checkpoint"])
            self.due[me] = until
        try:
            while self.desk.now < until:
                if task["stopping"]() and self.obeys:
                    spent = (self.desk.now - start).total_seconds()
                    raise Leave(f"{done_s + spent}|".encode() + SECRET)
                time.sleep(0.002)
        finally:
            with self.lock:
                del self.due[me]
        return learn(task, model)


def add_project(desk: Desk, name: str, runs: int, **limits: Any) -> None:
    """A project with its own permit, dataset version and run orders `name-0`, `name-1`, …"""
    version = "sha256:" + f"{sum(name.encode()):064x}"
    granted = samples.permit(
        permit=f"permit-{name}", project=name, datasets=(SiteDatasets(samples.SITE, (version,)),),
        resources=replace(samples.RESOURCES, **limits), maximum_rounds=100, byte_budget=1 << 30,
    )  # fmt: skip
    desk.documents.receive(samples.COMMITTEE.sign(granted))
    desk.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
    for number in range(runs):
        order = samples.order(run=f"{name}-{number}", permit=granted.permit, nonce=f"nonce-{name}-{number}", rounds=50)
        desk.documents.receive(samples.RESEARCHER.sign(order))
    published = replace(manifest(), dataset=name, project=name, dataset_version=version)
    with desk.core.store.transaction(desk.now) as tx:
        made = event(Action.DATASET_PUBLISH, version, Verdict.DONE)
        tx.add_dataset_version(published, "d" * 64, f"{name}/a", event=made)


def ask(desk: Desk, run: str, round_: int = 1, hours: float = 24, **changes: Any) -> None:
    desk.ask(
        run=run, permit=f"permit-{run.split('-')[0]}", round=round_, issued=desk.now,
        expires=desk.now + timedelta(hours=hours), **changes,
    )  # fmt: skip


def row(desk: Desk, run: str, round_: int = 1) -> Any:
    with desk.core.store.read() as snapshot:
        return next(each for each in snapshot.jobs(500) if (each.run, each.round) == (run, round_))


def until(desk: Desk, run: str, *states: JobState) -> Any:
    return eventually(lambda: found if (found := row(desk, run)).state in states else None)


def settle(desk: Desk, work: Work) -> None:
    """Wait until everything that the clock made due has happened."""

    def still() -> bool:
        desk.jobs.queue.look()
        turns = {job for job, place in desk.jobs.queue.places().items() if place.wait is None}
        with desk.core.store.read() as snapshot:
            busy = [each for each in snapshot.unfinished() if each.state is not JobState.RELEASED]
        at_work = [each for each in busy if each.state is JobState.RUNNING]
        with work.lock:
            due = list(work.due.values())
        waiting = sum(place.wait is not None for place in desk.jobs.queue.places().values())
        return (
            len(turns) == len(at_work) == len(due)
            and all(moment > desk.now for moment in due)
            and len(busy) == len(at_work) + waiting
            and not any(place.leaving for place in desk.jobs.queue.places().values())
        )

    # twice in a row: what one look began, the next one sees
    eventually(lambda: still() and still(), within_s=20)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[SiteSchedule, Work], Desk]]:
    made: list[Desk] = []

    def build(site: SiteSchedule, work: Work, **more: Any) -> Desk:
        desk = work.desk = Desk(tmp_path, work, schedule=site, **more)
        ceiling = replace(samples.POLICY.resources, gpus=2, gpu_memory_bytes=80 * GIB)  # type: ignore[type-var]
        object.__setattr__(desk.core, "ceiling", ceiling)
        desk.jobs.start()
        made.append(desk)
        return desk

    yield build
    for desk in made:
        desk.now += timedelta(days=9)
        desk.jobs.stop()
        desk.boxes.shut_down()
        desk.core.store.close()


Make = Callable[[SiteSchedule, Work], Desk]


def test_two_jobs_get_two_gpus_by_name_and_the_third_waits_and_says_why(make: Make) -> None:
    work = Work()
    desk = make(TWO_GPUS, work)
    for name in ("a", "b", "c"):
        add_project(desk, name, 1, gpus=1)
        ask(desk, f"{name}-0")
        desk.now += timedelta(seconds=1)
    settle(desk, work)
    assert sorted(spec.gpu_devices for spec in desk.runner.specs) == [("GPU-large",), ("GPU-small",)]
    places = desk.jobs.queue.places()
    assert places[row(desk, "a-0").job].gpus == ("GPU-small",), "the smallest first"
    third = places[row(desk, "c-0").job]
    assert (third.wait, third.position) == (Wait.NO_GPU_FREE, 1) and row(desk, "c-0").state is JobState.ADMITTED


def test_the_memory_of_the_grant_decides(make: Make) -> None:
    work = Work()
    desk = make(TWO_GPUS, work)
    add_project(desk, "a", 2, gpus=1, gpu_memory_bytes=40 * GIB)
    ask(desk, "a-0")
    settle(desk, work)
    ask(desk, "a-1")
    settle(desk, work)
    assert [spec.gpu_devices for spec in desk.runner.specs] == [("GPU-large",)], "the small one stays empty"


def test_a_warm_container_keeps_its_gpu_and_gives_it_up_when_another_needs_it(make: Make) -> None:
    work = Work(lambda task: 0)
    desk = make(SiteSchedule(Capacity((LARGE,), concurrent_jobs=4)), work)
    add_project(desk, "a", 1, gpus=1)
    add_project(desk, "b", 1, gpus=1)
    for round_ in (1, 2):
        ask(desk, "a-0", round_)
        eventually(lambda round_=round_: row(desk, "a-0", round_).state is JobState.RELEASED)
    assert len(desk.runner.specs) == 1
    ask(desk, "b-0")
    until(desk, "b-0", JobState.RELEASED)
    assert [spec.gpu_devices for spec in desk.runner.specs] == [("GPU-large",)] * 2
    assert len(desk.runner.containers) == 1, "the idle one is gone"


def test_a_job_makes_room_and_goes_on_from_its_checkpoint(make: Make) -> None:
    work = Work(lambda task: 60 if task["round"] == 1 else 1)
    desk = make(ONE_SLOT, work)
    add_project(desk, "a", 1)
    add_project(desk, "b", 1)
    ask(desk, "a-0")
    settle(desk, work)
    ask(desk, "b-0", 2)
    before = desk.size()
    desk.now += timedelta(minutes=31)
    settle(desk, work)
    assert (row(desk, "a-0").preempted, row(desk, "b-0", 2).state) == (1, JobState.RUNNING)
    stored = desk.root / "jobs" / row(desk, "a-0").job / "checkpoint"
    assert stored.read_bytes().endswith(SECRET) and stored.stat().st_mode & 0o777 == 0o600
    assert row(desk, "a-0").state is JobState.ADMITTED and row(desk, "a-0").used_s == pytest.approx(31 * 60)
    desk.now += timedelta(minutes=1)
    settle(desk, work)
    desk.now += timedelta(minutes=30)  # 31 + 30 minutes are an hour; 30 would not be
    until(desk, "a-0", JobState.RELEASED)
    assert work.given[0] is None and work.given[2] == b"1860.0|" + SECRET
    actions = [each.action for each in desk.log(before) if each.about == "a-0/1/train/1"]
    assert actions[:3] == ["job_preempt", "job_prepare", "job_start"]
    assert len(desk.charges_of("a")) == 1, "charged once"


def test_a_job_that_ignores_the_request_is_ended_after_its_grace_and_begins_again(make: Make) -> None:
    work = Work(lambda task: 60 if task["round"] == 1 else 1)
    work.obeys = False
    desk = make(replace(ONE_SLOT, grace=timedelta(seconds=0.3)), work)
    add_project(desk, "a", 1)
    add_project(desk, "b", 1)
    ask(desk, "a-0")
    settle(desk, work)
    ask(desk, "b-0", 2)
    desk.now += timedelta(minutes=31)
    eventually(lambda: row(desk, "b-0", 2).state is JobState.RUNNING)
    eventually(lambda: len(work.given) == 2)
    assert row(desk, "a-0").preempted == 1 and work.given == [None, None]
    assert not (desk.root / "jobs" / row(desk, "a-0").job / "checkpoint").exists()


def test_a_checkpoint_reaches_neither_gate_2_nor_another_job_nor_the_outside(make: Make) -> None:
    """A job that finishes and leaves a `checkpoint` beside its result, and one that leaves it for its next round."""
    seen: list[tuple[str, bytes | None]] = []

    def hide(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        seen.append((task["kind"], task["checkpoint"]))
        return {**learn(task, model), "checkpoint": SECRET}

    work = Work(lambda task: 60 if task["round"] == 1 else 0)
    desk = make(ONE_SLOT, work)
    desk.runner._behaviours = {samples.IMAGE: hide}
    add_project(desk, "a", 2)
    for run in ("a-0", "a-1"):
        for round_ in (1, 2):
            ask(desk, run, round_)
            eventually(lambda run=run, round_=round_: row(desk, run, round_).state is JobState.RELEASED)
    assert seen == [("train", None)] * 4, "no round and no run found another's"
    eventually(lambda: not list((desk.root / "jobs").iterdir()))
    files = [path for path in desk.root.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET in path.read_bytes()]


def test_a_checkpoint_ends_with_its_job(make: Make) -> None:
    work = Work(lambda task: 90)
    desk = make(replace(ONE_SLOT, calendar=OFFICE), work)
    add_project(desk, "a", 1)
    ask(desk, "a-0")
    settle(desk, work)
    desk.now = samples.NOW.replace(hour=13)
    eventually(lambda: row(desk, "a-0").preempted == 1)
    assert [path.name for path in (desk.root / "jobs").rglob("checkpoint")] == ["checkpoint"]
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=6, permits=("permit-a",))))
    desk.now = samples.NOW.replace(hour=14)
    assert until(desk, "a-0", JobState.STOPPED).code is Code.PERMIT_REVOKED
    eventually(lambda: not list((desk.root / "jobs").iterdir()))


def test_closed_hours_are_waited_for_and_what_runs_makes_room(make: Make) -> None:
    work = Work(lambda task: 90)
    desk = make(replace(ONE_SLOT, calendar=OFFICE), work)
    add_project(desk, "a", 2)
    ask(desk, "a-0")
    settle(desk, work)
    desk.now = samples.NOW.replace(hour=13)
    eventually(lambda: row(desk, "a-0").preempted == 1)
    ask(desk, "a-1")
    eventually(lambda: row(desk, "a-1").job in desk.jobs.queue.places())
    desk.jobs.queue.look()
    assert {place.wait for place in desk.jobs.queue.places().values()} == {Wait.CLOSED_HOURS}
    assert desk.runner.containers == {}
    desk.now = samples.NOW.replace(hour=14)
    settle(desk, work)
    desk.now += timedelta(minutes=30)
    until(desk, "a-0", JobState.RELEASED)


def test_a_task_that_expires_before_the_hours_begin_is_refused_at_once(make: Make) -> None:
    work = Work()
    desk = make(replace(ONE_SLOT, calendar=OFFICE), work)
    add_project(desk, "a", 1)
    desk.now = samples.NOW.replace(hour=13)
    ask(desk, "a-0", hours=0.5)
    assert (row(desk, "a-0").state, row(desk, "a-0").code) == (JobState.REFUSED, Code.OUTSIDE_SCHEDULE)
    assert desk.charges_of("a") == ()


def test_who_waits_too_long_is_told_so(make: Make) -> None:
    work = Work()
    desk = make(replace(ONE_SLOT, quantum=timedelta(hours=9)), work)
    add_project(desk, "a", 2)
    ask(desk, "a-0")
    settle(desk, work)
    ask(desk, "a-1", hours=0.5)
    settle(desk, work)
    desk.now += timedelta(minutes=31)
    assert until(desk, "a-1", JobState.REFUSED).code is Code.INSTRUCTION_EXPIRED
    assert row(desk, "a-0").state is JobState.RUNNING


def test_a_pause_answers_those_who_wait_as_well(make: Make) -> None:
    work = Work()
    desk = make(ONE_SLOT, work)
    add_project(desk, "a", 2)
    for run in ("a-0", "a-1"):
        ask(desk, run)
    settle(desk, work)
    begun = time.monotonic()
    pause.pause(desk.core, desk.boxes, "it_admin")
    for run in ("a-0", "a-1"):
        assert until(desk, run, JobState.STOPPED).code is Code.HOSPITAL_PAUSED
    assert time.monotonic() - begun < 5


def test_a_revocation_answers_those_who_wait_as_well(make: Make) -> None:
    work = Work()
    desk = make(replace(ONE_SLOT, calendar=OFFICE), work)
    add_project(desk, "a", 1)
    desk.now = samples.NOW.replace(hour=13)
    ask(desk, "a-0")
    eventually(lambda: row(desk, "a-0").job in desk.jobs.queue.places())
    desk.documents.receive(samples.COMMITTEE.sign(samples.revocations(number=6, permits=("permit-a",))))
    assert until(desk, "a-0", JobState.STOPPED).code is Code.PERMIT_REVOKED
    assert desk.jobs.queue.places() == {} and desk.runner.specs == []


def test_staff_end_a_job_that_waits_and_one_that_runs_and_no_other(make: Make) -> None:
    work = Work()
    desk = make(ONE_SLOT, work)
    add_project(desk, "a", 3)
    for run in ("a-0", "a-1", "a-2"):
        ask(desk, run)
        desk.now += timedelta(seconds=1)
    settle(desk, work)
    before = desk.size()
    desk.jobs.end(row(desk, "a-1").job, "data_steward")
    assert until(desk, "a-1", JobState.STOPPED).code is Code.STOPPED
    assert row(desk, "a-0").state is JobState.RUNNING
    desk.jobs.end(row(desk, "a-0").job, "it_admin")
    until(desk, "a-0", JobState.STOPPED)
    eventually(lambda: row(desk, "a-2").state is JobState.RUNNING)
    told = [(each.action, each.about, each.verdict) for each in desk.log(before) if each.action == "job_stop"]
    assert told == [("job_stop", row(desk, run).job, "allowed") for run in ("a-1", "a-0")]
    for job in ("job-none", row(desk, "a-0").job):
        with pytest.raises(UsageFault):
            desk.jobs.end(job, "it_admin")


def test_a_turn_that_came_at_once_is_kept_and_staff_end_its_job(make: Make) -> None:
    """The thread that put the job into the queue may be slower than the planner and the thread that takes it up."""
    work = Work()
    desk = make(ONE_SLOT, work)
    enter = desk.jobs.queue.enter

    def slowly(ask: Ask) -> None:
        enter(ask)
        time.sleep(0.5)

    desk.jobs.queue.enter = slowly  # type: ignore[method-assign]
    add_project(desk, "a", 1)
    ask(desk, "a-0")
    until(desk, "a-0", JobState.RUNNING)
    time.sleep(0.6)
    job = row(desk, "a-0").job
    assert desk.jobs.queue.turn(job) is not None and job in desk.jobs.queue.places()
    desk.jobs.end(job, "it_admin")
    assert until(desk, "a-0", JobState.STOPPED).code is Code.STOPPED


def test_what_was_used_before_a_restart_counts_after_it(make: Make) -> None:
    work = Work(lambda task: 30)
    desk = make(replace(ONE_SLOT, calendar=OFFICE), work)
    add_project(desk, "a", 2)
    add_project(desk, "b", 1)
    ask(desk, "a-0")
    settle(desk, work)
    desk.now += timedelta(minutes=30)
    until(desk, "a-0", JobState.RELEASED)
    assert row(desk, "a-0").used_s == pytest.approx(1800)
    desk.jobs.stop()
    desk.boxes.shut_down()
    desk._open()
    desk.now = samples.NOW.replace(hour=13)
    ask(desk, "a-1")
    desk.now += timedelta(seconds=1)
    ask(desk, "b-0")
    desk.jobs = JobThreads(desk.core, desk.boxes, lambda version, split, columns, into: into.mkdir(), hold)
    desk.jobs.start()
    eventually(lambda: len(desk.jobs.queue.places()) == 2)
    desk.jobs.queue.look()
    places = desk.jobs.queue.places()
    assert places[row(desk, "b-0").job].position == 1, "younger, but of the project that used less"
    assert places[row(desk, "a-1").job].position == 2


def test_fifty_jobs_of_three_projects_by_a_simulated_clock(make: Make) -> None:
    """No GPU twice, closed hours kept, everybody served, nobody far ahead, and nothing computed twice."""
    sizes = {"many": 30, "some": 12, "few": 8}
    minutes = {"many": 20.0, "some": 40.0, "few": 20.0}
    work = Work(lambda task: minutes[["many", "some", "few"][task["round"] - 1]])
    desk = make(replace(TWO_GPUS, calendar=Calendar((Closed(clock(20), clock(22)),), UTC)), work)
    for round_, (name, count) in enumerate(sizes.items(), 1):
        add_project(desk, name, count, gpus=1)
        for number in range(count):
            ask(desk, f"{name}-{number}", round_, hours=40)
    ended: dict[str, datetime] = {}
    shares: list[Counter[str]] = []
    while len(ended) < 50:
        settle(desk, work)
        with desk.core.store.read() as snapshot:
            rows = snapshot.jobs(500)
        at_work = [each for each in rows if each.state is JobState.RUNNING]
        gpus = [gpu for each in at_work for gpu in desk.jobs.queue.places()[each.job].gpus]
        assert len(gpus) == len(set(gpus)) == len(at_work) <= 2
        assert not at_work or not 20 <= desk.now.hour < 22
        used = Counter[str]()
        for each in rows:
            used[each.run.split("-")[0]] += round(each.used_s)
            if each.state is JobState.RELEASED:
                ended.setdefault(each.run, desk.now)
        if all(sum(name in run for run in ended) < size for name, size in sizes.items()):
            shares.append(used)
        desk.now += timedelta(minutes=10)
        assert desk.now - samples.NOW < timedelta(hours=30)
    assert shares and all(
        max(used.values()) - min(used[name] for name in sizes) <= 2 * 40 * 60 for used in shares if used
    )
    last = {name: max(moment for run, moment in ended.items() if name in run) for name in sizes}
    assert last["few"] < last["many"], "who asks for less is not last"
    with desk.core.store.read() as snapshot:
        rows = snapshot.jobs(500)
    for each in rows:
        # a step of the clock at most is lost or counted twice for each time it made room
        assert each.used_s <= minutes[each.run.split("-")[0]] * 60 + 600 * (1 + each.preempted), each
    assert len({(spec.job, spec.gpu_devices) for spec in desk.runner.specs}) >= 50
