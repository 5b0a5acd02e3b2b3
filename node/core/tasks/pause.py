"""The hospital's own switch: everything stops within five seconds, whether hub, disk or database answer or not.

Stopping acts first and records after. A pause holds from the moment it is asked: gate 1 looks at the switch, not at the
store alone. Its record is owed until the store takes it, and its mark, a file that is there or not, keeps it over a
restart meanwhile. Whoever may write the state folder pauses a node with the mark alone, its core dead or hung.
"""

from __future__ import annotations

import threading
import time

from containers.warm.pool import Sandboxes
from mediator.audit import Action, Verdict
from mediator.errors import Code, NotNow
from node.core.context import CORE, Core, event
from node.core.store.writes import Tx
from node.core.tasks.outbox import clear_spool, take_back
from node.ipc.node import PauseResult

# a pause has 5 s: SIGTERM, 2 s, SIGKILL and removal in the first of them, its mark and its record in what is left
_STOP_S = 4.5
_RECORD_S = 0.5
_LOOK_S = 0.05


def pause(core: Core, sandboxes: Sandboxes, actor: str) -> PauseResult:
    """Pause the node: from now on gate 1 refuses, and running containers are ended. Idempotent.

    1. Nothing is admitted any more.
    2. Containers are ended; no record is waited for.
    3. The mark and the record are made, beside the ending, for whatever time they take. What was released and waits
       for the link is taken back with them; that it does not leave meanwhile, the switch sees to (`Outbox.may_leave`).
    """
    until_s = time.monotonic() + _STOP_S
    turn = core.switch.turn_on()  # (1)
    stopping = sandboxes.begin_stop(Code.HOSPITAL_PAUSED, lambda _: True)  # (2)
    marking = threading.Thread(target=core.switch.mark, args=(actor, turn), name="pause-mark", daemon=True)  # (3)
    marking.start()
    debt = core.deferred.add(lambda tx: _write(core, tx, actor))
    core.deferred.add(lambda tx: take_back(core, tx))
    threading.Thread(target=clear_spool, args=(core,), name="pause-spool", daemon=True).start()
    stopping.wait(until_s - time.monotonic())
    while not sandboxes.settled() and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    recorded = debt.paid.wait(_RECORD_S)
    marking.join(_RECORD_S)
    return PauseResult(stopping.count, sandboxes.settled(), recorded, recorded or core.switch.marked)


def heed_mark(core: Core, sandboxes: Sandboxes) -> None:
    """Act on a mark that was left while core did not answer, or before it started."""
    if core.switch.marked and not core.switch.heeded:
        pause(core, sandboxes, core.switch.marked_by() or CORE)


def resume(core: Core, actor: str) -> None:
    """Take the pause away. Nothing starts by itself: the hub asks again when it asks. Idempotent.

    Raises `NotNow` while the pause itself, or its end, cannot be written down: the node stays paused.
    """
    turn = core.switch.turn
    if not core.deferred.settle(_STOP_S):
        raise NotNow("the pause itself is not written down yet", hint="is the disk full, or the database locked?")
    with core.store.transaction(core.clock()) as tx:
        if core.switch.turn != turn:
            raise NotNow("somebody paused the node meanwhile")
        tx.set_paused(False, event=event(Action.RESUME, f"site/{core.site}", Verdict.DONE, actor=actor))
    core.switch.turn_off(turn)


def _write(core: Core, tx: Tx, actor: str) -> None:
    tx.set_paused(True, event=event(Action.PAUSE, f"site/{core.site}", Verdict.DONE, actor=actor))
