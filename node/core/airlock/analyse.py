"""Starting an analysis: hospital staff let a researcher's signed local order run, once, here.

No hub takes part. The instruction that gate 1 is asked about is this node's own, signed with the key that signs its
verdicts, and says what the order says; everything else is as for any task: the same numbered checks, ledger, sandbox.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from mediator.errors import Code, Denied, NotNow, Reason
from mediator.jobs import TERMINAL
from mediator.permit import open_permit, open_run_order
from mediator.types import Instruction, Kind, RunOrder
from node.core.context import Core
from node.core.store.reads import Reads
from node.core.tasks.admit_task import receive_own

_ROUND = 1


def start(core: Core, run: str, actor: str) -> Instruction:
    """Ask gate 1 about the local order `run`; its job is in the table then. Returns the instruction.

    Raises `Denied` with every reason, `NotNow` while an earlier attempt is at work.
    """

    def make(snapshot: Reads, now: datetime) -> Instruction:
        order = _order(core, snapshot, run)
        if any(row.run == run and row.state not in TERMINAL for row in snapshot.unfinished()):
            raise NotNow("this analysis is at work already", hint="see: cloister node job list")
        attempt = snapshot.last_attempt(run, _ROUND, Kind.ANALYSE) + 1
        while snapshot.instruction(f"{run}/{_ROUND}/{Kind.ANALYSE.value}/{attempt}") is not None:
            attempt += 1  # those that gate 1 refused have their numbers too
        return Instruction(
            run=run,
            permit=order.permit,
            permit_version=order.permit_version,
            site=core.site,
            round=_ROUND,
            task=Kind.ANALYSE,
            attempt=attempt,
            config=order.config,
            model_sha256=hashlib.sha256(b"").hexdigest(),
            issued=now,
            # it ends after it begins, also under an order that is over, which is gate 1's to name
            expires=max(order.expires, now + timedelta(seconds=1)),
        )

    return receive_own(core, make, actor)


def _order(core: Core, snapshot: Reads, run: str) -> RunOrder:
    row = snapshot.run_order(run)
    permit = None if row is None else snapshot.permit(row.permit, row.permit_version)
    if row is None or permit is None:
        raise Denied(Reason(Code.RUN_ORDER_MISSING, "no run order for this run"), hint="cloister node import FILE")
    return open_run_order(row.text, [open_permit(permit.text, core.trust.committee).document]).document
