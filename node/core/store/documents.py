"""From documents and values to the models that keep them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mediator import canonical
from mediator.errors import Code, Denied, Reason
from mediator.jobs import JobState
from mediator.manifests import AnyManifest
from mediator.revocations import take_up
from mediator.signatures import Signed, peek_payload
from mediator.types import Acceptance, DataPermit, Instruction, Manifest, RevocationList, RunOrder
from node.core import records
from node.core.store import models
from node.core.store.rows import revocation_list_row

D = TypeVar("D", DataPermit, Acceptance)


def row_of(session: Session, signed: Signed[Any], now: datetime) -> models.NodeBase | None:
    """The model that keeps a signed document, or nothing when exactly this document is held."""
    document = signed.document
    if isinstance(document, DataPermit):
        key = (document.permit, document.permit_version)
        return _new(session.get(models.PermitTable, key), signed, _permit(signed, now), "permit and version")
    if isinstance(document, Acceptance):
        held = session.get(models.AcceptanceTable, signed.sha256)
        return _new(
            held,
            signed,
            _acceptance(signed, after_others(session, document.permit, document.permit_version, now)),
            "acceptance",
        )
    if isinstance(document, RunOrder):
        row = _new(session.get(models.RunOrderTable, document.run), signed, _run_order(signed, now), "run")
        if row is not None:
            session.add(models.RunTable(run=document.run, state="ordered", changed=now))
            session.flush()
        return row
    if isinstance(document, RevocationList):
        return _revocation_list(session, signed, now)
    raise TypeError(f"the store keeps no {type(document).__name__}")


def after_others(session: Session, permit: str, permit_version: int, now: datetime) -> datetime:
    """When an acceptance counts as received: the newest is in force, also where the clock was ahead before."""
    held = models.AcceptanceTable
    query = select(func.max(held.received)).where(held.permit == permit, held.permit_version == permit_version)
    newest = session.scalar(query)
    return now if newest is None else max(now, newest + timedelta(microseconds=1))


def _new(held: Any, signed: Signed[Any], row: models.NodeBase, what: str) -> models.NodeBase | None:
    if held is None:
        return row
    if held.sha256 != signed.sha256:
        raise Denied(Reason(Code.DOCUMENT_CONFLICT, f"another document has this {what}"))
    return None


def _signed(signed: Signed[Any], now: datetime) -> dict[str, Any]:
    return {"text": signed.text, "sha256": signed.sha256, "key_id": signed.key_id, "received": now}


def _permit(signed: Signed[DataPermit], now: datetime) -> models.PermitTable:
    permit = signed.document
    return models.PermitTable(
        permit=permit.permit,
        permit_version=permit.permit_version,
        project=permit.project,
        not_before=permit.not_before,
        expires=permit.expires,
        **_signed(signed, now),
    )


def _acceptance(signed: Signed[Acceptance], now: datetime) -> models.AcceptanceTable:
    acceptance = signed.document
    return models.AcceptanceTable(
        permit=acceptance.permit,
        permit_version=acceptance.permit_version,
        expires=acceptance.expires,
        **_signed(signed, now),
    )


def _run_order(signed: Signed[RunOrder], now: datetime) -> models.RunOrderTable:
    order = signed.document
    return models.RunOrderTable(
        run=order.run,
        permit=order.permit,
        permit_version=order.permit_version,
        rounds=order.rounds,
        expires=order.expires,
        **_signed(signed, now),
    )


def _revocation_list(session: Session, signed: Signed[RevocationList], now: datetime) -> models.NodeBase | None:
    document = signed.document
    newest = session.query(models.RevocationListTable).order_by(models.RevocationListTable.number.desc()).first()
    held = None if newest is None else revocation_list_row(newest).revocations
    row = models.RevocationListTable(
        number=document.number,
        issued=document.issued,
        revoked=sorted(take_up(held, signed).permits),
        **_signed(signed, now),
    )
    if newest is not None and document.number == newest.number:
        return _new(newest, signed, row, "number")
    if newest is not None and document.number < newest.number:
        raise Denied(Reason(Code.REVOCATION_LIST_ROLLED_BACK, f"the newest list held is number {newest.number}"))
    return row


def budgeted_versions(session: Session, signed: Signed[Any]) -> Iterator[models.BudgetedVersionTable]:
    """The dataset versions that become protected with a document: of a permit with a privacy budget, once accepted."""
    document = signed.document
    if isinstance(document, Acceptance):
        held = session.get(models.PermitTable, (document.permit, document.permit_version))
        pairs = [] if held is None else [(_kept(DataPermit, held.text), document)]
    elif isinstance(document, DataPermit) and document.privacy is not None:
        key = {"permit": document.permit, "permit_version": document.permit_version}
        accepted = session.query(models.AcceptanceTable).filter_by(**key)
        pairs = [(document, _kept(Acceptance, row.text)) for row in accepted]
    else:
        pairs = []
    names = {
        (permit.permit, version)
        for permit, acceptance in pairs
        if permit.privacy is not None
        for version in (permit.versions_of(acceptance.site) if acceptance.versions is None else acceptance.versions)
    }
    for permit, version in sorted(names):
        if session.get(models.BudgetedVersionTable, (permit, version)) is None:
            yield models.BudgetedVersionTable(permit=permit, dataset_version=version)


def _kept(kind: type[D], text: str) -> D:
    # its signature was checked when it was kept, by a key that may be trusted no more
    return canonical.decode(kind, peek_payload(text))


def dataset_rows(
    session: Session, manifest: AnyManifest, manifest_sha256: str, folder: str, now: datetime
) -> Iterator[models.NodeBase]:
    """A published version and what it stands on, in an order that satisfies every foreign key."""
    if session.get(models.SiteTable, manifest.site) is None:
        yield models.SiteTable(site=manifest.site, added=now)
    if session.get(models.ProjectTable, manifest.project) is None:
        yield models.ProjectTable(project=manifest.project, added=now)
    dataset = session.get(models.DatasetTable, manifest.dataset)
    if dataset is None:
        yield models.DatasetTable(dataset=manifest.dataset, project=manifest.project, site=manifest.site)
    elif dataset.project != manifest.project:
        raise Denied(Reason(Code.DOCUMENT_CONFLICT, "a dataset of this name belongs to another project"))
    fingerprint, engine = _made_by(manifest)
    yield models.DatasetVersionTable(
        dataset_version=manifest.dataset_version,
        dataset=manifest.dataset,
        created=manifest.created,
        supersedes=manifest.supersedes,
        folder=folder,
        manifest_sha256=manifest_sha256,
        profile_fingerprint=fingerprint,
        engine_version=engine,
        counts=dict(manifest.counts),
        excluded=dict(manifest.excluded),
    )
    for pseudonym in sorted({study.patient for study in manifest.studies}):
        key = {"project": manifest.project, "pseudonym": pseudonym}
        if session.get(models.PatientTable, (manifest.project, pseudonym)) is None:
            yield models.PatientTable(**key)
        yield models.VersionPatientTable(dataset_version=manifest.dataset_version, **key)


def study_rows(manifest: AnyManifest) -> list[dict[str, Any]]:
    """What a version refers to on the disk; a version 1 holds its own files."""
    if isinstance(manifest, Manifest):
        return []
    whole = {"dataset_version": manifest.dataset_version, "project": manifest.project}
    return [{**whole, "study": entry.study, "root": entry.root} for entry in manifest.studies]


def _made_by(manifest: AnyManifest) -> tuple[str, str]:
    """Fingerprint and engine version; of several, the manifest says which."""
    if isinstance(manifest, Manifest):
        return manifest.profile_fingerprint, manifest.engine_version
    if len(manifest.deidentification) > 1:
        return "mixed", "mixed"
    return manifest.deidentification[0].profile_fingerprint, manifest.deidentification[0].engine_version


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def instruction_model(signed: Signed[Instruction], reply_context: bytes, now: datetime) -> models.InstructionTable:
    document = signed.document
    return models.InstructionTable(
        instruction=document.id,
        run=document.run,
        permit=document.permit,
        permit_version=document.permit_version,
        round=document.round,
        task=document.task.value,
        attempt=document.attempt,
        model_sha256=document.model_sha256,
        text=signed.text,
        reply_context=reply_context,
        text_sha256=sha256_of(signed.text.encode()),
        context_sha256=sha256_of(reply_context),
        received=now,
        expires=document.expires,
        state="open",
    )


def job_model(document: Instruction, job: str, now: datetime) -> models.JobTable:
    return models.JobTable(
        job=job,
        instruction=document.id,
        run=document.run,
        round=document.round,
        task=document.task.value,
        permit=document.permit,
        permit_version=document.permit_version,
        state=JobState.RECEIVED.value,
        created=now,
        updated=now,
    )


def release_model(release: records.NewRelease, now: datetime) -> models.ReleaseTable:
    return models.ReleaseTable(
        instruction=release.instruction,
        permit=release.permit,
        permit_version=release.permit_version,
        run=release.run,
        round=release.round,
        task=release.task.value,
        attempt=release.attempt,
        model_sha256=release.model_sha256,
        root=release.root,
        objects=[[entry.id, entry.size_bytes] for entry in release.objects],
        size_bytes=release.size_bytes,
        folder=release.folder,
        envelope=release.envelope,
        created=now,
    )


def ledger_model(charge: records.NewCharge, now: datetime) -> models.LedgerEntryTable:
    return models.LedgerEntryTable(
        permit=charge.permit,
        permit_version=charge.permit_version,
        run=charge.run,
        round=charge.round,
        task=charge.task.value,
        size_bytes=charge.size_bytes,
        epsilon=charge.epsilon,
        time=now,
        dataset=charge.dataset,
        noise_multiplier=charge.noise_multiplier,
    )
