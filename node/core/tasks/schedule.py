"""Who computes next, on which GPUs, and who makes room: the site's slots as a pure function of what it holds.

`plan` looks at one moment and remembers nothing: capacity, the hours that are closed, who waits, who holds what, and
how much each project has used of late. A site without GPUs has the same queue with `concurrent_jobs` slots.

1. In closed hours nothing starts, and what runs is asked to make room.
2. Otherwise projects take turns by least recent use (slot-seconds, halved every `HALF_LIFE`); within a project the
   oldest comes first, and nobody passes it.
3. A job gets the smallest GPUs that have the memory it was granted, each with a slot to spare; a warm container
   keeps its own. An idle warm container is ended when somebody needs its GPUs.
4. A job that has waited a quantum is passed no more: what it needs is kept for it as it comes free, so that a job of
   two GPUs is not starved by jobs of one.
5. If then another project holds more than its share of such slots, and has for a quantum, its newest jobs make room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from mediator.capacity import SiteSchedule

# what a project computed a week ago counts less than 1 % against it
HALF_LIFE = timedelta(days=1)


@dataclass(frozen=True)
class Waiting:
    """A job that may run: since when it was asked for (its place in the line), since when it has waited without a
    break, and the idle container that would serve it."""

    job: str
    project: str
    asked: datetime
    since: datetime
    gpus: int = 0
    gpu_memory_bytes: int = 0
    container: str = ""


@dataclass(frozen=True)
class RunningJob:
    """Who holds something. An `idle` container holds its GPUs and no other slot; one that is `ending` gives back
    what it holds by itself."""

    job: str
    project: str
    since: datetime
    gpus: tuple[str, ...] = ()
    idle: bool = False
    ending: bool = False


class Wait(StrEnum):
    """Why a job does not start yet."""

    CLOSED_HOURS = "closed_hours"
    BEHIND_ITS_PROJECT = "behind_its_project"
    NO_SLOT_FREE = "no_slot_free"
    NO_GPU_FREE = "no_gpu_free"


@dataclass(frozen=True)
class Plan:
    """What is to happen now: jobs to start on these GPUs, jobs to ask for their place, idle containers to end; and
    for every job that does not start its reason and its place in the line, from 1."""

    start: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preempt: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)


def decayed(seconds: float, since: datetime, now: datetime) -> float:
    """What is left at `now` of slot-seconds that were used at `since`."""
    return seconds * math.pow(0.5, max(now - since, timedelta(0)) / HALF_LIFE)


def plan(
    now: datetime,
    site: SiteSchedule,
    waiting: Iterable[Waiting],
    running: Iterable[RunningJob],
    used: Mapping[str, float],
) -> Plan:
    """What is to happen at `now`. `used` are each project's slot-seconds, already decayed."""
    held = list(running)
    line = _line(now, site, list(waiting), held, used)
    places = {job.job: number for number, job in enumerate(line, 1)}
    if not site.calendar.is_open(now):  # (1)
        busy = tuple(one.job for one in held if not one.idle and not one.ending)
        idle = tuple(one.job for one in held if one.idle and not one.ending)
        return Plan({}, busy, idle, {job.job: Wait.CLOSED_HOURS for job in line}, places)
    board = _Board(now, site, held, line)
    for job in line:
        board.seat(job)
    return Plan(
        board.start, tuple(board.preempt), tuple(board.evict), board.waits, {job: places[job] for job in board.waits}
    )


def _line(
    now: datetime, site: SiteSchedule, waiting: list[Waiting], running: list[RunningJob], used: Mapping[str, float]
) -> list[Waiting]:
    """Everybody who waits, in the order in which they are to be served (2).

    Each that is placed counts against its project as one quantum, as does each that has just begun to run.
    """
    quantum_s = site.quantum.total_seconds()
    debt = {job.project: used.get(job.project, 0.0) for job in waiting}
    for one in running:
        if one.project in debt and not one.idle:
            debt[one.project] += _weight(len(one.gpus)) * max(quantum_s, (now - one.since).total_seconds())
    queues = {
        project: sorted((job for job in waiting if job.project == project), key=lambda job: (job.asked, job.job))
        for project in debt
    }
    line: list[Waiting] = []
    while queues:
        project = min(queues, key=lambda name: (debt[name], queues[name][0].asked, name))
        job = queues[project].pop(0)
        line.append(job)
        debt[project] += _weight(job.gpus) * quantum_s
        if not queues[project]:
            del queues[project]
    return line


def _weight(gpus: int) -> int:
    return max(1, gpus)


class _Board:
    """The seats while they are given out, one job after the other.

    `_slots` and `_free` count what is free now; below zero they are claims on what comes free.
    """

    def __init__(
        self, now: datetime, site: SiteSchedule, running: Sequence[RunningJob], line: Sequence[Waiting]
    ) -> None:
        self._now = now
        self._site = site
        self._running = running
        self._projects = {job.project for job in line} | {one.project for one in running if not one.idle}
        self._behind: set[str] = set()
        self._spoken_for: set[str] = set()
        self._slots = site.capacity.concurrent_jobs - sum(not one.idle for one in running)
        self._free = Counter({gpu.id: site.capacity.slots_per_gpu for gpu in site.capacity.gpus})
        for one in running:
            self._free.subtract(one.gpus)
        self.start: dict[str, tuple[str, ...]] = {}
        self.preempt: list[str] = []
        self.evict: list[str] = []
        self.waits: dict[str, Wait] = {}

    def seat(self, job: Waiting) -> None:
        """Start a job, or say why it waits and have made room for it."""
        if job.project in self._behind:  # (2)
            self.waits[job.job] = Wait.BEHIND_ITS_PROJECT
            return
        gpus = self._gpus_for(job, self._free)
        if gpus is not None and self._slots > 0:
            self.start[job.job] = gpus
            self._claim(job, gpus)
            return
        self._behind.add(job.project)
        self.waits[job.job] = Wait.NO_GPU_FREE if gpus is None else Wait.NO_SLOT_FREE
        overdue = self._now - job.since >= self._site.quantum
        asked = self._ask(job, self._idle() if self._slots > 0 else [])
        if overdue and not asked:
            asked = self._ask(job, [*self._idle(), *self._over_share(job, lacks_gpus=gpus is None)])
        if overdue or asked:  # (4)
            self._claim(job, gpus or self._soonest(job))

    # --- what a job would get

    def _gpus_for(self, job: Waiting, free: Mapping[str, int]) -> tuple[str, ...] | None:
        """The GPUs a job gets where so many are free (3); None where there are not enough."""
        own = self._container_of(job)
        if own is not None:
            return own.gpus
        fitting = self._site.capacity.fitting(job.gpu_memory_bytes)
        found = [gpu.id for gpu in fitting if free[gpu.id] > 0][: job.gpus]
        return tuple(found) if len(found) == job.gpus else None

    def _container_of(self, job: Waiting) -> RunningJob | None:
        """The idle container that would serve it, unless that was given up for another in this very plan."""
        same = (one for one in self._idle() if one.job == job.container and len(one.gpus) == job.gpus)
        return next(same, None)

    def _soonest(self, job: Waiting) -> tuple[str, ...]:
        """The GPUs with the fewest claims on them, of those that fit."""
        coming = Counter(self._free)
        coming.update(gpu for one in self._leaving() for gpu in one.gpus)
        fitting = sorted(self._site.capacity.fitting(job.gpu_memory_bytes), key=lambda gpu: -coming[gpu.id])
        return tuple(gpu.id for gpu in fitting[: job.gpus])

    def _claim(self, job: Waiting, gpus: Iterable[str]) -> None:
        self._slots -= 1
        own = self._container_of(job)
        if own is not None:  # what it holds is counted already, and it is nobody else's to end
            self._spoken_for.add(own.job)
        else:
            self._free.subtract(gpus)

    # --- making room

    def _idle(self) -> list[RunningJob]:
        """Idle containers that nobody was promised and nobody ends, the longest idle first."""
        taken = {*self._spoken_for, *self.evict}
        idle = [one for one in self._running if one.idle and not one.ending and one.job not in taken]
        return sorted(idle, key=lambda one: one.since)

    def _leaving(self) -> list[RunningJob]:
        """Those that give back what they hold by themselves, or have been asked to."""
        asked = {*self.preempt, *self.evict}
        return [one for one in self._running if one.ending or one.job in asked]

    def _ask(self, job: Waiting, givers: Sequence[RunningJob]) -> bool:
        """Have the first of `givers` make room, as many as it takes; false, and none asked, where all would not do."""
        slots, free, asked = self._slots, Counter(self._free), []
        for one in self._leaving():
            slots += not one.idle
            free.update(one.gpus)
        fitting = {gpu.id for gpu in self._site.capacity.fitting(job.gpu_memory_bytes)}
        for one in givers:
            gpus = self._gpus_for(job, free)
            if gpus is not None and slots > 0:
                break
            frees_gpu = gpus is None and any(free[gpu] <= 0 for gpu in fitting.intersection(one.gpus))
            if frees_gpu or (slots <= 0 and not one.idle):
                asked.append(one)
                slots += not one.idle
                free.update(one.gpus)
        if slots <= 0 or self._gpus_for(job, free) is None:
            return False
        self.evict += [one.job for one in asked if one.idle]
        self.preempt += [one.job for one in asked if not one.idle]
        return True

    def _over_share(self, job: Waiting, *, lacks_gpus: bool) -> list[RunningJob]:
        """Whom an overdue job may ask (5): who has run for a quantum, of projects over their share, the newest of the
        largest first, down to the share; nobody where the job's own project has its share."""

        def units(one: RunningJob) -> int:
            return len(one.gpus) if lacks_gpus else 1

        capacity = self._site.capacity
        total = len(capacity.gpus) * capacity.slots_per_gpu if lacks_gpus else capacity.concurrent_jobs
        share = total / max(1, len(self._projects))
        gone = {one.job for one in self._leaving()}
        busy = [one for one in self._running if not one.idle and one.job not in gone]
        holds = Counter[str]()
        for one in busy:
            holds[one.project] += units(one)
        if holds[job.project] >= share:
            return []
        chosen: list[RunningJob] = []
        left = [one for one in busy if self._now - one.since >= self._site.quantum and units(one)]
        while over := [one for one in left if one.project != job.project and holds[one.project] > share]:
            one = max(over, key=lambda one: (holds[one.project], one.since, one.job))
            left.remove(one)
            chosen.append(one)
            holds[one.project] -= units(one)
        return chosen
