"""Runs as people see them: submitted with an order and a model, followed round by round, stopped and resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from federation.hub.checkpoints import Checkpoints
from federation.hub.database import Database, note
from federation.hub.documents import HubDocuments, order_expired
from federation.hub.tables import RunRow, SiteRow
from mediator.analysis import LOCAL
from mediator.canonical import print_time
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.signatures import Signed
from mediator.sizes import check_sizes
from mediator.terms import outside, unaddressed
from mediator.types import RunOrder

SUBMITTED, WAITING, RUNNING, DONE, STOPPED = "submitted", "waiting", "running", "done", "stopped"
# a run in one of these states is the coordinator's to conduct
OPEN = (SUBMITTED, WAITING, RUNNING)


class HubRuns:
    """The tables `runs`, `rounds` and `replies`, for the command line and the coordinator."""

    def __init__(
        self, database: Database, documents: HubDocuments, checkpoints: Checkpoints, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._documents = documents
        self._checkpoints = checkpoints
        self._clock = clock

    def submit(self, text: str, model: bytes, minimum_sites: int, actor: str) -> Signed[RunOrder]:
        """Take in a run order with its untrained model (safetensors).

        1. A person whom the permit names signed it, and the hub knows that permit.
        2. The order keeps to its permit (`mediator.terms`): what the researcher was asked when they signed it; and a
           model of the permit's tensors can be released at all.
        3. The order has not expired; the permit is in force, not superseded and not revoked; every site is enrolled.
        4. The model is exactly the permit's tensors.

        The same order again is no fault and changes nothing. Raises `Malformed`, `Denied`, `UsageFault`.
        """
        signed, permit = self._documents.open_order(text)  # (1)
        order = signed.document
        reasons = outside(order, permit) + unaddressed(order, permit) + check_sizes(permit)  # (2)
        if order.strategy == LOCAL:
            reasons.append(Reason(Code.RUN_ORDER_MISMATCH, "an order for local analyses is published, not run here"))
        reasons += order_expired(order, self._clock()) + list(self._documents.not_granted(permit))  # (3)
        if reasons:
            raise Denied(reasons)
        from mediator import tensors  # and numpy, of which the other questions know nothing

        parsed = tensors.parse(model, permit.tensors)  # (4)
        canonical_model = tensors.encode(parsed)
        with self._database.write() as session:
            enrolled = set(session.scalars(select(SiteRow.site).where(SiteRow.state == "active")))
            if absent := sorted(set(order.sites) - enrolled):  # (3)
                raise UsageFault(f"not enrolled: {', '.join(absent)}", hint="`cloister hub node approve`")
            self._documents.add_order(session, signed, actor)
            if session.get(RunRow, order.run) is None:
                self._checkpoints.put_initial(order.run, canonical_model)
                session.add(self._row(order, minimum_sites or len(order.sites), canonical_model))
                note(session, self._clock(), actor, "run_submit", order.run, "done")
        return signed

    def stop(self, run: str, actor: str) -> None:
        """Ask a run to end; its checkpoints stay."""
        with self._database.write() as session:
            row = _get(session, run)
            if row.state not in OPEN:
                raise UsageFault(f"this run is {row.state}")
            self.set_state(session, row, STOPPED, "stopped by hand")
            note(session, self._clock(), actor, "run_stop", run, "done")

    def resume(self, run: str, actor: str) -> None:
        """Let a stopped run go on after its last completed round. Raises `Denied` where no site would serve it."""
        order, permit = self._documents.open_order(self.order_text(run))
        reasons = order_expired(order.document, self._clock()) + list(self._documents.not_granted(permit))
        if reasons:
            raise Denied(reasons)
        with self._database.write() as session:
            row = _get(session, run)
            if row.state != STOPPED:
                raise UsageFault(f"this run is {row.state}")
            self.set_state(session, row, SUBMITTED, "")
            note(session, self._clock(), actor, "run_resume", run, "done")

    def order_text(self, run: str) -> str:
        """The order of a run. Raises `UsageFault` where there is no such run."""
        with self._database.read() as session:
            _get(session, run)
        return self._documents.order_text(run)

    def set_state(self, session: Session, row: RunRow, state: str, detail: str) -> None:
        row.state, row.detail, row.updated = state, detail, print_time(self._clock())

    def open(self) -> list[str]:
        """The runs to be conducted, oldest first."""
        with self._database.read() as session:
            query = select(RunRow.run).where(RunRow.state.in_(OPEN)).order_by(RunRow.submitted, RunRow.run)
            return list(session.scalars(query))

    def _row(self, order: RunOrder, minimum_sites: int, model: bytes) -> RunRow:
        now = print_time(self._clock())
        return RunRow(
            run=order.run,
            permit=order.permit,
            permit_version=order.permit_version,
            state=SUBMITTED,
            detail="",
            rounds=order.rounds,
            minimum_sites=min(minimum_sites, len(order.sites)),
            attempt=0,
            completed_round=-1,
            model_sha256=hashlib.sha256(model).hexdigest(),
            submitted=now,
            updated=now,
        )


def _get(session: Session, run: str) -> RunRow:
    row = session.get(RunRow, run)
    if row is None:
        raise UsageFault("no such run")
    return row
