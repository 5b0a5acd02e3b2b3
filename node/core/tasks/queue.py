"""The site's queue at work: jobs wait here for their turn, and who holds too much for too long is asked to make room.

What is to happen is `node.core.tasks.schedule.plan`'s to say. Here is what it is told (who waits, which containers hold
which GPUs) and what becomes of its answer: turns, containers ended, checkpoints asked for. Nothing here is kept on the
disk: after a restart every unfinished job asks again, and what was used before is read from the jobs' rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from containers.warm.pool import Holding, Sandboxes, SandboxKey
from mediator.capacity import SiteSchedule
from mediator.errors import CloisterError
from mediator.ports import Clock
from node.core.context import permit_name
from node.core.records import UseRow
from node.core.tasks.schedule import HALF_LIFE, Plan, RunningJob, Wait, Waiting, decayed, plan

log = logging.getLogger(__name__)

# what the clock changes (hours, quanta, instructions that expire) is seen this late at most
TICK_S = 1.0
# use that has halved ten times counts no more
REMEMBERED = 10 * HALF_LIFE


# what waits for its own container is in no plan
_UNPLANNED = Wait.BEHIND_ITS_PROJECT


@dataclass(frozen=True)
class Ask:
    """A job that may run, from gate 1's verdict: its place in the line by `asked`, what it was granted, and when it is
    too late."""

    job: str
    key: SandboxKey
    project: str
    asked: datetime
    since: datetime
    expires: datetime
    gpus: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True)
class Turn:
    """A slot that a job has, until it gives it back."""

    ask: Ask
    gpus: tuple[str, ...]
    since: datetime
    leaving: bool = False

    @property
    def permit(self) -> str:
        """The permit it rests on, as audit records name it."""
        return permit_name(self.ask.key.permit, self.ask.key.permit_version)


@dataclass(frozen=True)
class Place:
    """Where a job stands, for people: its GPUs while it has a turn, or why it waits, and how many are before it."""

    gpus: tuple[str, ...] = ()
    wait: Wait | None = None
    position: int = 0
    leaving: bool = False


class Queue:
    """One for a node. `call(job)` is told when a job's turn has come, or when gate 1 should look at it again."""

    def __init__(
        self,
        site: SiteSchedule,
        clock: Clock,
        sandboxes: Sandboxes,
        paused: Callable[[], bool],
        call: Callable[[str], None],
    ) -> None:
        self._site = site
        self._clock = clock
        self._sandboxes = sandboxes
        self._paused = paused
        self._call = call
        self._lock = threading.Lock()
        self._planning = threading.Lock()
        self._waiting: dict[str, Ask] = {}
        self._turns: dict[str, Turn] = {}
        self._used: dict[str, tuple[float, datetime]] = {}
        self._plan = Plan()
        self._stir = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    # --- what the jobs say

    def remember(self, rows: tuple[UseRow, ...]) -> None:
        """What projects used before this start."""
        for row in rows:
            self._add_use(row.project, row.used_s, row.updated)

    def enter(self, ask: Ask) -> None:
        """Wait for a turn. Entering again changes nothing."""
        with self._lock:
            if ask.job not in self._turns:
                self._waiting.setdefault(ask.job, ask)
        self._stir.set()

    def turn(self, job: str) -> Turn | None:
        """The job's slot, if its turn has come."""
        with self._lock:
            return self._turns.get(job)

    def spent_s(self, job: str) -> float:
        """Slot-seconds of this turn so far; 0 without one."""
        turn = self.turn(job)
        return 0.0 if turn is None else _slot_seconds(turn, self._clock())

    def give_back(self, turn: Turn) -> None:
        """End this very turn; a later one of the same job is somebody else's to end."""
        job = turn.ask.job
        with self._lock:
            held = self._turns.get(job)
            if held is None or held.ask is not turn.ask:
                return
            del self._turns[job]
        now = self._clock()
        self._add_use(turn.ask.project, _slot_seconds(turn, now), now)
        self._stir.set()

    def recall(self, job: str) -> None:
        """Have a job that waits looked at again; one that has its turn is at work already."""
        with self._lock:
            waited = self._waiting.pop(job, None)
        if waited is not None:
            self._call(job)

    def recheck(self) -> None:
        """Have everything that waits looked at again: what it rests on may have changed."""
        with self._lock:
            waiting = list(self._waiting)
        for job in waiting:
            self.recall(job)

    # --- what people ask

    def places(self) -> Mapping[str, Place]:
        """Where every job stands that waits or has its turn."""
        with self._lock:
            turns = {job: Place(gpus=turn.gpus, leaving=turn.leaving) for job, turn in self._turns.items()}
            waiting = {
                job: Place(wait=self._plan.waits.get(job, _UNPLANNED), position=self._plan.places.get(job, 0))
                for job in self._waiting
            }
        return {**waiting, **turns}

    # --- the planner

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._stir.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._ended.is_set():
            more = True
            try:
                more = self.look()
            except CloisterError as error:
                log.warning("queue: %s", error.message)
            except Exception as error:  # noqa: BLE001 - the thread must not end: the next look plans anew
                log.error("queue: %s", type(error).__name__)
            # where nobody waits and nothing runs, the clock changes nothing
            self._stir.wait(TICK_S if more else None)
            self._stir.clear()

    def look(self) -> bool:
        """Plan once and do what the plan says; whether there was anything to plan. Safe to repeat."""
        with self._planning:
            self._recall_the_late()
            now = self._clock()
            with self._lock:
                # turns before containers: one that ends in between is counted twice, never not at all
                turns, asks = dict(self._turns), list(self._waiting.values())
            boxes = self._sandboxes.holdings()
            used = {name: decayed(seconds, since, now) for name, (seconds, since) in list(self._used.items())}
            found = plan(now, self._site, _waiting(asks, turns, boxes), _running(now, turns, boxes), used)
            called = self._grant(found, now)
            for job in called:
                self._call(job)
            for name in found.evict:
                self._sandboxes.evict(name)
            for job in found.preempt:
                self._ask_to_leave(turns[job])
            if found.evict:
                self._stir.set()
            return bool(asks or turns or boxes)

    def _grant(self, found: Plan, now: datetime) -> list[str]:
        with self._lock:
            self._plan = found
            started = [job for job in found.start if job in self._waiting]
            for job in started:
                self._turns[job] = Turn(self._waiting.pop(job), found.start[job], now)
        return started

    def _ask_to_leave(self, turn: Turn) -> None:
        if self._sandboxes.ask_to_leave(turn.ask.key, self._site.grace.total_seconds()):
            log.info("job %s is asked to make room", turn.ask.job)
            with self._lock:
                if turn.ask.job in self._turns:
                    self._turns[turn.ask.job] = replace(turn, leaving=True)

    def _recall_the_late(self) -> None:
        """Gate 1 looks again at what has expired while it waited, and at everything once the hospital paused."""
        now, paused = self._clock(), bool(self._waiting) and self._paused()
        with self._lock:
            late = [job for job, ask in self._waiting.items() if paused or now >= ask.expires]
        for job in late:
            self.recall(job)

    def _add_use(self, project: str, seconds: float, now: datetime) -> None:
        with self._lock:
            before, since = self._used.get(project, (0.0, now))
            newest = max(since, now)
            self._used[project] = (decayed(before, since, newest) + decayed(seconds, now, newest), newest)


def _slot_seconds(turn: Turn, now: datetime) -> float:
    return max(1, len(turn.gpus)) * max(0.0, (now - turn.since).total_seconds())


def _waiting(asks: list[Ask], turns: Mapping[str, Turn], boxes: tuple[Holding, ...]) -> list[Waiting]:
    """Who could run. One container serves one task at a time: what is bound to the same one waits for it, unplanned."""
    taken = {turn.ask.key for turn in turns.values()}
    first: dict[SandboxKey, Ask] = {}
    for ask in sorted(asks, key=lambda ask: (ask.asked, ask.job)):
        if ask.key not in taken:
            first.setdefault(ask.key, ask)
    idle = {box.key: box.name for box in boxes if not box.busy and not box.ending}
    return [
        Waiting(
            job=ask.job,
            project=ask.project,
            asked=ask.asked,
            since=ask.since,
            gpus=ask.gpus,
            gpu_memory_bytes=ask.gpu_memory_bytes,
            container=idle.get(ask.key, ""),
        )
        for ask in first.values()
    ]


def _running(now: datetime, turns: Mapping[str, Turn], boxes: tuple[Holding, ...]) -> list[RunningJob]:
    """Everything that holds a GPU or a slot. A turn holds what it was given and what its container has."""
    held = {box.key: box.gpus for box in boxes if not box.ending}
    running = [
        RunningJob(
            job=job,
            project=turn.ask.project,
            since=turn.since,
            gpus=tuple(sorted({*turn.gpus, *held.get(turn.ask.key, ())})),
            ending=turn.leaving,
        )
        for job, turn in turns.items()
    ]
    at_work = {turn.ask.key for turn in turns.values()}
    for box in boxes:
        if box.ending or box.key not in at_work:
            # one that is busy without a turn is about to be done with: nobody's to end, and holding its GPUs
            ending, since = box.ending or box.busy, now - timedelta(seconds=box.idle_s)
            running.append(RunningJob(box.name, "", since, box.gpus, idle=True, ending=ending))
    return running
