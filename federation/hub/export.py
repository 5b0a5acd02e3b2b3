"""A run's trained model as files, with its history and with what says where it came from.

    model.safetensors   the model after the round, byte for byte the one whose hash the last instructions named
    history.json        every round up to it: seconds, sites, metrics of each, their weighted mean, refusals
    history.csv         the same, a line for each answer and for each mean
    lineage.json        order, permit, image, data, attempts, and of every update the envelope it came by
    order.jws           the researcher's order as it was signed, and
    permit.jws          the committee's permit: both can be verified by whoever has their keys
    SHA256SUMS          for `sha256sum --check`

`audit_object` of an update is what the site's audit log calls the same release, so the two can be matched.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from federation.hub import runs
from federation.hub.checkpoints import Checkpoints
from federation.hub.database import Database, driver, note
from federation.hub.documents import HubDocuments
from federation.hub.overview import EXPORT, rounds_of
from federation.hub.tables import AttemptRow, EnvelopeRow, ReplyRow, RoundRow, RunRow
from mediator.canonical import print_time
from mediator.errors import Code, Denied, NotNow, UsageFault
from mediator.signatures import Signed
from mediator.types import DataPermit, RunOrder

KIND, VERSION = "cloister.export", 1
MODEL, HISTORY, TABLE, LINEAGE, SUMS = "model.safetensors", "history.json", "history.csv", "lineage.json", "SHA256SUMS"
# what the record says of a permit that is silent about who may have the model
NO_RELEASE_NEEDED = "release_not_named"
_COLUMNS = ("round", "task", "site", "outcome", "code", "attempt", "seconds", "bytes", "root", "received")


@dataclass(frozen=True)
class Export:
    """The files by name, and what is said of them."""

    run: str
    round: int
    model_sha256: str
    files: Mapping[str, bytes]

    @property
    def object(self) -> str:
        """The export as the hub's records name it."""
        return f"{self.run}/{self.round}@{self.model_sha256}"


class Exports:
    """Makes exports out of `hub.db` and the checkpoints, and records them."""

    def __init__(
        self, database: Database, documents: HubDocuments, checkpoints: Checkpoints, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._documents = documents
        self._checkpoints = checkpoints
        self._clock = clock

    def make(self, run: str, round_: int | None, actor: str) -> Export:
        """A finished round of a run; without a number the last one of a run that has ended.

        1. The round is finished, and its model is what was written.
        2. The committee has not revoked the permit. That it has expired is no reason: what it granted is done.
        3. A release is asked for where the permit speaks of one. None does yet, which is what the record says.

        The record that it was allowed is made before this returns. Raises `UsageFault` for a run or a round that is
        not there, `NotNow` for one that is not finished, `Denied` for a revoked permit, `IntegrityBroken`.
        """
        with self._database.read() as session:
            row = session.get(RunRow, run)
            if row is None:
                raise UsageFault("no such run")
            number = _which(row, round_)
            model = self._checkpoints.after(run, number)  # (1)
            signed, permit = self._documents.open_order(self._documents.order_text(run))
            granted = self._documents.signed_permit(permit)
            reasons = [why for why in self._documents.not_granted(permit) if why.code is Code.PERMIT_REVOKED]  # (2)
            digest = hashlib.sha256(model).hexdigest()
            if not reasons:
                files = {MODEL: model, "order.jws": _line(signed.text), "permit.jws": _line(granted.text)}
                history = _history(session, row, number)
                files[HISTORY], files[TABLE] = _json(history), _table(session, run, number)
                files[LINEAGE] = _json(
                    _origin(session, row, signed, granted, digest, number)
                    | {"release": release(permit), "exported": self._exported(actor)}
                    | {"files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
                )
                files[SUMS] = _sums(files)
        with self._database.write() as session:
            about = f"{run}/{number}@{digest}"
            if reasons:
                note(session, self._clock(), actor, EXPORT, about, "refused", reasons[0].code)
            else:
                note(session, self._clock(), actor, EXPORT, about, "allowed", NO_RELEASE_NEEDED)  # (3)
        if reasons:
            raise Denied(reasons)
        return Export(run, number, digest, files)

    def written(self, export: Export, actor: str) -> None:
        """Record that the files of an export are where they were asked for."""
        with self._database.write() as session:
            note(session, self._clock(), actor, EXPORT, export.object, "done", NO_RELEASE_NEEDED)

    def _exported(self, actor: str) -> dict[str, Any]:
        software = {name: version(name) for name in ("cloister", "flwr", "numpy", "safetensors")}
        return {
            "time": print_time(self._clock()),
            "by": actor,
            "software": software | {"python": platform.python_version()},
        }


def release(_permit: DataPermit) -> dict[str, Any]:
    """Whether somebody has to agree before the model is handed out, and why not."""
    return {"needed": False, "code": NO_RELEASE_NEEDED, "because": "the permit does not speak of release"}


def _which(row: RunRow, wanted: int | None) -> int:
    """The round to export. Raises `UsageFault` or `NotNow`."""
    last = row.completed_round
    if wanted is not None:
        if wanted > row.rounds:
            raise UsageFault(f"the run was ordered for {row.rounds} rounds")
        if wanted > last:
            raise NotNow(f"round {wanted} is not finished", hint=_finished(row))
        return wanted
    if row.state in runs.OPEN:
        raise NotNow(f"the run goes on: {row.detail or row.state}", hint=_finished(row))
    if last < 1:
        raise UsageFault("no round of this run was ever finished: there is no trained model", hint=_finished(row))
    return last


def _finished(row: RunRow) -> str:
    if row.completed_round < 0:
        return "no round is finished yet"
    untrained = ", the untrained model," if row.completed_round == 0 else ""
    return f"--round {row.completed_round}{untrained} is the last one that is finished"


def _history(session: Session, row: RunRow, number: int) -> dict[str, Any]:
    return {
        "run": row.run,
        "state": row.state,
        "rounds_ordered": row.rounds,
        "round": number,
        "rounds": [entry for entry in rounds_of(driver(session), row.run) if entry["round"] <= number],
    }


def _origin(
    session: Session,
    row: RunRow,
    order: Signed[RunOrder],
    permit: Signed[DataPermit],
    digest: str,
    number: int,
) -> dict[str, Any]:
    granted, asked = permit.document, order.document
    attempts = session.scalars(select(AttemptRow).where(AttemptRow.run == row.run).order_by(AttemptRow.attempt))
    return {
        "kind": KIND,
        "version": VERSION,
        "run": {
            "run": row.run, "state": row.state, "detail": row.detail, "submitted": row.submitted,
            "updated": row.updated, "rounds_ordered": row.rounds, "minimum_sites": row.minimum_sites,
        },
        "model": {"file": MODEL, "round": number, "sha256": digest, "schema_sha256": asked.schema_sha256},
        "order": {
            "sha256": order.sha256, "key_id": order.key_id, "file": "order.jws", "image": asked.image,
            "strategy": asked.strategy, "config": dict(asked.config), "sites": list(asked.sites),
            "expires": print_time(asked.expires),
        },
        "permit": {
            "permit": granted.permit, "permit_version": granted.permit_version, "sha256": permit.sha256,
            "key_id": permit.key_id, "file": "permit.jws", "project": granted.project, "purpose": granted.purpose,
            "clip_norm": granted.clip_norm, "private": granted.privacy is not None,
        },
        # what the permit covers; a site pins one of its versions for the whole run, which its own log says
        "datasets": {site: list(granted.versions_of(site)) for site in asked.sites},
        "attempts": [
            {"attempt": each.attempt, "reason": each.reason, "opened": each.opened} for each in attempts
        ],
        "rounds": list(_rounds(session, row.run, number)),
    }  # fmt: skip


def _rounds(session: Session, run: str, number: int) -> Iterator[dict[str, Any]]:
    """Each round's training and evaluation, with every update that counted and the envelope it came by."""
    query = select(RoundRow).where(RoundRow.run == run, RoundRow.round <= number)
    order = {"train": 0, "evaluate": 1}
    for row in sorted(session.scalars(query), key=lambda each: (each.round, order.get(each.task, 2))):
        mine = (ReplyRow.run == run, ReplyRow.round == row.round, ReplyRow.task == row.task)
        used = select(ReplyRow).where(*mine, ReplyRow.outcome == "used").order_by(ReplyRow.sequence)
        yield {
            "round": row.round, "task": row.task, "started": row.started, "finished": row.finished,
            "seconds": row.seconds, "model_given_sha256": row.model_sha256,
            "updates": [_update(session, reply) for reply in session.scalars(used)],
        }  # fmt: skip


def _update(session: Session, reply: ReplyRow) -> dict[str, Any]:
    began = f"{reply.run}/{reply.round}/{reply.task}/"
    query = select(EnvelopeRow).where(
        EnvelopeRow.site == reply.site, EnvelopeRow.root == reply.root, EnvelopeRow.used.is_not(None),
        EnvelopeRow.instruction.startswith(began, autoescape=True),
    )  # fmt: skip
    envelope = session.scalars(query.order_by(EnvelopeRow.used.desc()).limit(1)).first()
    instruction = f"{began}{reply.attempt}" if envelope is None else envelope.instruction
    return {
        "site": reply.site, "attempt": reply.attempt, "instruction": instruction, "root": reply.root,
        "audit_object": f"{instruction}@{reply.root}", "size_bytes": reply.size_bytes, "received": reply.received,
        "envelope_sha256": None if envelope is None else hashlib.sha256(envelope.text.encode()).hexdigest(),
        "examples": json.loads(reply.metrics).get("num-examples"),
    }  # fmt: skip


def _table(session: Session, run: str, number: int) -> bytes:
    """`history.csv`: a line for each answer of a site, and one without a site for their weighted mean."""
    lines = list(_lines(session, run, number))
    names = sorted({name for _, metrics in lines for name in metrics})
    text = io.StringIO()
    # a prefix: a permit may well call a metric "round" or "seconds"
    writer = csv.DictWriter(text, [*_COLUMNS, *(f"metric.{name}" for name in names)], lineterminator="\n")
    writer.writeheader()
    for line, metrics in lines:
        writer.writerow(line | {f"metric.{name}": repr(value) for name, value in metrics.items()})
    return text.getvalue().encode()


def _lines(session: Session, run: str, number: int) -> Iterator[tuple[dict[str, Any], Mapping[str, float]]]:
    order = {"train": 0, "evaluate": 1}
    query = select(RoundRow).where(RoundRow.run == run, RoundRow.round <= number)
    for row in sorted(session.scalars(query), key=lambda each: (each.round, order.get(each.task, 2))):
        mine = (ReplyRow.run == run, ReplyRow.round == row.round, ReplyRow.task == row.task)
        head = {"round": row.round, "task": row.task}
        for reply in session.scalars(select(ReplyRow).where(*mine).order_by(ReplyRow.sequence)):
            told = {
                "site": reply.site, "outcome": reply.outcome, "code": reply.code, "attempt": reply.attempt,
                "seconds": reply.seconds, "bytes": reply.size_bytes, "root": reply.root, "received": reply.received,
            }  # fmt: skip
            yield head | told, json.loads(reply.metrics)
        if row.metrics:
            yield head | {"outcome": "mean", "seconds": row.seconds, "received": row.finished}, json.loads(row.metrics)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _line(text: str) -> bytes:
    return f"{text}\n".encode()


def _sums(files: Mapping[str, bytes]) -> bytes:
    lines: Iterable[str] = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return "".join(lines).encode()
