"""Warm containers: which one serves a task, and when one is made.

A container serves the rounds of exactly one (run order, permit version, dataset version, kind of task, image, limits).
Whatever differs, a refused output, a pause, a revocation or idleness destroys it, its work area with it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from containers.warm.container import CHECKPOINT, Holding, Preempted, SandboxKey, WarmContainer, WarmTask
from containers.warm.conversation import Conversation, ended_by_itself, listen
from containers.warm.inventory import WarmInventory
from containers.warm.removal import Removal, Stopping
from durable.reading_group import EVERYBODY, ReadingGroup
from mediator.errors import Code, Ended, NotNow, Reason
from mediator.ports import Prepared, Runner
from mediator.types import ContainerSpec, OutputFile

__all__ = ["CHECKPOINT", "Holding", "Preempted", "SandboxKey", "Sandboxes", "WarmContainer", "WarmTask"]

MakeView = Callable[[Path], None]
MakeSpec = Callable[[str, Path, Path], ContainerSpec]


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
        group: ReadingGroup = EVERYBODY,
    ) -> None:
        """`trust` returns only if a valid canary stands for the prepared container; it raises `Denied` otherwise.

        `keep_log_s`: a job that failed by itself leaves its ended container so long, for the log in it. `group` is
        given what lies in a container's folders.
        """
        self._runner = runner
        self._work_root = work_root
        self._sign_spec = sign_spec
        self._trust = trust
        self._on_progress = on_progress
        self._keep_log_s = keep_log_s
        self._group = group
        self._inventory = WarmInventory()
        self._removal = Removal(self._inventory, runner, work_root, on_destroyed)

    def serve(
        self,
        key: SandboxKey,
        task: WarmTask,
        make_view: MakeView,
        make_spec: MakeSpec,
        limit_s: float,
        guard: Callable[[str], None],
        gpus: tuple[str, ...] = (),
    ) -> Sequence[OutputFile]:
        """Run one task to its `DONE` and return the files it left.

        `make_view(folder)` fills `/data`, `make_spec(name, data_dir, in_dir)` is gate 1's verdict as a spec, and
        `guard(name)` asks gate 1 once more before the task is handed over; a container that is made gets `gpus`.
        Raises `Ended` with the code of whatever ended the container, `Denied` where somebody said no, `Preempted`
        where the task made room; the container is destroyed then.
        """
        container = self._inventory.take(key, lambda: self._new(key, gpus))
        talk = Conversation(container, self._runner, self._inventory.closing, self._on_progress)
        try:
            if container.tasks_given == 0:
                self._start(container, make_view, make_spec)
            elif container.vouched is not None:
                self._trust(*container.vouched)
            guard(container.name)
            talk.put(task)
            talk.wait(limit_s)
            files = talk.take()
        except BaseException as error:
            self._lose(container, error)
            if container.stop_code is None or not isinstance(error, OSError):
                raise
            if self._inventory.closing.is_set():
                raise NotNow("the node is shutting down") from error
            # whoever ended it while it was still made took its folders away
            raise Ended(Reason(container.stop_code)) from error
        talk.clear()
        if not self._inventory.give_back(container):  # it finished though it was asked to leave
            self._removal.destroy(container)
        return files

    def _new(self, key: SandboxKey, gpus: tuple[str, ...]) -> WarmContainer:
        # the name carries nothing a container could not know anyway
        name = f"{key.task.value}-{secrets.token_hex(8)}"
        return WarmContainer(name, key, self._work_root / name, gpus=gpus, group=self._group)

    def _start(self, container: WarmContainer, make_view: MakeView, make_spec: MakeSpec) -> None:
        spec = make_spec(container.name, container.data_dir, container.in_dir)
        prepared = self._runner.prepare(self._sign_spec(spec))  # who mounts the folders makes them
        container.make_folders()
        make_view(container.data_dir)
        self._trust(spec, prepared)
        container.vouched = (spec, prepared)
        if container.stop_code is not None:  # told to stop before it was there to be stopped
            raise Ended(Reason(container.stop_code))
        name, args = f"events-{container.name}", (self._runner, container)
        threading.Thread(target=listen, args=args, name=name, daemon=True).start()

    def _lose(self, container: WarmContainer, error: BaseException) -> None:
        if self._keep_log_s and ended_by_itself(error):
            self._inventory.keep_log(container, time.monotonic() + self._keep_log_s)
        self._removal.lose(container)

    @contextmanager
    def guest(self, name: str) -> Iterator[None]:
        """Keep the container `name` (a canary's) from being swept while it runs."""
        self._inventory.add_guest(name)
        try:
            yield
        finally:
            self._inventory.remove_guest(name)

    # --- what there is

    def holdings(self) -> tuple[Holding, ...]:
        """Every container there is, those included that are being ended: they hold their GPUs until they are gone."""
        return self._inventory.holdings()

    def running(self) -> tuple[SandboxKey, ...]:
        return self._inventory.keys()

    def vouched(self) -> tuple[tuple[ContainerSpec, Prepared], ...]:
        """What the running containers were trusted for; a canary's verdict ends before they must."""
        return self._inventory.vouched()

    def settled(self) -> bool:
        """Whether no container of this node's is left, as far as the engine could be asked."""
        return self._inventory.is_empty() and self._removal.all_done

    # --- making room, ending, sweeping

    def ask_to_leave(self, key: SandboxKey, grace_s: float) -> bool:
        """Ask the task of a busy container for its checkpoint; after `grace_s` it is ended without. False where there
        is no such task yet, or no more. Asking again changes nothing."""
        return self._inventory.ask_to_leave(key, grace_s)

    def evict(self, name: str) -> bool:
        """End a container that serves nothing. False if it is gone, or serves again."""
        idle = self._inventory.idle(name)
        return idle is not None and self._removal.destroy(idle, idle=True)

    def stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> int:
        """End every chosen container now (pause, revocation, expiry). Returns how many were ended."""
        stopping = self.begin_stop(code, chosen)
        stopping.wait()
        return stopping.count

    def begin_stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> Stopping:
        """The same, for who does not wait until they are ended. Needs neither disk nor database."""
        return self._removal.begin_stop(code, chosen)

    def stop_idle(self, idle_s: float) -> int:
        """End containers that served nothing for `idle_s` seconds."""
        return self._removal.stop_idle(idle_s)

    def shut_down(self) -> None:
        """End every container without an answer: their tasks are given again at the next start."""
        self._inventory.closing.set()
        self.stop(Code.STOPPED, lambda _: True)

    def destroy(self, container: WarmContainer) -> bool:
        """Stop and remove a container and its work area; false if that was done, or is being done, already."""
        return self._removal.destroy(container)

    def sweep(self) -> None:
        """Remove what nobody here owns; raises `NotNow` while the engine does not answer (`Removal.sweep`)."""
        self._removal.sweep()

    def tidy(self) -> None:
        """Remove what was kept long enough or could not be removed before (`Removal.tidy`). Raises `NotNow`."""
        self._removal.tidy()

    def sweep_guests(self) -> None:
        """Remove the containers of canaries that have ended (`Removal.sweep_guests`)."""
        self._removal.sweep_guests()
