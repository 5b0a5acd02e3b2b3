"""One running job: its events, its wall time, and how its output is taken. Used by the broker alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from containers import volumes
from containers.engine import ContainerEngine
from mediator.errors import Code, Denied, EngineUnavailable, Reason
from mediator.ports import Clock, JobEvent
from mediator.types import ContainerSpec, OutputFile

# How often the engine is asked whether a job still runs: at first, and after a minute. What the keeper says comes at
# once; the asking itself costs some milliseconds of a core that the job could have.
POLL_S, POLL_MOST_S = 0.2, 1.0
# copying a volume out of memory; a full one of 1 GB takes some seconds
COPY_TIMEOUT_S = 120.0
CLEAR_TIMEOUT_S = 60.0
SCAN_TIMEOUT_S = 10.0
# 103 lines of at most 100 bytes for each of the keeper's 10,000 tasks
SCAN_BYTES = 103 * 100 * 10_000

# an engine that goes down ends its containers together, give or take
ENGINE_END_S = 1.0
# how a job ends that hears SIGTERM or SIGKILL
_ASKED_TO_END = (0, 128 + signal.SIGTERM, 128 + signal.SIGKILL)

Ending = Literal["stopped", "time_limit"]


class Endings:
    """Why we ended a container, for its event stream. Lost on a restart: then it has just `exited`."""

    def __init__(self) -> None:
        self._why: dict[str, Ending] = {}

    def note(self, job: str, why: Ending) -> None:
        self._why.setdefault(job, why)

    def known(self, job: str) -> bool:
        return job in self._why

    def of(self, job: str, state: Mapping[str, Any]) -> JobEvent:
        """The last event of a job whose container the engine describes as `state` (empty: removed)."""
        if state.get("OOMKilled") or (state.get("KilledByKernel") and job not in self._why):
            return JobEvent("out_of_memory")
        if not state:
            return JobEvent("stopped")
        return JobEvent(self._why.get(job, "exited"), status=int(state.get("ExitCode", -1)))

    def forget_all_but(self, keep: Sequence[str]) -> None:
        self._why = {job: why for job, why in self._why.items() if job in keep}


@dataclass(frozen=True)
class RunningContainer:
    """A job's two containers, and the spec they were made for."""

    engine: ContainerEngine
    clock: Clock
    endings: Endings
    spec: ContainerSpec
    keeper: str
    main: str

    def events(self) -> Iterator[JobEvent]:
        """What happens until the main container ends; what the keeper said before is said again, once."""
        yield JobEvent("started")
        said: set[JobEvent] = set()
        began_s = time.monotonic()
        lines = self.engine.follow(self.keeper)
        try:
            while (state := self.state(self.main)).get("Running"):
                try:
                    waited_s = time.monotonic() - began_s
                    yield from _fresh(lines.take(min(POLL_MOST_S, POLL_S + waited_s / 75)), said)
                except EOFError:  # the keeper is gone: without it nothing can come out any more
                    self.end("stopped")
                if self.overdue(state):
                    self.end("time_limit")
        except Denied:
            self.end("stopped")
            raise
        finally:
            lines.close()
        yield from _fresh(self._last_lines(), said)
        if self._ended_by_the_engine():
            raise EngineUnavailable("the container engine ended the job", hint="it was restarted, or ends just now")
        yield self.endings.of(self.spec.job, self.state(self.main))

    def _ended_by_the_engine(self) -> bool:
        """Whether the keeper ended with its job, and none of us stopped the two: so an engine does that goes down."""
        state = self.state(self.main)
        if self.endings.known(self.spec.job) or state.get("OOMKilled") or state.get("ExitCode") not in _ASKED_TO_END:
            return False
        deadline = time.monotonic() + ENGINE_END_S
        while time.monotonic() < deadline:
            if (keeper := self.state(self.keeper)) and not keeper.get("Running"):
                return True
            time.sleep(POLL_S)
        return False

    def _last_lines(self) -> list[bytes]:
        """A last look, in case the job wrote DONE and ended between two looks of the keeper."""
        if not self.state(self.keeper).get("Running"):
            return []
        try:
            status, output = self.engine.run(
                self.keeper, [*volumes.KEEPER, "scan"], limit_bytes=SCAN_BYTES, timeout_s=SCAN_TIMEOUT_S
            )
        except EngineUnavailable:
            return []  # stopped while we asked
        return output.splitlines() if status == 0 else []

    def take(self, task: int) -> tuple[OutputFile, ...]:
        """Freeze, copy `/out/<task>/` once, clear `/out`, resume. A job that breaks the contract is killed frozen."""
        frozen = self.engine.freeze(self.main)
        try:
            files = self._copy_and_clear(task)
        except Denied:
            self.end("stopped")
            raise
        if frozen:
            self.engine.resume(self.main)
        return files

    def _copy_and_clear(self, task: int) -> tuple[OutputFile, ...]:
        if not 0 < task <= volumes.MAX_TASK:
            raise Denied(Reason(Code.CONTRACT_VIOLATION, "not a task's number"))
        limits = self.spec.resources
        status, stream = self.engine.run(
            self.keeper,
            volumes.copy_program(task, limits),
            limit_bytes=limits.out_bytes + volumes.FRAMING_BYTES,
            timeout_s=COPY_TIMEOUT_S,
        )
        files = volumes.parse_copy(stream, limits)
        clear = [*volumes.KEEPER, "clear"]
        cleared, _ = self.engine.run(self.keeper, clear, limit_bytes=1, timeout_s=CLEAR_TIMEOUT_S)
        if status or cleared:
            raise Denied(Reason(Code.CONTRACT_VIOLATION, "the output could not be copied and cleared"))
        return files

    def overdue(self, state: Mapping[str, Any]) -> bool:
        """Whether it ran longer than its spec allows.

        The limit counts from the job's start or from the arrival of its newest task, whichever is later. A warm job
        without work holds patients' data and does nothing: the same limit ends it.
        """
        if not state.get("Running"):
            return False
        try:
            newest_task_s = (Path(self.spec.in_dir) / "tasks").stat().st_mtime
        except OSError:
            newest_task_s = 0.0
        started = datetime.fromisoformat(str(state["StartedAt"])).timestamp()
        return self.clock().timestamp() - max(started, newest_task_s) > self.spec.resources.wall_time_s

    def end(self, why: Ending) -> None:
        """Kill it now."""
        self.endings.note(self.spec.job, why)
        self.engine.stop(self.main, 0)

    def state(self, container: str) -> Mapping[str, Any]:
        return dict((self.engine.inspect(container) or {}).get("State", {}))


def _fresh(lines: Sequence[bytes], said: set[JobEvent]) -> Iterator[JobEvent]:
    for line in lines:
        event = volumes.parse_line(line)
        if event not in said:
            said.add(event)
            yield event
