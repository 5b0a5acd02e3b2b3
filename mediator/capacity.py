"""What a site lends to research: its GPUs and slots, and the hours in which nothing computes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

_MINUTE = timedelta(minutes=1)
# a calendar repeats every week; the extra day covers a change of the clocks
_HORIZON = timedelta(days=8)


@dataclass(frozen=True)
class Gpu:
    """One GPU (or one slice of it that the driver separates), by the id the driver gives it."""

    id: str
    memory_bytes: int


@dataclass(frozen=True)
class Capacity:
    """What a site lends: `concurrent_jobs` containers at work at once, and `slots_per_gpu` of them on each GPU."""

    gpus: tuple[Gpu, ...] = ()
    slots_per_gpu: int = 1
    concurrent_jobs: int = 1

    def fitting(self, memory_bytes: int) -> tuple[Gpu, ...]:
        """The GPUs on which one slot's part of the memory is at least this much, the smallest first."""
        enough = [gpu for gpu in self.gpus if gpu.memory_bytes // self.slots_per_gpu >= memory_bytes]
        return tuple(sorted(enough, key=lambda gpu: gpu.memory_bytes))

    def holds(self, gpus: int, memory_bytes: int) -> bool:
        """Whether such a job could ever run here."""
        return gpus == 0 or len(self.fitting(memory_bytes)) >= gpus


@dataclass(frozen=True)
class Closed:
    """Hours in which nothing computes, by the site's clock: from `start` to `end`, begun on these weekdays (0: Monday).

    An `end` at or before `start` is on the next day; 00:00 to 00:00 is the whole day.
    """

    start: time
    end: time
    weekdays: frozenset[int] = frozenset(range(7))

    def covers(self, local: datetime) -> bool:
        """Whether a local wall-clock time lies in it."""
        at = local.time()
        if self.start < self.end:
            return self.start <= at < self.end and local.weekday() in self.weekdays
        begun_today = at >= self.start and local.weekday() in self.weekdays
        return begun_today or (at < self.end and (local.weekday() - 1) % 7 in self.weekdays)


@dataclass(frozen=True)
class Calendar:
    """A site's closed hours by its own wall clock, whatever summer time does to it. Without any it is always open."""

    closed: tuple[Closed, ...] = ()
    zone: tzinfo | None = None

    def is_open(self, now: datetime) -> bool:
        local = now.astimezone(self.zone)
        return not any(hours.covers(local) for hours in self.closed)

    def opens(self, now: datetime) -> datetime | None:
        """`now` if it is open, else the first minute that is; None where none of the coming week is."""
        moment = now
        while not self.is_open(moment):
            moment = moment.replace(second=0, microsecond=0) + _MINUTE
            if moment - now > _HORIZON:
                return None
        return moment


@dataclass(frozen=True)
class SiteSchedule:
    """A site's whole schedule. `quantum` is how long a job waits before others make room, and how long they had;
    `grace` how long they have for a checkpoint."""

    capacity: Capacity = Capacity()
    calendar: Calendar = Calendar()
    quantum: timedelta = timedelta(hours=1)
    grace: timedelta = timedelta(seconds=60)
