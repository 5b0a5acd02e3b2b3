"""Which containers of this node there are: at work or idle by key, being ended, and ended with a log that is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from containers.warm.container import Holding, SandboxKey, WarmContainer
from mediator.errors import Code, NotNow
from mediator.ports import Prepared
from mediator.types import ContainerSpec


class WarmInventory:
    """Asks no engine. Thread-safe: tasks of several runs may ask at once.

    `sweeping` is held while containers are swept away, and taken before one is added: no sweep meets one it has not
    heard of. `closing` is set once no task gets a container any more.
    """

    def __init__(self) -> None:
        self.sweeping = threading.Lock()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._by_key: dict[SandboxKey, WarmContainer] = {}
        self._ending: dict[str, WarmContainer] = {}
        self._guests: set[str] = set()
        # ended containers that hold nothing but a log: whose, and until when (monotonic)
        self._logs: dict[str, tuple[SandboxKey, float]] = {}

    def take(self, key: SandboxKey, make: Callable[[], WarmContainer]) -> WarmContainer:
        """The container of this key, made where there is none; it serves the caller's task until it is given back.

        Raises `NotNow` while it serves another task, and when the node shuts down.
        """
        with self.sweeping, self._lock:
            if self.closing.is_set():
                raise NotNow("the node is shutting down")
            container = self._by_key.get(key)
            if container is None:
                container = self._by_key[key] = make()
            if container.busy:
                raise NotNow("this container is serving another task")
            container.busy, container.server = True, threading.get_ident()
            return container

    def give_back(self, container: WarmContainer) -> bool:
        """It serves nothing from now on; false where it was asked to leave, and is to serve nothing more."""
        with self._lock:
            container.busy, container.last_used_s = False, time.monotonic()
            self._drop_ended(container)
            return container.leave_by_s is None

    def ask_to_leave(self, key: SandboxKey, grace_s: float) -> bool:
        """Ask the task of a busy container for its checkpoint; false where there is no such task yet, or no more, or no
        room on the disk for the sign. The disk is asked outside the lock, which a pause needs."""
        with self._lock:
            container = self._by_key.get(key)
            if container is None or not container.busy:
                return False
            if container.leave_by_s is not None:
                return True
            container.leave_by_s = time.monotonic() + grace_s  # before a job that obeys at once has ended
        asked = False
        try:
            asked = container.tasks_dir.is_dir() and container.ask_to_end()
        finally:
            if not asked:
                with self._lock:
                    container.leave_by_s = None
        return asked

    def tell(
        self, code: Code, chosen: Callable[[SandboxKey], bool]
    ) -> tuple[tuple[WarmContainer, ...], tuple[SandboxKey, ...]]:
        """Tell chosen containers why they end: all that are to end, and the keys of those that nobody had told."""
        with self._lock:
            hit = tuple(container for container in self._by_key.values() if chosen(container.key))
            fresh = [container for container in hit if container.stop_code is None]
            for container in fresh:
                container.stop_code = code
            return hit, tuple(container.key for container in fresh)

    def begin_ending(self, container: WarmContainer, *, idle: bool = False) -> bool:
        """False if it is being ended already, or gone; with `idle` also if it serves a task by now."""
        with self._lock:
            if self._by_key.get(container.key) is not container or (idle and container.busy):
                return False
            del self._by_key[container.key]
            self._ending[container.name] = container
            return True

    def has_ended(self, container: WarmContainer) -> None:
        """Whoever ended it is done with it; it is gone once the task that it served, if any, has let go of it too."""
        with self._lock:
            container.ended.set()
            self._drop_ended(container)

    def _drop_ended(self, container: WarmContainer) -> None:
        if container.ended.is_set() and not container.busy:
            self._ending.pop(container.name, None)

    def any_ending(self, containers: tuple[WarmContainer, ...], but: int) -> bool:
        """Whether one of these is not gone yet; one that serves the thread `but` does not count."""
        with self._lock:
            ending = [each for each in containers if each.name in self._ending]
            return any(not (each.busy and each.server == but) for each in ending)

    # --- containers that serve no task

    def add_guest(self, name: str) -> None:
        with self.sweeping, self._lock:
            self._guests.add(name)

    def remove_guest(self, name: str) -> None:
        with self._lock:
            self._guests.discard(name)

    def keep_log(self, container: WarmContainer, until_s: float) -> None:
        """Let the ended container stay until then (monotonic), for the log in it."""
        with self._lock:
            self._logs[container.name] = (container.key, until_s)

    def keeps_log(self, container: WarmContainer) -> bool:
        with self._lock:
            return container.name in self._logs

    def drop_logs(self, chosen: Callable[[SandboxKey, float], bool]) -> bool:
        """Keep chosen logs no longer, by key and by when they may go; false where none was."""
        with self._lock:
            gone = [name for name, kept in self._logs.items() if chosen(*kept)]
            for name in gone:
                del self._logs[name]
            return bool(gone)

    # --- what there is

    def names(self) -> list[str]:
        """Every container that no sweep may remove; those being ended have their time to finish."""
        with self._lock:
            return [*self._guests, *self._logs, *(each.name for each in self._by_key.values()), *self._ending]

    def holdings(self) -> tuple[Holding, ...]:
        """Every container that serves or served a task, those included that are being ended: they hold their GPUs."""
        now_s = time.monotonic()
        with self._lock:
            there = {**{each.name: each for each in self._by_key.values()}, **self._ending}
            return tuple(
                Holding(each.name, each.key, each.gpus, now_s - each.last_used_s, each.busy, each.name in self._ending)
                for each in there.values()
            )

    def idle(self, name: str) -> WarmContainer | None:
        """The container of this name, if it serves nothing."""
        with self._lock:
            return next((each for each in self._by_key.values() if each.name == name and not each.busy), None)

    def idle_longer_than(self, idle_s: float) -> tuple[WarmContainer, ...]:
        oldest = time.monotonic() - idle_s
        with self._lock:
            return tuple(each for each in self._by_key.values() if not each.busy and each.last_used_s < oldest)

    def keys(self) -> tuple[SandboxKey, ...]:
        with self._lock:
            return tuple(self._by_key)

    def vouched(self) -> tuple[tuple[ContainerSpec, Prepared], ...]:
        with self._lock:
            return tuple(each.vouched for each in self._by_key.values() if each.vouched is not None)

    def is_empty(self) -> bool:
        """Whether nothing of a task's is left, neither container nor log."""
        with self._lock:
            return not self._by_key and not self._ending and not self._logs
