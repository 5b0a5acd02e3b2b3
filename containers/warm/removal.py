"""How containers end: who is told, what waits for what, and what is swept away when a crash or the engine left it."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from containers.warm.container import SandboxKey, WarmContainer
from containers.warm.inventory import WarmInventory
from mediator.errors import CloisterError, Code, NotNow
from mediator.ports import Runner

log = logging.getLogger(__name__)

# SIGTERM, then this long, then SIGKILL: a pause has 5 s in all
STOP_GRACE_S = 2.0
# how often whoever ends containers looks whether another thread is done with one
_LOOK_S = 0.02


class Stopping:
    """Containers that are being ended: how many, and which of them nobody had told before."""

    def __init__(self, count: int, told: tuple[SandboxKey, ...], thread: threading.Thread) -> None:
        self.count = count
        self.told = told
        self._thread = thread

    def wait(self, within_s: float | None = None) -> bool:
        """Until they are ended, as far as the engine answers; false where that takes longer. One that serves the thread
        which began this is not waited for: it lets go of that one afterwards."""
        self._thread.join(within_s)
        return not self._thread.is_alive()


class Removal:
    """Ends and removes containers, their work areas with them. Needs neither disk nor database to stop one."""

    def __init__(
        self,
        inventory: WarmInventory,
        runner: Runner,
        work_root: Path,
        on_destroyed: Callable[[WarmContainer], None],
    ) -> None:
        self._inventory = inventory
        self._runner = runner
        self._work_root = work_root
        self._on_destroyed = on_destroyed
        # the engine was away when something was to be removed
        self._untidy = threading.Event()

    @property
    def all_done(self) -> bool:
        """Whether nothing waits for the engine to answer again."""
        return not self._untidy.is_set()

    def begin_stop(self, code: Code, chosen: Callable[[SandboxKey], bool]) -> Stopping:
        """End every chosen container, for who does not wait until they are ended."""
        hit, told = self._inventory.tell(code, chosen)
        caller = threading.get_ident()
        thread = threading.Thread(target=self._end, args=(hit, chosen, caller), name="stop", daemon=True)
        thread.start()
        return Stopping(len(hit), told, thread)

    def stop_idle(self, idle_s: float) -> int:
        """End containers that served nothing for so long, but none that is given a task at this moment."""
        return self._destroy_all(self._inventory.idle_longer_than(idle_s), idle=True)

    def _end(self, hit: tuple[WarmContainer, ...], chosen: Callable[[SandboxKey], bool], caller: int) -> None:
        self._destroy_all(hit)
        while self._inventory.any_ending(hit, but=caller):  # by the thread whose task it served
            time.sleep(_LOOK_S)
        self._drop_logs(lambda key, _: chosen(key))

    def _destroy_all(self, containers: tuple[WarmContainer, ...], *, idle: bool = False) -> int:
        """Destroy containers side by side; how many of them nobody else had begun to."""
        ended: list[bool] = []

        def work(container: WarmContainer) -> None:
            ended.append(self.destroy(container, idle=idle))

        workers = [threading.Thread(target=work, args=(container,)) for container in containers]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return ended.count(True)

    def destroy(self, container: WarmContainer, *, idle: bool = False) -> bool:
        """Stop and remove a container and its work area; false if that was done, or is being done, already, and with
        `idle` if it serves a task by now."""
        if not self._inventory.begin_ending(container, idle=idle):
            return False
        try:
            # one that serves nothing has nothing to finish
            self._runner.terminate(container.name, STOP_GRACE_S if container.busy else 0.0)
        except CloisterError as error:
            self._leave_for_later(error)
        finally:
            try:
                self.remove(container)
            finally:  # whoever waits for its end must not wait for ever
                self._inventory.has_ended(container)
        self._on_destroyed(container)
        return True

    def lose(self, container: WarmContainer) -> None:
        """End a container for the task that it served. Where somebody else ends it, it has its grace first, and what
        the task may still have made of it meanwhile is removed then."""
        try:
            if not self.destroy(container):
                container.ended.wait()
                self.remove(container)
        finally:
            self._inventory.give_back(container)

    def remove(self, container: WarmContainer) -> None:
        """Remove what has ended: the container, but for a log that is kept, and its work area."""
        kept = self._inventory.keeps_log(container)
        try:
            # the folder itself is the broker's, which removes what is empty
            shutil.rmtree(container.folder, ignore_errors=True)
            self._clean(gone="" if kept else container.name)
        except CloisterError as error:
            self._leave_for_later(error)

    def _leave_for_later(self, error: CloisterError) -> None:
        """The engine is away, or the broker failed: `tidy` removes what is still held as soon as that works."""
        if not isinstance(error, NotNow):
            log.error("a container is not removed yet: %s", error.message)
        self._untidy.set()

    def sweep(self) -> None:
        """Remove containers and work areas that nobody here owns (after a crash, or an engine that was away).

        Raises `NotNow` while the engine does not answer, and what a broker that failed says; then `tidy` does it later.
        """
        self._untidy.clear()
        try:
            self._clean(folders=True)
        except CloisterError:
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
        """Remove the containers of canaries that have ended, of logs kept long enough; where that fails, `tidy`
        does."""
        try:
            self._clean()
        except CloisterError as error:
            self._leave_for_later(error)

    def _drop_logs(self, chosen: Callable[[SandboxKey, float], bool]) -> None:
        if self._inventory.drop_logs(chosen):
            self.sweep_guests()

    def _clean(self, *, gone: str = "", folders: bool = False) -> None:
        """Remove the containers of nobody here, and of `gone`."""
        with self._inventory.sweeping:
            keep = [name for name in self._inventory.names() if name != gone]
            self._runner.clean(keep)
            left = [each for each in self._work_root.iterdir() if each.name not in keep] if folders else []
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            if any(folder.exists() for folder in left):  # emptied, and the broker's to remove
                self._runner.clean(keep)
