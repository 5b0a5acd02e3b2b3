"""The audit log as a whole on the staff's sockets."""

from __future__ import annotations

from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, Reason
from mediator.types import CLOCK_TOLERANCE
from node.core.context import event
from node.core.core import CoreProcess
from node.ipc import audit as words
from node.ipc.caller import Caller
from node.ipc.messages import Empty
from node.ipc.verb import Handlers

HANDLERS = Handlers[CoreProcess]()


@HANDLERS.answers(words.LOG_STATE)
def log_state(process: CoreProcess, _caller: Caller, _request: Empty) -> words.LogState:
    with process.core.store.read() as snapshot:
        noted = snapshot.set_back()
        return words.LogState(
            epoch=snapshot.epoch_number(),
            records=snapshot.audit_size(),
            witnessed=snapshot.witnessed_size(),
            set_back=None if noted is None else noted.head.size,
            refused=process.witness.refused,
            clock=process.clock.state(),
        )


@HANDLERS.answers(words.EPOCH_OPEN)
def open_epoch(process: CoreProcess, caller: Caller, request: words.OpenEpoch) -> words.EpochOpened:
    epoch = process.open_epoch(caller.actor, restored=request.restored)
    return words.EpochOpened(epoch.number, epoch.kept, epoch.before.size)


@HANDLERS.answers(words.CLOCK_ACCEPT)
def accept_clock(process: CoreProcess, caller: Caller, request: words.AcceptClock) -> Empty:
    """Believe the clock as it stands, and count the log's newest time from now.

    1. Not against the hub's time, unless the person says so.
    2. Not before the newest revocation list was signed: no permit would be live by such a clock.
    """
    core = process.core
    if process.clock.hub_differs() and not request.despite_hub:  # (1)
        hint = "look at both clocks; if the hub's is wrong, say --despite-hub"
        raise Denied(Reason(Code.CLOCK_WENT_BACK, "the hub says another time"), hint=hint)
    with core.store.read() as snapshot:
        listed = core.revocations(snapshot)
    if listed is not None and core.clock() < listed.issued - CLOCK_TOLERANCE:  # (2)
        raise Denied(Reason(Code.CLOCK_WENT_BACK, "now is before the newest revocation list was issued"))
    take_back = process.clock.accept()
    about = "clock/despite-hub" if request.despite_hub else "clock/accepted"
    try:
        with core.store.transaction(core.clock()) as tx:
            tx.accept_clock(event=event(Action.CLOCK_ACCEPT, about, Verdict.DONE, actor=caller.actor))
    except BaseException:
        take_back()
        raise
    process.begin()
    return Empty()
