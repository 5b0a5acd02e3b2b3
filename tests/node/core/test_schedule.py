"""The queue as a pure function: single moments, properties over all moments, and weeks of a simulated site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediator.capacity import Calendar, Capacity, Closed, Gpu, SiteSchedule
from node.core.tasks.schedule import HALF_LIFE, Plan, RunningJob, Wait, Waiting, decayed, plan

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
MINUTE, HOUR, GIB = timedelta(minutes=1), timedelta(hours=1), 1 << 30
SMALL, LARGE, OTHER = Gpu("GPU-small", 16 * GIB), Gpu("GPU-large", 80 * GIB), Gpu("GPU-other", 80 * GIB)
OPEN = Calendar()
OFFICE = Closed(time(8), time(18), frozenset(range(5)))


def site(
    *gpus: Gpu, slots: int = 1, jobs: int = 4, calendar: Calendar = OPEN, quantum: timedelta = HOUR
) -> SiteSchedule:
    return SiteSchedule(Capacity(gpus, slots, jobs), calendar, quantum)


def waits(
    job: str, project: str = "a", minutes: float = 1, gpus: int = 0, memory: int = 0, container: str = ""
) -> Waiting:
    since = NOW - minutes * MINUTE
    return Waiting(job, project, since, since, gpus, memory, container)


def runs(
    job: str, *gpus: str, project: str = "a", minutes: float = 1, idle: bool = False, ending: bool = False
) -> RunningJob:
    return RunningJob(job, project, NOW - minutes * MINUTE, gpus, idle, ending)


def planned(
    where: SiteSchedule, waiting: list[Waiting], running: list[RunningJob] | None = None, **used: float
) -> Plan:
    return plan(NOW, where, waiting, running or [], used)


# --- one moment


def test_an_empty_site_starts_what_it_can_and_tells_the_rest_why() -> None:
    found = planned(site(jobs=1), [waits("one", minutes=2), waits("two"), waits("three", "b")])
    assert found.start == {"one": ()}
    assert found.waits == {"three": Wait.NO_SLOT_FREE, "two": Wait.NO_SLOT_FREE}
    assert found.places == {"three": 2, "two": 3}


def test_a_capacity_of_nothing_starts_nothing() -> None:
    found = planned(site(jobs=0), [waits("one")])
    assert found.start == {} and found.waits == {"one": Wait.NO_SLOT_FREE}


def test_count_and_memory_of_the_grant_decide_which_gpus() -> None:
    both = site(SMALL, LARGE, OTHER)
    assert planned(both, [waits("one", gpus=1)]).start == {"one": ("GPU-small",)}, "the smallest that does"
    assert planned(both, [waits("one", gpus=1, memory=17 * GIB)]).start == {"one": ("GPU-large",)}
    assert planned(both, [waits("one", gpus=2, memory=17 * GIB)]).start == {"one": ("GPU-large", "GPU-other")}
    refused = planned(both, [waits("one", gpus=3, memory=17 * GIB)])
    assert refused.start == {} and refused.waits == {"one": Wait.NO_GPU_FREE}
    assert not both.capacity.holds(3, 17 * GIB) and both.capacity.holds(3, GIB) and both.capacity.holds(0, 0)


def test_a_slot_of_a_shared_gpu_has_its_part_of_the_memory() -> None:
    shared = site(LARGE, slots=4)
    assert planned(shared, [waits("one", gpus=1, memory=20 * GIB)]).start
    assert not planned(shared, [waits("one", gpus=1, memory=21 * GIB)]).start
    five = planned(replace(shared, capacity=replace(shared.capacity, concurrent_jobs=9)),
                   [waits(f"job-{n}", f"p{n}", gpus=1) for n in range(5)])  # fmt: skip
    assert len(five.start) == 4 and list(five.waits.values()) == [Wait.NO_GPU_FREE]


def test_nobody_passes_an_older_job_of_the_same_project() -> None:
    found = planned(site(SMALL), [waits("two", minutes=9, gpus=2), waits("one", minutes=1, gpus=1)])
    assert found.start == {} and found.waits == {"two": Wait.NO_GPU_FREE, "one": Wait.BEHIND_ITS_PROJECT}


def test_who_used_less_of_late_comes_first() -> None:
    line = [waits("a", "a", minutes=9), waits("b", "b")]
    assert planned(site(jobs=1), line, a=100.0, b=50.0).start == {"b": ()}
    assert planned(site(jobs=1), line, a=100.0, b=100.0).start == {"a": ()}
    assert planned(site(jobs=2), line, [runs("busy", project="a")], b=60.0).start == {"b": ()}


def test_use_is_forgotten_by_halves() -> None:
    assert decayed(80.0, NOW, NOW + 3 * HALF_LIFE) == pytest.approx(10.0)
    assert decayed(80.0, NOW + HOUR, NOW) == 80.0, "a clock that went back forgets nothing"


def test_a_warm_container_serves_its_next_task_on_its_own_gpu() -> None:
    warm = runs("box", "GPU-large", idle=True)
    found = planned(site(SMALL, LARGE), [waits("next", gpus=1, container="box")], [warm])
    assert found.start == {"next": ("GPU-large",)} and found.evict == ()


def test_a_container_with_other_gpus_than_the_job_was_granted_is_not_its_own() -> None:
    held = runs("box", "GPU-small", "GPU-large", idle=True)
    line = [waits("one", gpus=1, container="box", minutes=2), waits("two", gpus=1)]
    found = planned(site(SMALL, LARGE, slots=2), line, [held])
    assert found.start == {"one": ("GPU-small",), "two": ("GPU-large",)}, "each slot once"


def test_an_idle_container_goes_when_another_needs_its_gpu() -> None:
    idle = [runs("old", "GPU-small", idle=True, minutes=9), runs("new", "GPU-large", idle=True)]
    found = planned(site(SMALL, LARGE), [waits("one", "b", gpus=1)], idle)
    assert found.evict == ("old",) and found.start == {} and found.waits == {"one": Wait.NO_GPU_FREE}
    assert planned(site(SMALL, LARGE), [waits("one", "b", gpus=1, memory=17 * GIB)], idle).evict == ("new",)
    assert planned(site(SMALL, LARGE), [waits("one", "b")], idle).evict == (), "it needs no GPU"
    assert planned(site(SMALL, LARGE), [waits("one", "b", gpus=3)], idle).evict == (), "it would not help"
    both = planned(site(SMALL, LARGE), [waits("two", "b", gpus=2)], idle)
    assert set(both.evict) == {"old", "new"}


def test_an_idle_container_promised_to_its_own_job_is_not_ended_for_another() -> None:
    idle = [runs("box", "GPU-small", idle=True)]
    line = [waits("own", "a", minutes=9, gpus=1, container="box"), waits("other", "b", gpus=1)]
    found = planned(site(SMALL), line, idle)
    assert found.start == {"own": ("GPU-small",)} and found.evict == ()


def test_what_is_being_given_back_is_not_asked_for_twice() -> None:
    leaving = runs("busy", "GPU-small", minutes=90, ending=True)
    found = planned(site(SMALL), [waits("one", "b", minutes=90, gpus=1)], [leaving])
    assert found.preempt == () and found.start == {}


# --- making room


def test_a_project_over_its_share_makes_room_for_one_that_waited_a_quantum() -> None:
    held = [runs("old", "GPU-small", minutes=200), runs("new", "GPU-large", minutes=100)]
    assert planned(site(SMALL, LARGE), [waits("one", "b", minutes=59, gpus=1)], held).preempt == ()
    assert planned(site(SMALL, LARGE), [waits("one", "b", minutes=61, gpus=1)], held).preempt == ("new",)


def test_who_has_not_had_a_quantum_makes_no_room() -> None:
    held = [runs("old", "GPU-small", minutes=50)]
    assert planned(site(SMALL), [waits("one", "b", minutes=61, gpus=1)], held).preempt == ()


def test_who_has_only_its_share_makes_no_room() -> None:
    held = [runs("a", "GPU-small", minutes=200), runs("b", "GPU-large", project="b", minutes=200)]
    assert planned(site(SMALL, LARGE), [waits("more", "b", minutes=90, gpus=1)], held).preempt == ()
    third = planned(site(SMALL, LARGE), [waits("new", "c", minutes=90, gpus=1)], held)
    assert len(third.preempt) == 1, "two of three hold more than two thirds of a GPU"


def test_nobody_is_asked_when_it_would_not_be_enough() -> None:
    held = [runs("a", "GPU-small", minutes=200), runs("b", "GPU-large", project="b", minutes=10)]
    assert planned(site(SMALL, LARGE), [waits("two", "c", minutes=90, gpus=2)], held).preempt == ()


def test_slots_without_gpus_are_shared_the_same_way() -> None:
    held = [runs(f"a{n}", minutes=100 + n) for n in range(4)]
    found = planned(site(jobs=4), [waits("one", "b", minutes=61)], held)
    assert found.preempt == ("a0",) and found.waits == {"one": Wait.NO_SLOT_FREE}


def test_a_job_of_two_gpus_is_not_starved_by_jobs_of_one() -> None:
    held = [runs("a", "GPU-small", minutes=5)]
    line = [waits("two", "b", minutes=90, gpus=2), waits("one", "c", gpus=1)]
    found = planned(site(SMALL, LARGE), line, held)
    assert found.start == {}, "the free one is kept for the job of two"
    early = [waits("two", "b", minutes=10, gpus=2), waits("one", "c", gpus=1)]
    assert planned(site(SMALL, LARGE), early, held).start == {"one": ("GPU-large",)}, "a quantum long it is lent"


def test_closed_hours_start_nothing_and_empty_the_site() -> None:
    closed = site(SMALL, LARGE, calendar=Calendar((OFFICE,), UTC))
    held = [runs("busy", "GPU-small"), runs("leaving", ending=True), runs("box", "GPU-large", idle=True)]
    found = planned(closed, [waits("one")], held)
    assert found.start == {} and found.preempt == ("busy",) and found.evict == ("box",)
    assert found.waits == {"one": Wait.CLOSED_HOURS} and found.places == {"one": 1}


# --- the calendar


AMSTERDAM = ZoneInfo("Europe/Amsterdam")


@pytest.mark.parametrize(
    ("utc", "is_open"),
    [
        ("2026-11-23T06:59", True), ("2026-11-23T07:00", False), ("2026-11-23T16:59", False),
        ("2026-11-23T17:00", True), ("2026-11-21T12:00", True),  # a Saturday
        ("2026-07-06T05:59", True), ("2026-07-06T06:00", False), ("2026-07-06T16:00", True),  # summer time
    ],
)  # fmt: skip
def test_not_from_eight_to_six_by_the_sites_own_clock(utc: str, is_open: bool) -> None:
    calendar = Calendar((OFFICE,), AMSTERDAM)
    assert calendar.is_open(datetime.fromisoformat(utc).replace(tzinfo=UTC)) is is_open


def test_a_night_that_begins_on_friday_ends_on_saturday() -> None:
    night = Calendar((Closed(time(22), time(6), frozenset({4})),), UTC)
    friday = datetime(2026, 11, 27, tzinfo=UTC)
    assert night.is_open(friday + 3 * HOUR) and not night.is_open(friday + 23 * HOUR)
    assert not night.is_open(friday + 29 * HOUR) and night.is_open(friday + 30 * HOUR)
    assert night.opens(friday + 23 * HOUR) == friday + 30 * HOUR


def test_a_whole_day_and_a_whole_week() -> None:
    sunday = Calendar((Closed(time(0), time(0), frozenset({6})),), UTC)
    assert sunday.opens(datetime(2026, 11, 22, 3, 0, 7, tzinfo=UTC)) == datetime(2026, 11, 23, tzinfo=UTC)
    assert Calendar((Closed(time(0), time(0)),), UTC).opens(NOW) is None
    assert Calendar().opens(NOW) == NOW


@pytest.mark.parametrize(
    ("begin", "shut_minutes"),
    # the clocks go forward on 29 March at 02:00 and back on 25 October at 03:00: that night is an hour shorter, longer
    [("2026-03-28T23:00", 180), ("2026-10-24T22:00", 300), ("2026-11-23T00:00", 240)],
)
def test_a_night_with_a_change_of_the_clocks_is_closed_by_the_wall_clock(begin: str, shut_minutes: int) -> None:
    calendar = Calendar((Closed(time(1), time(5)),), AMSTERDAM)
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    assert sum(not calendar.is_open(start + n * MINUTE) for n in range(8 * 60)) == shut_minutes


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.times(), st.times(), st.sets(st.integers(0, 6)))
@settings(max_examples=60, deadline=None)
def test_the_moment_it_opens_is_the_first_that_is_open(now: datetime, start: time, end: time, days: set[int]) -> None:
    minute = {"second": 0, "microsecond": 0, "tzinfo": None}
    hours = Closed(start.replace(**minute), end.replace(**minute), frozenset(days))
    calendar, moment = Calendar((hours,), AMSTERDAM), now.replace(tzinfo=UTC)
    opens = calendar.opens(moment)
    if opens is None:
        assert days == set(range(7)) and hours.start == hours.end
        return
    assert calendar.is_open(opens) and opens >= moment
    between = (opens - moment) // 7
    assert all(not calendar.is_open(moment + n * between) for n in range(7)) or opens == moment


# --- every moment

GPUS = [Gpu(f"GPU-{n}", size * GIB) for n, size in enumerate((16, 16, 40, 80))]


@st.composite
def moments(draw: st.DrawFn) -> tuple[SiteSchedule, list[Waiting], list[RunningJob], dict[str, float]]:
    """A site that is not over-booked, whoever waits, whatever they used."""
    gpus = draw(st.lists(st.sampled_from(GPUS), unique=True, max_size=4))
    where = site(*gpus, slots=draw(st.integers(1, 2)), jobs=draw(st.integers(0, 5)))
    project, minutes = st.sampled_from("abc"), st.integers(0, 200)
    free = Counter({gpu.id: where.capacity.slots_per_gpu for gpu in gpus})
    running: list[RunningJob] = []
    busy = 0
    for number in range(draw(st.integers(0, 5))):
        idle = draw(st.booleans())
        held = tuple(
            g for g in draw(st.lists(st.sampled_from(sorted(free) or [""]), unique=True, max_size=2)) if free[g] > 0
        )
        if (idle and not held) or (not idle and busy >= where.capacity.concurrent_jobs):
            continue
        busy += not idle
        free.subtract(held)
        running.append(runs(f"run-{number}", *held, project=draw(project), minutes=draw(minutes), idle=idle,
                            ending=draw(st.booleans())))  # fmt: skip
    boxes = ["", *(one.job for one in running if one.idle and not one.ending)]
    waiting = [
        waits(f"job-{n}", draw(project), draw(minutes), draw(st.integers(0, 3)), draw(st.sampled_from([0, 20 * GIB])),
              draw(st.sampled_from(boxes)))
        for n in range(draw(st.integers(0, 6)))
    ]  # fmt: skip
    owners = [job.container for job in waiting if job.container]
    if len(owners) != len(set(owners)):
        waiting = [replace(job, container="") for job in waiting]
    return where, waiting, running, {name: draw(st.floats(0, 1e5)) for name in "abc"}


@given(moments())
@settings(max_examples=400, deadline=None)
def test_whatever_the_moment(moment: tuple[SiteSchedule, list[Waiting], list[RunningJob], dict[str, float]]) -> None:
    where, waiting, running, used = moment
    found = plan(NOW, where, waiting, running, used)
    by_name, held = {job.job: job for job in waiting}, {one.job: one for one in running}
    # everybody is told, once
    assert set(found.start) | set(found.waits) == set(by_name) and not set(found.start) & set(found.waits)
    assert set(found.places) == set(found.waits) and len(set(found.places.values())) == len(found.places)
    # no GPU and no slot is given twice
    taken = Counter(gpu for one in running for gpu in one.gpus)
    for name, gpus in found.start.items():
        job = by_name[name]
        own = held.get(job.container)
        if own is not None and own.gpus == gpus:
            continue
        taken.update(gpus)
        fitting = {gpu.id for gpu in where.capacity.fitting(job.gpu_memory_bytes)}
        assert len(set(gpus)) == job.gpus and set(gpus) <= fitting
    assert all(count <= where.capacity.slots_per_gpu for count in taken.values())
    busy = sum(not one.idle for one in running)
    assert not found.start or busy + len(found.start) <= where.capacity.concurrent_jobs
    # who makes room may be asked, is asked once, and had its quantum
    assert len(set(found.preempt)) == len(found.preempt) and len(set(found.evict)) == len(found.evict)
    for name in found.preempt:
        assert not held[name].idle and not held[name].ending and NOW - held[name].since >= where.quantum
    promised = {by_name[name].container for name in found.start if held.get(by_name[name].container)
                and held[by_name[name].container].gpus == found.start[name]}  # fmt: skip
    for name in found.evict:
        assert held[name].idle and not held[name].ending and name not in promised
    # first come, first served within a project
    for name in found.start:
        older = [job for job in waiting if job.project == by_name[name].project and job.asked < by_name[name].asked]
        assert all(job.job in found.start for job in older)
    # the same moment, the same plan
    assert plan(NOW, where, list(reversed(waiting)), list(reversed(running)), used) == found


@given(moments())
@settings(max_examples=150, deadline=None)
def test_closed_hours_are_closed_whatever_the_moment(
    moment: tuple[SiteSchedule, list[Waiting], list[RunningJob], dict[str, float]],
) -> None:
    where, waiting, running, used = moment
    found = plan(NOW, replace(where, calendar=Calendar((OFFICE,), UTC)), waiting, running, used)
    assert found.start == {} and set(found.waits.values()) <= {Wait.CLOSED_HOURS}
    assert {*found.preempt, *found.evict} == {one.job for one in running if not one.ending}


# --- a simulated site


@dataclass
class Simulated:
    """A site over simulated time, a minute a step: jobs take as long as they take and make room when asked."""

    where: SiteSchedule
    seconds: dict[str, float]
    now: datetime = NOW
    used: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    running: dict[str, tuple[Waiting, RunningJob, datetime]] = field(default_factory=dict)
    waited: dict[str, timedelta] = field(default_factory=dict)
    total: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    preempted: Counter[str] = field(default_factory=Counter)
    checkpoints: bool = True

    def ask(self, job: str, project: str, seconds: float, gpus: int = 0) -> None:
        self.seconds[job] = seconds
        self.waiting[job] = Waiting(job, project, self.now, self.now, gpus)

    def step(self) -> None:
        self._leave()
        use = {name: decayed(amount, since, self.now) for name, (amount, since) in self.used.items()}
        found = plan(self.now, self.where, self.waiting.values(), [one for _, one, _ in self.running.values()], use)
        for job in found.preempt:
            asked, one, _ = self.running[job]
            self.running[job] = (asked, replace(one, ending=True), self.now + self.where.grace)
            self.preempted[job] += 1
        for job, gpus in found.start.items():
            asked = self.waiting.pop(job)
            assert self.where.calendar.is_open(self.now)
            self.waited[job] = self.waited.get(job, timedelta()) + self.now - asked.since
            one = RunningJob(job, asked.project, self.now, gpus)
            self.running[job] = (asked, one, self.now + timedelta(seconds=self.seconds[job]))
        held = Counter(gpu for _, one, _ in self.running.values() for gpu in one.gpus)
        assert all(count <= self.where.capacity.slots_per_gpu for count in held.values())
        assert len(self.running) <= self.where.capacity.concurrent_jobs
        self.now += MINUTE

    def _leave(self) -> None:
        for job, (asked, one, until) in list(self.running.items()):
            if self.now < until:
                continue
            del self.running[job]
            seconds = (self.now - one.since).total_seconds()
            amount, since = self.used.get(asked.project, (0.0, self.now))
            self.used[asked.project] = (decayed(amount, since, self.now) + max(1, len(one.gpus)) * seconds, self.now)
            self.total[asked.project] += round(max(1, len(one.gpus)) * seconds)
            if one.ending and self.seconds[job] > seconds:
                self.seconds[job] -= seconds if self.checkpoints else 0
                self.waiting[job] = replace(asked, since=self.now)
            else:
                self.ended.append(job)

    def until_done(self, limit: timedelta) -> None:
        end = self.now + limit
        while self.waiting or self.running:
            assert self.now < end, (self.waiting, self.running)
            self.step()


TWO_GPUS = site(LARGE, OTHER, jobs=4, quantum=30 * MINUTE)


def test_fifty_jobs_of_four_projects_share_two_gpus_fairly_and_all_end() -> None:
    simulated = Simulated(TWO_GPUS, {})
    sizes = {"greedy": 29, "steady": 10, "modest": 7, "wide": 4}
    for project, count in sizes.items():
        for number in range(count):
            simulated.ask(f"{project}-{number}", project, 20 * 60, 2 if project == "wide" else 1)
    behind: list[Mapping[str, int]] = []
    while simulated.waiting or simulated.running:
        simulated.step()
        if all(any(job.project == name for job in simulated.waiting.values()) for name in sizes):
            behind.append(dict(simulated.total))
        assert simulated.now - NOW < 20 * HOUR
    assert len(simulated.ended) == 50
    # while all four wait, nobody is ahead of anybody by more than a job of two GPUs and a quantum on one
    bound = 2 * 20 * 60 + 2 * 30 * 60
    assert behind and all(max(at.values()) - min(at.get(name, 0) for name in sizes) <= bound for at in behind if at)
    modest = max(wait for job, wait in simulated.waited.items() if job.startswith("modest"))
    greedy = max(wait for job, wait in simulated.waited.items() if job.startswith("greedy"))
    assert modest < greedy, "who asks for less is not last"
    # 54 GPU-slots of 20 minutes on two GPUs are nine hours at best
    assert simulated.now - NOW < 1.25 * 9 * HOUR


def test_a_stream_of_small_jobs_does_not_starve_a_wide_one() -> None:
    simulated = Simulated(TWO_GPUS, {})
    simulated.ask("wide", "wide", 600, 2)
    for minute in range(8 * 60):
        if minute % 5 == 0:
            simulated.ask(f"small-{minute}", f"small-{minute % 3}", 11 * 60, 1)
        simulated.step()
        if "wide" in simulated.ended:
            break
    assert "wide" in simulated.ended and simulated.waited["wide"] <= 2 * simulated.where.quantum


def test_a_long_job_gives_way_every_quantum_and_still_ends() -> None:
    simulated = Simulated(site(LARGE, jobs=4, quantum=30 * MINUTE), {})
    simulated.ask("long", "a", 5 * 3600, 1)
    simulated.step()
    for number in range(6):
        simulated.ask(f"short-{number}", "b", 10 * 60, 1)
    simulated.until_done(12 * HOUR)
    assert simulated.preempted["long"] >= 1 and simulated.preempted["short-0"] == 0
    assert simulated.waited["short-0"] <= 31 * MINUTE


def test_nothing_computes_in_closed_hours_over_a_week_with_a_change_of_the_clocks() -> None:
    calendar = Calendar((OFFICE,), AMSTERDAM)
    simulated = Simulated(replace(TWO_GPUS, calendar=calendar), {}, now=datetime(2026, 10, 22, 5, tzinfo=UTC))
    for number in range(50):
        simulated.ask(f"job-{number}", f"p{number % 3}", 3 * 3600, 1)
    simulated.until_done(timedelta(days=9))
    assert len(simulated.ended) == 50 and sum(simulated.preempted.values()) > 0


def test_a_site_without_gpus_has_the_same_queue() -> None:
    simulated = Simulated(site(jobs=3, quantum=30 * MINUTE), {})
    for number in range(50):
        simulated.ask(f"job-{number}", "many" if number < 45 else "few", 600)
    simulated.until_done(6 * HOUR)
    assert max(wait for job, wait in simulated.waited.items() if int(job[4:]) >= 45) < HOUR
