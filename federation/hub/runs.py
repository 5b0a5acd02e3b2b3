"""Runs as people see them: submitted with an order and a model, followed round by round, stopped and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from federation.hub.checkpoints import Checkpoints
from federation.hub.database import Database, note
from federation.hub.documents import HubDocuments, order_expired
from federation.hub.tables import AttemptRow, EventRow, ReplyRow, RoundRow, RunRow, SiteRow
from mediator.analysis import LOCAL
from mediator.canonical import print_time
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.signatures import Signed
from mediator.sizes import check_sizes
from mediator.terms import outside, unaddressed
from mediator.types import RunOrder

# an export, as the hub's records name it
EXPORT = "run_export"
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

    def list(self) -> list[dict[str, Any]]:
        """Every run in one line each, newest first."""
        with self._database.read() as session:
            return [_summary(row) for row in session.scalars(select(RunRow).order_by(RunRow.submitted.desc()))]

    def history(self, run: str) -> dict[str, Any]:
        """A run in full: its summary, its attempts, and per round the metrics of each site, their mean weighted by
        `num-examples`, seconds, and every refusal. Readable at any moment while the run goes on."""
        with self._database.read() as session:
            row = _get(session, run)
            attempts = session.scalars(select(AttemptRow).where(AttemptRow.run == run).order_by(AttemptRow.attempt))
            exports = session.scalars(
                select(EventRow)
                .where(EventRow.action == EXPORT, EventRow.object.startswith(f"{run}/", autoescape=True))
                .order_by(EventRow.sequence)
            )
            return _summary(row) | {
                "attempts": [
                    {"attempt": each.attempt, "reason": each.reason, "opened": each.opened} for each in attempts
                ],
                "rounds": rounds_of(session, run),
                "exports": [
                    {
                        "time": each.time,
                        "by": each.actor,
                        "object": each.object,
                        "verdict": each.verdict,
                        "code": each.code,
                    }
                    for each in exports
                ],
            }

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


def rounds_of(session: Session, run: str) -> list[dict[str, Any]]:
    """The rounds of a run as plain JSON, in order.

    `missing` names, for each task that has ended, the sites it went on without; why is in `refusals`.
    """
    rounds: dict[int, dict[str, Any]] = {}
    for row in session.scalars(select(RoundRow).where(RoundRow.run == run).order_by(RoundRow.round)):
        entry = rounds.setdefault(row.round, _empty(row.round))
        if row.finished is not None:
            entry["missing"][row.task] = []
        entry[f"{row.task}_seconds"] = row.seconds
        if row.task == "evaluate":
            entry["model_sha256"] = row.model_sha256
            entry["mean"] = json.loads(row.metrics) if row.metrics else None
        elif row.metrics:
            entry["train_mean"] = json.loads(row.metrics)
        if row.seconds is not None:
            entry["seconds"] = round((entry["seconds"] or 0.0) + row.seconds, 3)
    for reply in session.scalars(select(ReplyRow).where(ReplyRow.run == run).order_by(ReplyRow.sequence)):
        entry = rounds[reply.round]
        if reply.outcome == "used":
            entry[reply.task][reply.site] = json.loads(reply.metrics)
            sent = entry.setdefault("bytes", {})
            sent[reply.site] = sent.get(reply.site, 0) + reply.size_bytes
        else:
            entry["refusals"].append(
                {
                    "site": reply.site,
                    "task": reply.task,
                    "outcome": reply.outcome,
                    "code": reply.code,
                    "attempt": reply.attempt,
                    "time": reply.received,
                }
            )
    for entry in rounds.values():
        for task, missing in entry["missing"].items():
            others = {each["site"] for each in entry["refusals"] if each["task"] == task} - entry[task].keys()
            missing += sorted(others)
    return [rounds[number] for number in sorted(rounds)]


def _empty(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "seconds": None,
        "mean": None,
        "train": {},
        "evaluate": {},
        "missing": {},
        "refusals": [],
    }


def _summary(row: RunRow) -> dict[str, Any]:
    return {
        "run": row.run,
        "permit": f"{row.permit}@{row.permit_version}",
        "state": row.state,
        "detail": row.detail,
        "attempt": row.attempt,
        "completed_round": row.completed_round,
        "rounds_ordered": row.rounds,
        "minimum_sites": row.minimum_sites,
        "model_sha256": row.model_sha256,
        "submitted": row.submitted,
        "updated": row.updated,
    }


def _get(session: Session, run: str) -> RunRow:
    row = session.get(RunRow, run)
    if row is None:
        raise UsageFault("no such run")
    return row
