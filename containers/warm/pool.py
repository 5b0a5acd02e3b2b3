"""Warm containers: which one serves a task, when one is made, and everything that ends one.

A container serves the rounds of exactly one (run order, permit version, dataset version, kind of task, image, limits).
Whatever differs, a refused output, a pause, a revocation or idleness destroys it, its work area with it. Asked to make
room, a job has a grace to leave a checkpoint, which its own task's next container finds beside the task; nobody else.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from containers.warm.container import CHECKPOINT, Holding, Preempted, SandboxKey, WarmContainer, WarmTask
from mediator.errors import Code, Denied, NotNow, Reason
from mediator.exits import RAISED
from mediator.ports import JobEvent, Prepared, Runner
from mediator.types import ContainerSpec, OutputFile

__all__ = ["CHECKPOINT", "Holding", "Preempted", "SandboxKey", "Sandboxes", "WarmContainer", "WarmTask"]

# how often a waiting task looks whether it was told to stop: well under the 5 s that a pause may take
_POLL_S = 0.2
# SIGTERM, then this long, then SIGKILL: a pause has 5 s in all
STOP_GRACE_S = 2.0

_ENDINGS: Mapping[str, Code] = {
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
_ITS_OWN = _RAISED | set(_ENDINGS.values()) - {Code.STOPPED}


class Stopping:
    """Containers that are being ended: how many, and which of them nobody had told before."""

    def __init__(self, count: int, told: tuple[SandboxKey, ...], thread: threading.Thread) -> None:
        self.count = count
        self.told = told
        self._thread = thread

    def wait(self, within_s: float | None = None) -> bool:
        """Until they are ended, as far as the engine answers; false where that takes longer."""
        self._thread.join(within_s)
        return not self._thread.is_alive()


class Sandboxes:
    """The containers of this node, by key. Thread-safe: tasks of several runs may ask at once."""

    def __init__(
        self,
        runner: Runner,
        work_root: Path,
        sign_spec: Callable[[ContainerSpec], str],
        trust: Callable[[ContainerSpec, Prepared], None],
        on_progress: Callable[[SandboxKey, int, float], None],
        on_destroyed: Callable[[WarmContainer], None],
        keep_log_s: float = 0.0,
    ) -> None:
        """`trust` returns only if a valid canary stands for the prepared container; it raises `Denied` otherwise.

        `keep_log_s`: a job that failed by itself leaves its ended container so long, for the log in it.
        """
        self._runner = runner
        self._work_root = work_root
        self._sign_spec = sign_spec
        self._trust = trust
        self._on_progress = on_progress
        self._on_destroyed = on_destroyed
        self._lock = threading.Lock()
        # held while containers are swept away, and taken before one is added: no sweep meets one it has not heard of
        self._sweeping = threading.Lock()
        self._untidy = threading.Event()
        self._by_key: dict[SandboxKey, WarmContainer] = {}
        self._ending: dict[str, WarmContainer] = {}
        self._guests: set[str] = set()
        # ended containers that hold nothing but a log: whose, and until when (monotonic)
        self._kept: dict[str, tuple[SandboxKey, float]] = {}
        self._keep_log_s = keep_log_s
        self._closing = threading.Event()

    @contextmanager
    def guest(self, name: str) -> Iterator[None]:
        """Keep the container `name` (a canary's) from being swept while it runs."""
        with self._sweeping, self._lock:
            self._guests.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._guests.discard(name)

    def serve(
        self,
        key: SandboxKey,
        task: WarmTask,
        make_view: Callable[[Path], None],
        make_spec: Callable[[str, Path, Path], ContainerSpec],
        limit_s: float,
        guard: Callable[[str], None],
        gpus: tuple[str, ...] = (),
    ) -> Sequence[OutputFile]:
        """Run one task to its `DONE` and return the files it left.

        `make_view(folder)` fills `/data`, `make_spec(name, data_dir, in_dir)` is gate 1's verdict as a spec, and
        `guard(name)` asks gate 1 once more before the task is handed over; a container that is made gets `gpus`.
        Raises `Denied` with the code of whatever ended the container, `Preempted` where the task made room; the
        container is destroyed then.
        """
        sandbox = self._take(key, gpus)
        try:
            if sandbox.tasks_given == 0:
                self._start(sandbox, make_view, make_spec)
            elif sandbox.vouched is not None:
                self._trust(*sandbox.vouched)
            guard(sandbox.name)
            number = self._hand_over(sandbox, task)
            self._wait(sandbox, number, limit_s)
            files = self._runner.finalise(sandbox.name, number)
            if sandbox.leave_by_s is not None and [file.name for file in files] == [CHECKPOINT]:
                raise Preempted(files[0].content)
        except BaseException as error:
            if self._keep_log_s and isinstance(error, Denied) and error.reasons[0].code in _ITS_OWN:
                with self._lock:
                    self._kept[sandbox.name] = (key, time.monotonic() + self._keep_log_s)
            if not self.destroy(sandbox):  # somebody else did, perhaps while we were still making it
                self._remove(sandbox)
            raise
        shutil.rmtree(sandbox.in_dir / "tasks" / str(number), ignore_errors=True)
        sandbox.busy, sandbox.last_used_s = False, time.monotonic()
        if sandbox.leave_by_s is not None:  # it finished all the same; what was asked to stop serves nothing more
            self.destroy(sandbox)
        # what a finished task leaves for itself is nobody's, and no gate is asked about it
        return [file for file in files if file.name != CHECKPOINT]

    def ask_to_leave(self, key: SandboxKey, grace_s: float) -> bool:
        """Ask the task of a busy container for its checkpoint; after `grace_s` it is ended without. False where there
        is no such task yet, or no more. Asking again changes nothing."""
        with self._lock:
            sandbox = self._by_key.get(key)
            if sandbox is None or not sandbox.busy or not (sandbox.in_dir / "tasks").is_dir():
                return False
            if sandbox.leave_by_s is None:
                sandbox.leave_by_s = time.monotonic() + grace_s  # before a job that obeys at once has ended
                _write(sandbox.in_dir / "stop", b"")
            return True

    def evict(self, name: str) -> bool:
        """End a container that serves nothing. False if it is gone, or serves again."""
        with self._lock:
            found = [box for box in self._by_key.values() if box.name == name and not box.busy]
        return bool(found) and self.destroy(found[0])

    def holdings(self) -> tuple[Holding, ...]:
        """Every container there is, those included that are being ended: they hold their GPUs until they are gone."""
        now_s = time.monotonic()
        with self._lock:
            boxes = {**{box.name: box for box in self._by_key.values()}, **self._ending}
            return tuple(
                Holding(box.name, box.key, box.gpus, now_s - box.last_used_s, box.busy, box.name in self._ending)
                for box in boxes.values()
            )

    def stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> int:
        """End every chosen container now (pause, revocation, expiry). Returns how many were ended."""
        stopping = self.begin_stop(code, chosen)
        stopping.wait()
        return stopping.count

    def begin_stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> Stopping:
        """The same, for who does not wait until they are ended. Needs neither disk nor database."""
        with self._lock:
            hit = [sandbox for sandbox in self._by_key.values() if chosen(sandbox.key)]
            told = [sandbox for sandbox in hit if sandbox.stop_code is None]
            for sandbox in told:
                sandbox.stop_code = code
        thread = threading.Thread(target=self._end, args=(hit, chosen), name="stop", daemon=True)
        thread.start()
        return Stopping(len(hit), tuple(sandbox.key for sandbox in told), thread)

    def _end(self, hit: Sequence[WarmContainer], chosen: Callable[[SandboxKey], bool]) -> None:
        workers = [threading.Thread(target=self.destroy, args=(sandbox,)) for sandbox in hit]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        while self._any_ending(hit):  # by the thread whose task it served
            time.sleep(_POLL_S / 10)
        self._drop_logs(lambda key, _: chosen(key))

    def _drop_logs(self, chosen: Callable[[SandboxKey, float], bool]) -> None:
        """Remove kept containers, by key and by when they may go."""
        with self._lock:
            gone = [name for name, kept in self._kept.items() if chosen(*kept)]
            for name in gone:
                del self._kept[name]
        if gone:
            self.sweep_guests()

    def shut_down(self) -> None:
        """End every container without an answer: their tasks are given again at the next start."""
        self._closing.set()
        self.stop(Code.STOPPED, lambda _: True)

    def stop_idle(self, idle_s: float) -> int:
        """End containers that served nothing for `idle_s` seconds."""
        oldest = time.monotonic() - idle_s
        with self._lock:
            idle = {box.key for box in self._by_key.values() if not box.busy and box.last_used_s < oldest}
        return self.stop(Code.STOPPED, lambda key: key in idle) if idle else 0

    def running(self) -> tuple[SandboxKey, ...]:
        with self._lock:
            return tuple(self._by_key)

    def vouched(self) -> tuple[tuple[ContainerSpec, Prepared], ...]:
        """What the running containers were trusted for; a canary's verdict ends before they must."""
        with self._lock:
            return tuple(sandbox.vouched for sandbox in self._by_key.values() if sandbox.vouched is not None)

    def settled(self) -> bool:
        """Whether no container of this node's is left, as far as the engine could be asked."""
        with self._lock:
            return not self._by_key and not self._ending and not self._kept and not self._untidy.is_set()

    def _any_ending(self, sandboxes: Sequence[WarmContainer]) -> bool:
        with self._lock:
            return any(sandbox.name in self._ending for sandbox in sandboxes)

    def destroy(self, sandbox: WarmContainer) -> bool:
        """Stop and remove a container and its work area; false if that was done, or is being done, already."""
        with self._lock:
            if self._by_key.get(sandbox.key) is not sandbox:
                return False
            del self._by_key[sandbox.key]
            self._ending[sandbox.name] = sandbox
        try:
            # one that serves nothing has nothing to finish
            self._runner.terminate(sandbox.name, STOP_GRACE_S if sandbox.busy else 0.0)
        except NotNow:
            self._untidy.set()
        finally:
            self._remove(sandbox)
        self._on_destroyed(sandbox)
        return True

    def _remove(self, sandbox: WarmContainer) -> None:
        with self._lock:
            kept = sandbox.name in self._kept
        try:
            self._clean(gone="" if kept else sandbox.name)
        except NotNow:
            self._untidy.set()  # the engine is away: `tidy` removes what it still holds as soon as it answers
        shutil.rmtree(sandbox.folder, ignore_errors=True)
        with self._lock:
            self._ending.pop(sandbox.name, None)

    def sweep(self) -> None:
        """Remove containers and work areas that no sandbox here owns (after a crash, or an engine that was away).

        Raises `NotNow` while the engine does not answer; then `tidy` does it later.
        """
        self._untidy.clear()
        try:
            self._clean(folders=True)
        except NotNow:
            self._untidy.set()
            raise

    def tidy(self) -> None:
        """Remove what was kept long enough; sweep if an earlier sweep or removal could not be done.

        Raises `NotNow` while it still cannot.
        """
        self._drop_logs(lambda _, until_s: time.monotonic() > until_s)
        if self._untidy.is_set():
            self.sweep()

    def sweep_guests(self) -> None:
        """Remove the containers of canaries that have ended, of logs kept long enough; if the engine is away, `tidy`
        does."""
        try:
            self._clean()
        except NotNow:
            self._untidy.set()

    def _clean(self, *, gone: str = "", folders: bool = False) -> None:
        """Remove the containers of nobody here, and of `gone`; those being stopped have their time to finish."""
        with self._sweeping:
            with self._lock:
                keep = [name for name in (*self._names(), *self._ending) if name != gone]
            self._runner.clean(keep)
            for folder in self._work_root.iterdir() if folders else ():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)

    def _names(self) -> list[str]:
        return [*self._guests, *self._kept, *(sandbox.name for sandbox in self._by_key.values())]

    def _take(self, key: SandboxKey, gpus: tuple[str, ...]) -> WarmContainer:
        with self._sweeping, self._lock:
            sandbox = self._by_key.get(key)
            if self._closing.is_set():
                raise NotNow("the node is shutting down")
            if sandbox is None:
                # the name carries nothing a container could not know anyway
                name = f"{key.task.value}-{secrets.token_hex(8)}"
                sandbox = self._by_key[key] = WarmContainer(name, key, self._work_root / name, gpus=gpus)
            if sandbox.busy:
                raise NotNow("this container is serving another task")
            sandbox.busy = True
            return sandbox

    def _start(
        self,
        sandbox: WarmContainer,
        make_view: Callable[[Path], None],
        make_spec: Callable[[str, Path, Path], ContainerSpec],
    ) -> None:
        (sandbox.in_dir / "tasks").mkdir(parents=True)
        # modes are set, not asked for: the process's umask is 077, and the container is another user
        sandbox.folder.chmod(0o711)
        for folder in (sandbox.in_dir, sandbox.in_dir / "tasks"):
            folder.chmod(0o755)
        make_view(sandbox.data_dir)
        spec = make_spec(sandbox.name, sandbox.data_dir, sandbox.in_dir)
        prepared = self._runner.prepare(self._sign_spec(spec))
        self._trust(spec, prepared)
        sandbox.vouched = (spec, prepared)
        if sandbox.stop_code is not None:  # told to stop before it was there to be stopped
            raise Denied(Reason(sandbox.stop_code))
        threading.Thread(target=self._listen, args=(sandbox,), name=f"events-{sandbox.name}", daemon=True).start()

    def _listen(self, sandbox: WarmContainer) -> None:
        """Feed the container's events to whoever waits; the end of the stream counts as the container's end."""
        try:
            for event in self._runner.execute(sandbox.name):
                sandbox.events.put(event)
        except NotNow:
            sandbox.engine_lost = True
        except Denied as denied:
            # the container is gone, or its keeper said what no keeper says: either way it is over
            if denied.reasons[0].code in _NOT_THE_IMAGES:
                sandbox.refused = denied.reasons[0]
        sandbox.events.put(JobEvent("exited", status=-1))

    def _hand_over(self, sandbox: WarmContainer, task: WarmTask) -> int:
        number = sandbox.tasks_given = sandbox.tasks_given + 1
        tasks = sandbox.in_dir / "tasks"
        part = tasks / f".{number}.part"
        part.mkdir()
        members: dict[str, Any] = {
            "contract": 1,
            "task": number,
            "kind": task.kind.value,
            "round": task.round,
            "config": dict(task.config),
        }
        if task.model:  # an analysis has none
            members["tensors"] = list(task.tensors)
        _write(part / "task.json", json.dumps(members, sort_keys=True).encode())
        if task.model:
            _write(part / "model.safetensors", task.model)
        if task.checkpoint is not None:
            _write(part / CHECKPOINT, task.checkpoint)
        part.chmod(0o755)
        part.rename(tasks / str(number))
        return number

    def _wait(self, sandbox: WarmContainer, number: int, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        raised: Code | None = None
        while True:
            if self._closing.is_set():
                raise NotNow("the node is shutting down")
            if sandbox.stop_code is not None:
                raise Denied(Reason(sandbox.stop_code))
            if sandbox.leave_by_s is not None and time.monotonic() > sandbox.leave_by_s:
                raise Preempted
            if time.monotonic() > deadline:
                raise Denied(Reason(Code.TIME_LIMIT, f"no DONE within {limit_s:g} s"))
            try:
                event = sandbox.events.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if event.kind == "done" and event.task == number:
                return
            if event.kind == "progress" and event.task == number:
                self._on_progress(sandbox.key, number, event.fraction)
            elif event.kind == "failed" and event.task == number and event.code in _RAISED:
                raised = event.code  # why, if it ends now: the job's own word, out of a closed list
            elif event.kind in _ENDINGS:
                if self._closing.is_set():
                    raise NotNow("the node is shutting down")
                if sandbox.leave_by_s is not None and sandbox.stop_code is None and event.kind == "exited":
                    raise Preempted(self._checkpoint(sandbox, number) if event.status == 0 else None)
                if sandbox.engine_lost and sandbox.stop_code is None:
                    raise NotNow("the container engine went away while the job ran")
                if sandbox.refused is not None and sandbox.stop_code is None:
                    raise Denied(sandbox.refused)
                own = raised if event.kind == "exited" else None
                raise Denied(Reason(sandbox.stop_code or own or _ENDINGS[event.kind]))

    def _checkpoint(self, sandbox: WarmContainer, number: int) -> bytes | None:
        """What a job that ended by itself left to go on from. Whatever breaks the contract is no checkpoint."""
        try:
            files = self._runner.finalise(sandbox.name, number)
        except Denied:
            return None
        return next((file.content for file in files if file.name == CHECKPOINT), None)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, 0o644)  # readable in the container whatever the umask
