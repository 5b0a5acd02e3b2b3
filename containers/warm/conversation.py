"""One task with one container: what is put into `/in`, what is heard until its end, what is taken from `/out`.

Asked to make room, a job has a grace to leave a checkpoint, which its own task's next container finds beside the task;
nobody else.
"""

from __future__ import annotations

import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from containers.warm.container import CHECKPOINT, Preempted, SandboxKey, WarmContainer, WarmTask
from durable.files import creating_folder, write_inside
from mediator.errors import CloisterError, Code, Denied, Ended, NotNow, Reason
from mediator.exits import RAISED
from mediator.ports import JobEvent, Runner
from mediator.types import OutputFile

log = logging.getLogger(__name__)

# how often a waiting task looks whether it was told to stop: well under the 5 s that a pause may take
_POLL_S = 0.2

ENDINGS: Mapping[str, Code] = {
    "exited": Code.JOB_FAILED,
    "out_of_memory": Code.OUT_OF_MEMORY,
    "time_limit": Code.TIME_LIMIT,
    "stopped": Code.STOPPED,
    "out_full": Code.CONTRACT_OUT_FULL,
}
_RAISED = frozenset(RAISED.values())
# what the broker says of a start that its image had no part in
_NOT_THE_IMAGES = frozenset({Code.GPU_UNAVAILABLE, Code.NOT_SEALED})
# how a job ends by itself: then its log is worth keeping
_ITS_OWN = _RAISED | set(ENDINGS.values()) - {Code.STOPPED}


def ended_by_itself(error: BaseException) -> bool:
    """Whether it was the job's own doing, and nobody's who stopped or refused it."""
    return isinstance(error, Ended) and error.reason.code in _ITS_OWN


def listen(runner: Runner, container: WarmContainer) -> None:
    """Feed a container's events to whoever waits; the end of the stream counts as the container's end."""
    try:
        for event in runner.execute(container.name):
            container.events.put(event)
    except Ended:
        pass  # its program could not be started
    except Denied as denied:
        # the container is gone, or its keeper said what no keeper says: either way it is over
        if denied.reasons[0].code in _NOT_THE_IMAGES:
            container.refused = denied.reasons[0]
    except CloisterError:
        container.engine_lost = True  # the engine is away, or the broker failed: the job is not to blame
    except Exception:
        log.exception("what a container says met an error nobody foresaw")
        container.engine_lost = True
    finally:
        container.events.put(JobEvent("exited", status=-1))


class Conversation:
    """A task from its hand-over to its files. `closing` ends it without an answer: the task is given again."""

    def __init__(
        self,
        container: WarmContainer,
        runner: Runner,
        closing: threading.Event,
        on_progress: Callable[[SandboxKey, int, float], None],
    ) -> None:
        self._container = container
        self._runner = runner
        self._closing = closing
        self._on_progress = on_progress
        self._number = 0
        # the job's own word about why it ends, should it end now: out of a closed list
        self._raised: Code | None = None

    def put(self, task: WarmTask) -> None:
        """Hand the task over: its folder appears in `/in/tasks` by rename."""
        self._number = self._container.tasks_given = self._container.tasks_given + 1
        members: dict[str, Any] = {
            "contract": 1,
            "task": self._number,
            "kind": task.kind.value,
            "round": task.round,
            "config": dict(task.config),
        }
        if task.model:  # an analysis has none
            members["tensors"] = list(task.tensors)
        files = {"task.json": json.dumps(members, sort_keys=True).encode()}
        if task.model:
            files["model.safetensors"] = task.model
        if task.checkpoint is not None:
            files[CHECKPOINT] = task.checkpoint
        # for the container's group; a crash ends the container with the task, so nothing is flushed for later
        group, folder = self._container.group, self._container.tasks_dir / str(self._number)
        with creating_folder(folder, group.folder_mode, flush=False) as part:
            for name, content in files.items():
                write_inside(part / name, content, group.file_mode, flush=False)

    def wait(self, limit_s: float) -> None:
        """Until the task is `DONE`. Raises `Ended` with the code of whatever ended it before, `Preempted` where it
        made room, `NotNow` where the engine or this node went away, `Denied` where the broker would not start it."""
        deadline_s = time.monotonic() + limit_s
        while True:
            self._check(deadline_s, limit_s)
            try:
                event = self._container.events.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if event.kind in ENDINGS:
                raise self._end(event)
            if event.task != self._number:
                continue
            if event.kind == "done":
                return
            if event.kind == "progress":
                self._on_progress(self._container.key, self._number, event.fraction)
            elif event.kind == "failed" and event.code in _RAISED:
                self._raised = event.code

    def take(self) -> Sequence[OutputFile]:
        """The files it left: the container is frozen, `/out` copied once and cleared, the container resumed.

        Raises `Denied` for output that breaks the contract, and `Preempted` where a checkpoint is all there is.
        """
        files = self._runner.finalise(self._container.name, self._number)
        if self._container.leave_by_s is not None and [file.name for file in files] == [CHECKPOINT]:
            raise Preempted(files[0].content)
        # what a finished task leaves for itself is nobody's, and no gate is asked about it
        return [file for file in files if file.name != CHECKPOINT]

    def clear(self) -> None:
        """Take the task out of `/in` again."""
        shutil.rmtree(self._container.tasks_dir / str(self._number), ignore_errors=True)

    def _check(self, deadline_s: float, limit_s: float) -> None:
        """Raise for what ends the waiting while the container says nothing."""
        container, now_s = self._container, time.monotonic()
        if self._closing.is_set():
            raise NotNow("the node is shutting down")
        if container.stop_code is not None:
            raise Ended(Reason(container.stop_code))
        if container.leave_by_s is not None and now_s > container.leave_by_s:
            raise Preempted
        if now_s > deadline_s:
            raise Ended(Reason(Code.TIME_LIMIT, f"no DONE within {limit_s:g} s"))

    def _end(self, event: JobEvent) -> Exception:
        """What the end of the container means to its task; who stopped it comes before what it looked like."""
        container = self._container
        if self._closing.is_set():
            return NotNow("the node is shutting down")
        if container.stop_code is not None:
            return Ended(Reason(container.stop_code))
        if container.leave_by_s is not None and event.kind == "exited":
            return Preempted(self._checkpoint() if event.status == 0 else None)
        if container.engine_lost:
            return NotNow("the container engine went away while the job ran")
        if container.refused is not None:
            return Denied(container.refused)
        own = self._raised if event.kind == "exited" else None
        return Ended(Reason(own or ENDINGS[event.kind]))

    def _checkpoint(self) -> bytes | None:
        """What a job that ended by itself left to go on from. Whatever breaks the contract is no checkpoint."""
        try:
            files = self._runner.finalise(self._container.name, self._number)
        except Denied:
            return None
        return next((file.content for file in files if file.name == CHECKPOINT), None)
