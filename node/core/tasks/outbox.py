"""Answers on their way to the hub, and how long what was released is kept."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from federation.client.ports import OutgoingReply
from mediator.audit import Action, Verdict
from mediator.errors import IntegrityBroken
from node.core.context import Core, event, permit_name
from node.core.tasks.release_output import write_whole

# how often a stream without news looks whether its reader is still there
_LOOK_S = 1.0
# the link reads its spool as a member of the folder's group
_SPOOL_MODE = 0o640


class Outbox:
    """Looks for new answers after every commit."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._spooling = threading.Lock()

    def follow(self, active: Callable[[], bool]) -> Iterator[OutgoingReply]:
        """Every undelivered answer, once per caller, then new ones, while `active()`. `folder` is the spool's."""
        told: set[str] = set()
        seen = -1
        while active():
            before, seen = seen, self._core.store.wait_for_commit(seen, _LOOK_S)
            if seen == before:
                continue
            with self._core.store.read() as snapshot:
                rows = snapshot.outgoing()
            told &= {row.instruction for row in rows}
            for row in rows:
                if row.instruction not in told:
                    told.add(row.instruction)
                    yield replace(row, folder=self._spool(row))

    def delivered(self, instruction: str) -> None:
        """The hub has the answer: it is written down and leaves the spool."""
        core = self._core
        with core.store.transaction(core.clock()) as tx:
            row = tx.instruction(instruction)
            if row is None:
                return
            permit = permit_name(row.permit, row.permit_version)
            tx.mark_delivered(instruction, event=event(Action.DELIVER, instruction, Verdict.DONE, permit=permit))
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
        part = spool / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        part.chmod(0o2750)  # the set-group-ID bit hands the spool's group on to the files
        try:
            for stored in (self._core.folders.releases / folder).iterdir():
                write_whole(part / stored.name, stored.read_bytes(), _SPOOL_MODE)
        except FileNotFoundError as error:
            raise IntegrityBroken("a stored release is not there") from error
        part.rename(spool / name)


def _spool_name(instruction: str) -> str:
    """`run/round/task/attempt` as one folder name; no identifier holds a plus."""
    return instruction.replace("/", "+")
