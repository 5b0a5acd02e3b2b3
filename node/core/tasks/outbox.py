"""Answers on their way to the hub, and how long what was released is kept.

Gate 2 judged a release when it was computed; it leaves when the link comes for it, which may be weeks later. So whether
its permit is live is asked again at the door: when the link is told of it, and once more when the link is about to push
it. What may not leave any more is taken back: its job has ended, the hub hears a word instead, and its files leave the
spool. A pause does it at once, anything else within seconds (`Watch`), whether a link is there or not.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from durable.files import creating_folder, write_inside
from federation.client.ports import OutgoingReply, Retry
from mediator.audit import Action, Verdict
from mediator.errors import CloisterError, Code, IntegrityBroken, hub_code
from node.core.context import Core, event, permit_name
from node.core.records import RELEASE, ReleaseRow
from node.core.store.reads import Reads
from node.core.store.writes import Tx
from node.core.tasks import set_aside
from node.core.tasks.permit_basis import permit_ended, run_ended
from node.host.disk_errors import is_full

log = logging.getLogger(__name__)

# how often a stream without news looks whether its reader is still there
_LOOK_S = 1.0
# the link reads its spool as a member of the folder's group
_SPOOL_MODE = 0o640
# how often a release is tried that a full disk keeps out of the spool
_FULL_S = 5.0
# after these no release of the run is ever asked for again; a pause, a stale list or a late link may be over tomorrow
_FOR_GOOD = frozenset({Code.PERMIT_EXPIRED, Code.PERMIT_REVOKED, Code.PERMIT_SUPERSEDED, Code.RUN_ORDER_EXPIRED})


class Outbox:
    """Looks for new answers after every commit."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._spooling = threading.Lock()
        # when an answer that could not be spooled is tried again
        self._not_before: dict[str, float] = {}

    def follow(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        """Every undelivered answer, once per caller, then new ones, while `active()`. `folder` is the spool's.

        A release that was taken back after the caller was told of it is told again, as the refusal it is now. One that
        cannot be spooled keeps none behind it waiting: it is tried again, and set aside where that is no use.
        """
        told: set[tuple[str, bool]] = set()
        seen, waits = -1, False
        while active():
            before, seen = seen, self._core.store.wait_for_commit(seen, _LOOK_S)
            if seen == before and not waits:
                continue
            self.take_back()
            with self._core.store.read() as snapshot:
                rows = {(row.instruction, row.envelope is not None): row for row in snapshot.outgoing()}
            told &= rows.keys()
            waits = False
            for key, row in rows.items():
                if key in told:
                    continue
                ready = self._ready(row)
                if ready is None:
                    waits = True
                    continue
                told.add(key)
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

    def may_leave(self, instruction: str) -> bool:
        """Whether a release may be pushed now; asked by the link right before it does."""
        core = self._core
        if core.switch.on:
            return False
        with core.store.read() as snapshot:
            waiting = {row.instruction for row in snapshot.waiting_releases()}
            return instruction in waiting - {row.instruction for row, _ in _over(core, snapshot)}

    def take_back(self) -> None:
        """Take back every waiting release that may not leave any more, and clear the spool of it."""
        core = self._core
        with core.store.read() as snapshot:
            over = _over(core, snapshot)
        if over:
            with core.store.transaction(core.clock()) as tx:
                take_back(core, tx)
        with self._spooling:
            with core.store.read() as snapshot:
                waiting = {_spool_name(row.instruction) for row in snapshot.waiting_releases()}
            clear_spool(core, keep=waiting)

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
        """Delete stored releases of runs that nobody may be answered for any more; returns how many runs."""
        core, gone = self._core, 0
        now, folders = core.clock(), list(core.folders.releases.iterdir())
        if not folders:
            return 0
        with core.store.read() as snapshot:
            orders = [row for row in snapshot.run_orders() if row.expires > now]
            permits = {(row.permit, row.permit_version) for row in orders}
            ended = {permit for permit in permits if permit_ended(core, snapshot, *permit) in _FOR_GOOD}
            held = {row.run for row in orders if (row.permit, row.permit_version) not in ended}
        for folder in folders:
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)
                if folder.exists():  # said once, when it is so
                    continue
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


def take_back(core: Core, tx: Tx) -> None:
    """End, on record, every waiting release that may not leave any more. Its stored objects stay while its run does:
    a hub that asks again after a pause is given them again."""
    for row, code in _over(core, tx):
        permit = permit_name(row.permit, row.permit_version)
        refused = event(Action.RELEASE, row.instruction, Verdict.REFUSED, permit=permit, code=code)
        tx.take_back(row.instruction, code, hub_code(code), event=refused)


def clear_spool(core: Core, keep: Collection[str] = ()) -> None:
    """Delete what lies in the spool; it is copied again from the stored release if it may leave after all."""
    for folder in core.folders.spool.iterdir():
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def _over(core: Core, snapshot: Reads) -> list[tuple[ReleaseRow, Code]]:
    """The releases that wait and may not leave now, and why. An envelope ends with its instruction, or the permit."""
    paused, now = core.paused(snapshot), core.clock()
    runs: dict[tuple[str, str, int], Code | None] = {}  # a permit of a thousand tensors takes its time to open
    over = []
    for row in snapshot.waiting_releases():
        run = (row.run, row.permit, row.permit_version)
        if run not in runs:
            runs[run] = Code.HOSPITAL_PAUSED if paused else run_ended(core, snapshot, *run)
        asked = snapshot.instruction(row.instruction)
        late = Code.INSTRUCTION_EXPIRED if asked is None or now >= asked.expires else None
        if (code := runs[run] or late) is not None:
            over.append((row, code))
    return over


def _spool_name(instruction: str) -> str:
    """`run/round/task/attempt` as one folder name; no identifier holds a plus."""
    return instruction.replace("/", "+")
