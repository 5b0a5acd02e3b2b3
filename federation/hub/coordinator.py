"""Opens a Flower run for each submitted run order and conducts it in a thread, again after every fall.

Each opening is an attempt under the same Cloister run; it continues after the last completed round. Nodes that served
a round before give their stored release for it, so nothing is computed or charged twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from federation.hub import runs
from federation.hub.conductor import Conductor
from federation.hub.flower.strategy import FlowerRun
from federation.hub.flower.superlink import SuperLink
from federation.hub.state import HubState
from federation.hub.steering import Interrupted, RunStopped
from federation.hub.tables import RunRow
from mediator import tensors
from mediator.errors import CloisterError, Denied, NotNow
from mediator.sizes import check_sizes
from mediator.types import DataPermit, RunOrder

log = logging.getLogger("cloister.hub")

_RETRY_S = 1.0
_JOIN_S = 10.0


class Coordinator:
    """The runs being conducted, one thread each."""

    def __init__(
        self, hub: HubState, superlink: Callable[[], SuperLink], wake: Callable[[Sequence[str]], None]
    ) -> None:
        self._hub = hub
        self._superlink = superlink
        self._wake = wake
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._ending = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._conductors: dict[str, Conductor] = {}

    def refresh(self) -> None:
        """Begin what was submitted, end what was stopped. Called whenever `hub.db` may have changed."""
        open_ = self._hub.runs.open()
        with self._lock:
            for run in [run for run, thread in self._threads.items() if not thread.is_alive()]:
                del self._threads[run]
            for run, conductor in self._conductors.items():
                if run not in open_:
                    conductor.stop()
            for run in open_:
                if run not in self._threads and not self._ending.is_set():
                    thread = threading.Thread(target=self._conduct, args=(run,), name=f"run-{run}", daemon=True)
                    self._threads[run] = thread
                    thread.start()

    def nudge(self, run: str) -> None:
        """An envelope of this run came in."""
        with self._lock:
            conductor = self._conductors.get(run)
        if conductor is not None:
            conductor.nudge()

    def close(self) -> None:
        """Let every run fall where it stands; it continues at the next start."""
        self._ending.set()
        with self._lock:
            for conductor in self._conductors.values():
                conductor.interrupt()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(_JOIN_S)

    def _conduct(self, run: str) -> None:
        while not self._ending.is_set():
            try:
                self._attempt(run)
                return
            except Interrupted:
                return
            except RunStopped as error:
                self._settle(run, runs.STOPPED, error.message)
                return
            except NotNow as error:  # the SuperLink fell, or the disk is full
                log.warning("run %s: %s; a new attempt follows", run, error.message)
                self._ending.wait(_RETRY_S)
            except CloisterError as error:
                self._settle(run, runs.STOPPED, error.message)
                return
            except Exception:
                log.exception("run %s: an error nobody foresaw", run)
                self._settle(run, runs.STOPPED, "internal error")
                return

    def _attempt(self, run: str) -> None:
        order, permit = self._documents(run)
        completed, model = self._hub.checkpoints.latest(run)
        conductor = self._hub.conductor(order, permit, self._wake)
        with self._opening:
            flower_run = FlowerRun(self._superlink())
        attempt = conductor.opened(flower_run.run_id)
        with self._lock:
            self._conductors[run] = conductor
        log.info("run %s: attempt %d begins at round %d", run, attempt, completed + 1)
        finished = False
        try:
            if self._ending.is_set():
                raise Interrupted("the hub is going down")
            flower_run.conduct(conductor, tensors.parse(model, permit.tensors), completed + 1, order.rounds)
            finished = True
        finally:
            with self._lock:
                self._conductors.pop(run, None)
            flower_run.close(finished)
        self._settle(run, runs.DONE, f"{order.rounds} rounds done")
        log.info("run %s: done", run)

    def _documents(self, run: str) -> tuple[RunOrder, DataPermit]:
        """A run's order and permit. One that was taken in by an earlier version is asked here what a new one is asked
        when it is submitted: whether a model of its permit could come back at all."""
        signed, permit = self._hub.documents.open_order(self._hub.documents.order_text(run))
        if reasons := check_sizes(permit):
            raise Denied(reasons)
        return signed.document, permit

    def _settle(self, run: str, state: str, detail: str) -> None:
        with self._hub.database.write() as session:
            row = session.get_one(RunRow, run)
            if row.state in runs.OPEN:
                self._hub.runs.set_state(session, row, state, detail)
        if state == runs.STOPPED:
            log.warning("run %s: stopped: %s", run, detail)
