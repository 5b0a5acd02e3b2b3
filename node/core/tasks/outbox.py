"""Answers on their way to the hub, and how long what was released is kept."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from durable.files import creating_folder, write_inside
from federation.client.ports import OutgoingReply, Retry
from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, IntegrityBroken
from node.core.context import Core, event, permit_name
from node.core.records import RELEASE
from node.core.tasks import set_aside
from node.host.disk_errors import is_full

log = logging.getLogger(__name__)

# how often a stream without news looks whether its reader is still there
_LOOK_S = 1.0
# the link reads its spool as a member of the folder's group
_SPOOL_MODE = 0o640
# how often a release is tried that a full disk keeps out of the spool
_FULL_S = 5.0


class Outbox:
    """Looks for new answers after every commit."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._spooling = threading.Lock()
        # when an answer that could not be spooled is tried again
        self._not_before: dict[str, float] = {}

    def follow(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        """Every undelivered answer, once per caller, then new ones, while `active()`. `folder` is the spool's.

        One that cannot be spooled keeps none behind it waiting: it is tried again, and set aside where that is no use.
        """
        told: set[tuple[str, bool]] = set()
        seen, waits = -1, False
        while active():
            before, seen = seen, self._core.store.wait_for_commit(seen, _LOOK_S)
            if seen == before and not waits:
                continue
            with self._core.store.read() as snapshot:
                rows = snapshot.outgoing()
            told &= {(row.instruction, row.folder is None) for row in rows}
            waits = False
            for row in rows:
                if (row.instruction, row.folder is None) in told:
                    continue
                ready = self._ready(row)
                if ready is None:
                    waits = True
                    continue
                told.add((row.instruction, row.folder is None))
                yield ready

    def failed(self, kind: str, subject: str, reason: str, *, final: bool = False) -> Retry:
        """The link could not serve something. A release is copied anew for its next try, in case the copy was at
        fault, and leaves the spool when it is set aside."""
        retry = set_aside.failed(self._core, kind, subject, reason, final=final)
        if kind == RELEASE:
            with self._spooling:
                shutil.rmtree(self._core.folders.spool / _spool_name(subject), ignore_errors=True)
            if not retry.set_aside:
                with self._core.store.read() as snapshot:
                    rows = [row for row in snapshot.outgoing() if row.instruction == subject]
                for row in rows:
                    self._ready(row)
        return retry

    def _ready(self, row: OutgoingReply) -> OutgoingReply | None:
        """The answer with its objects in the spool; None while they cannot be put there."""
        if row.folder is None:
            return row
        if self._not_before.get(row.instruction, 0.0) > time.monotonic():
            return None
        try:
            return replace(row, folder=self._spool(row))
        except Exception as error:  # noqa: BLE001 - it is this release's: counted, told, and set aside at last
            self._not_before[row.instruction] = time.monotonic() + self._again_s(row, error)
            return None

    def _again_s(self, row: OutgoingReply, error: Exception) -> float:
        """When a release that cannot be spooled is tried again. A full disk is no fault of its own, and not counted."""
        log.warning("the release of %s cannot be spooled (%s)", row.instruction, type(error).__name__)
        if isinstance(error, OSError) and is_full(error):
            return _FULL_S
        try:
            reason = error.code if isinstance(error, CloisterError) else "internal"
            return set_aside.failed(self._core, RELEASE, row.instruction, reason).again_s
        except CloisterError as fault:
            log.warning("that is not written down yet: %s", fault.message)
            return _FULL_S

    def delivered(self, instruction: str) -> None:
        """The hub has the answer: it is written down and leaves the spool."""
        core = self._core
        with core.store.transaction(core.clock()) as tx:
            row = tx.instruction(instruction)
            if row is None:
                return
            permit = permit_name(row.permit, row.permit_version)
            tx.mark_delivered(instruction, event=event(Action.DELIVER, instruction, Verdict.DONE, permit=permit))
        self._not_before.pop(instruction, None)
        shutil.rmtree(core.folders.spool / _spool_name(instruction), ignore_errors=True)

    def forget_ended_runs(self) -> int:
        """Delete stored releases of runs whose order has expired; returns how many runs."""
        core, gone = self._core, 0
        now = core.clock()
        with core.store.read() as snapshot:
            held = {row.run for row in snapshot.run_orders() if row.expires > now}
        for folder in core.folders.releases.iterdir():
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)
                with core.store.transaction(now) as tx:
                    tx.record(event=event(Action.WORK_DELETE, f"releases/{folder.name}", Verdict.DONE))
                gone += 1
        return gone

    def _spool(self, row: OutgoingReply) -> str | None:
        """Copy a release's objects into the spool, whole or not at all; safe to repeat."""
        if row.folder is None:
            return None
        name = _spool_name(row.instruction)
        with self._spooling:  # a link that lost its stream asks again while the old one still looks
            if not (self._core.folders.spool / name).is_dir():
                self._fill(row.folder, name)
        return name

    def _fill(self, folder: str, name: str) -> None:
        spool = self._core.folders.spool
        # the set-group-ID bit hands the spool's group on to the files
        with creating_folder(spool / name, 0o2750) as part:
            try:
                for stored in (self._core.folders.releases / folder).iterdir():
                    write_inside(part / stored.name, stored.read_bytes(), _SPOOL_MODE)
            except FileNotFoundError as error:
                raise IntegrityBroken("a stored release is not there") from error


def _spool_name(instruction: str) -> str:
    """`run/round/task/attempt` as one folder name; no identifier holds a plus."""
    return instruction.replace("/", "+")
