"""What core looks after by the clock: permits that end, idle containers, checkpoints of the log.

Two threads, since whatever ends a container waits for no record: one ends them, the other writes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from containers.warm.pool import Sandboxes, SandboxKey
from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code
from node.core.context import CORE, Core, event, permit_name
from node.core.store.writes import Tx
from node.core.tasks.outbox import Outbox
from node.core.tasks.pause import heed_mark
from node.core.tasks.permit_basis import PermitBasis, standing

log = logging.getLogger(__name__)

TICK_S = 1.0
# what may come some seconds late: nothing that computes waits for it
UPKEEP_S = 5.0
# The watch waits for the broker, and the broker for the engine, half a minute each. After so long it hangs.
LONGEST_ROUND_S = 120.0

_Ground = tuple[str, str, int]  # run, permit, the permit's version


class Watch:
    """Every tick is safe to miss and safe to repeat."""

    def __init__(
        self,
        core: Core,
        sandboxes: Sandboxes,
        outbox: Outbox,
        export: Callable[[], None],
        *,
        idle_s: float,
        checkpoint_every_s: float,
        tend: Callable[[Core], None] = lambda _core: None,
        longest_round_s: float = LONGEST_ROUND_S,
    ) -> None:
        """`tend` looks after the airlock.

        `idle_s`: a warm container nobody asks for anything still holds memory and patients' data; then it ends.
        """
        self._core = core
        self._sandboxes = sandboxes
        self._outbox = outbox
        self._export = export
        self._idle_s = idle_s
        self._checkpoint_every_s = checkpoint_every_s
        self._tend = tend
        self._ended = threading.Event()
        # what each run's containers rested on when the store was last read
        self._standings: dict[_Ground, PermitBasis] = {}
        self._threads = [
            threading.Thread(target=self._run, name=name, args=(every_s, steps), daemon=True)
            for name, every_s, steps in (
                (
                    "watch",
                    TICK_S,
                    (
                        self.look,
                        lambda: self._sandboxes.stop_idle(self._idle_s),
                        self._sandboxes.tidy,
                        self._came_round,
                    ),
                ),
                (
                    "upkeep",
                    UPKEEP_S,
                    (
                        lambda: self._core.refusals.sum_up(self._core.store, self._core.clock()),
                        self._outbox.take_back,
                        self._outbox.forget_ended_runs,
                        lambda: self._tend(self._core),
                        self._checkpoint_when_due,
                    ),
                ),
            )
        ]
        self._checkpointed_s = time.monotonic()
        self._round_s = time.monotonic()
        self._longest_round_s = longest_round_s

    @property
    def comes_round(self) -> bool:
        """Whether every permit was looked at lately. For a service manager, which starts a core that hangs again."""
        return time.monotonic() - self._round_s < self._longest_round_s

    def start(self) -> None:
        self._round_s = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        until_s = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def look(self) -> None:
        """End every container whose permit is no longer live, now; what ended them is written down after.

        A store that does not answer says nothing new, so what it said last is held against the clock, and against the
        newest revocation list that was heard.
        """
        heed_mark(self._core, self._sandboxes)
        running = self._sandboxes.running()
        over: dict[Code, set[SandboxKey]] = {}
        codes = {ground: self._why_not_live(ground) for ground in set(map(_ground, running))}
        for key in running:
            if (code := codes[_ground(key)]) is not None:
                over.setdefault(code, set()).add(key)
        self._standings = {ground: found for ground, found in list(self._standings.items()) if ground in codes}
        begun = [
            (code, self._sandboxes.begin_stop(code, lambda key, keys=keys: key in keys))  # type: ignore[misc]
            for code, keys in over.items()
        ]
        for code, stopping in begun:
            for key in stopping.told:
                self._core.deferred.add(_ended(key, code))
        until_s = time.monotonic() + TICK_S
        for _, stopping in begun:  # one that is still made may take its time, and the next pause must not wait for it
            stopping.wait(max(0.0, until_s - time.monotonic()))

    def _run(self, every_s: float, steps: Sequence[Callable[[], object]]) -> None:
        while not self._ended.wait(every_s):
            for step in steps:
                try:
                    step()
                except CloisterError as error:
                    log.warning("watch: %s", error.message)
                except Exception as error:  # noqa: BLE001 - the thread must not end: the next tick tries again
                    log.error("watch: %s", type(error).__name__)

    def _came_round(self) -> None:
        self._round_s = time.monotonic()

    def _why_not_live(self, ground: _Ground) -> Code | None:
        core, (run, permit, permit_version) = self._core, ground
        try:
            with core.store.read() as snapshot:
                order = snapshot.run_order(run)
                before = snapshot.ordered_before(run)
                found = standing(core, snapshot, permit, permit_version)
        except CloisterError as error:
            log.warning("watch: %s", error.message)
            known = self._standings.get(ground)
            return None if known is None else known.ended(core)
        if order is None or found is None:
            return Code.PERMIT_MISSING
        found = replace(found, order_expires=order.expires, order_before=before)
        self._standings[ground] = found
        return found.ended(core)

    def _checkpoint_when_due(self) -> None:
        if time.monotonic() - self._checkpointed_s < self._checkpoint_every_s:
            return
        with self._core.store.read() as snapshot:
            due = snapshot.records_since_checkpoint() > 0
        if due:
            checkpoint(self._core)
        self._export()
        self._checkpointed_s = time.monotonic()  # now that it is made: a store that was busy is asked again


def _ground(key: SandboxKey) -> _Ground:
    """What a container rests on: all of a run's, for training and for evaluation, on the same."""
    return key.run, key.permit, key.permit_version


def _ended(key: SandboxKey, code: Code) -> Callable[[Tx], None]:
    permit = permit_name(key.permit, key.permit_version)
    ended = event(Action.PERMIT_END, f"run/{key.run}", Verdict.REFUSED, permit=permit, code=code)
    return lambda tx: tx.record(event=ended)


def checkpoint(core: Core, actor: str = CORE) -> str:
    """Sign the log as it stands, for whoever asked; returns the checkpoint's line, which the link shows to the hub."""
    with core.store.transaction(core.clock()) as tx:
        size = tx.audit_size() + 1
        tx.add_checkpoint(
            core.site, core.keys.audit, event=event(Action.CHECKPOINT, f"checkpoint/{size}", Verdict.DONE, actor=actor)
        )
        newest = tx.newest_checkpoint()
    assert newest is not None
    return newest.text
