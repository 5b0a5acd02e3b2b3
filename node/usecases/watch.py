"""What core looks after by the clock: permits that end, idle containers, checkpoints of the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mediator.audit import Action, Verdict, decode_witness
from mediator.errors import CloisterError, Code, IntegrityBroken, Malformed
from mediator.permit import check_live, open_acceptance, open_permit, open_revocations
from node.usecases.context import Core, event, permit_name
from node.usecases.outbox import Outbox
from node.usecases.sandboxes import Sandboxes, SandboxKey

if TYPE_CHECKING:
    from node.store.reads import Reads

log = logging.getLogger(__name__)

TICK_S = 1.0


class Watch:
    """One thread. Every tick is safe to miss and safe to repeat."""

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
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._checkpointed_s = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)

    def look(self) -> None:
        """End every container whose permit is no longer live, now."""
        for key in self._sandboxes.running():
            code = self._why_not_live(key)
            if code is None:
                continue
            permit = permit_name(key.permit, key.permit_version)
            ended = event(Action.PERMIT_END, f"run/{key.run}", Verdict.REFUSED, permit=permit, code=code)
            with self._core.store.transaction(self._core.clock()) as tx:
                tx.record(event=ended)
            self._sandboxes.stop(code, lambda other, key=key: other == key)  # type: ignore[misc]

    def _run(self) -> None:
        while not self._ended.wait(TICK_S):
            try:
                self.look()
                self._tend(self._core)  # before whatever an engine that is away would break off
                self._sandboxes.stop_idle(self._idle_s)
                self._sandboxes.tidy()
                self._checkpoint_when_due()
            except CloisterError as error:
                log.warning("watch: %s", error.message)
            except Exception as error:  # noqa: BLE001 - the thread must not end: the next tick tries again
                log.error("watch: %s", type(error).__name__)

    def _why_not_live(self, key: SandboxKey) -> Code | None:
        core = self._core
        with core.store.read() as snapshot:
            order = snapshot.run_order(key.run)
            if order is None:
                return Code.PERMIT_MISSING
            if core.clock() >= order.expires:
                return Code.RUN_ORDER_EXPIRED
            return permit_ended(core, snapshot, key.permit, key.permit_version)

    def _checkpoint_when_due(self) -> None:
        if time.monotonic() - self._checkpointed_s < self._checkpoint_every_s:
            return
        self._checkpointed_s = time.monotonic()
        with self._core.store.read() as snapshot:
            due = snapshot.records_since_checkpoint() > 0
        if due:
            checkpoint(self._core)
        self._outbox.forget_ended_runs()
        self._export()


def permit_ended(core: Core, snapshot: Reads, permit: str, permit_version: int) -> Code | None:
    """Why a permit is not live here and now; None while it is."""
    permit_row, acceptance_row = snapshot.permit(permit, permit_version), snapshot.acceptance(permit, permit_version)
    list_row = snapshot.newest_revocation_list()
    if permit_row is None or acceptance_row is None:
        return Code.PERMIT_MISSING
    committee = core.trust.committee
    siblings = [row for row in snapshot.permits() if row.permit == permit]
    reasons = check_live(
        open_permit(permit_row.text, committee).document,
        open_acceptance(acceptance_row.text, core.trust.stewards).document,
        None if list_row is None else open_revocations(list_row.text, committee).document,
        siblings=[open_permit(row.text, committee).document for row in siblings],
        highest_revocation=0 if list_row is None else list_row.number,
        max_revocation_age=core.max_revocation_age,
        newest_audit=snapshot.newest_audit_time(),
        now=core.clock(),
    )
    return reasons[0].code if reasons else None


def checkpoint(core: Core) -> str:
    """Sign the log as it stands; returns the checkpoint's line, which the link shows to the hub."""
    with core.store.transaction(core.clock()) as tx:
        size = tx.audit_size() + 1
        tx.add_checkpoint(
            core.site, core.keys.audit, event=event(Action.CHECKPOINT, f"checkpoint/{size}", Verdict.DONE)
        )
        newest = tx.newest_checkpoint()
    assert newest is not None
    return newest.text


def witnessed(core: Core, line: str) -> None:
    """Keep a checkpoint the hub co-signed. Raises `Malformed` or `IntegrityBroken` for anything else."""
    try:
        shown = decode_witness(line.encode("ascii"))
    except UnicodeEncodeError as error:
        raise Malformed("not a witnessed checkpoint") from error
    shown.verify(core.trust.witnesses)
    shown.checkpoint.verify({core.keys.audit.key_id: core.keys.audit.verify_key})
    if shown.checkpoint.site != core.site:
        raise IntegrityBroken("a witnessed checkpoint of another site")
    kept = event(Action.CHECKPOINT, f"witness/{shown.checkpoint.size}", Verdict.DONE)
    with core.store.transaction(core.clock()) as tx:
        tx.add_witnessed(shown, event=kept)
