"""Everything that changes the store. Each method takes the audit event that says so, and writes it first.

A method that finds nothing to change (a document already held, a task already charged) returns false and writes no
record: what is written down is what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from mediator import jobs
from mediator.audit import AuditRecord, Checkpoint, WitnessedCheckpoint, encode_checkpoint, encode_line, sign_checkpoint
from mediator.errors import Code, HubCode, IntegrityBroken
from mediator.manifests import AnyManifest
from mediator.signatures import Signed, SigningKey
from mediator.types import Instruction
from node.core import records
from node.core.records import AuditEvent
from node.core.store import documents, models
from node.core.store.airlock import AirlockWrites
from node.core.store.epochs import EpochWrites
from node.core.store.failures import FailureWrites
from node.core.store.imports import ImportWrites
from node.core.store.reads import PAUSED, Reads
from node.core.store.refusals import RefusalWrites
from node.core.store.rows import job_row

# gate 1 sends a task to redelivery as it comes, or once an earlier attempt of it has been released
_MAY_REDELIVER = (jobs.JobState.RECEIVED, jobs.JobState.RELEASED)


class Tx(AirlockWrites, EpochWrites, FailureWrites, ImportWrites, RefusalWrites, Reads):
    """One transaction: every change in it commits together with its audit records, or nothing does."""

    def __init__(self, session: Session, now: datetime) -> None:
        super().__init__(session)
        self.now = now
        self._log: models.AuditHeadTable | None = None

    def record(self, *, event: AuditEvent) -> None:
        """Write down something that changes no table."""
        self._append(event)

    # --- documents, datasets, images, settings

    def add_document(self, signed: Signed[Any], *, event: AuditEvent) -> bool:
        """Keep a permit, an acceptance, a run order or a revocation list. False when it is held already.

        Raises `Denied`: `document_conflict` for another document under an id already taken,
        `revocation_list_rolled_back` for a list whose number does not grow.
        """
        row = documents.row_of(self._session, signed, self.now)
        if row is None:
            return False
        self._append(event)
        if isinstance(row, models.AcceptanceTable | models.RunOrderTable):
            row.epoch = self.epoch_number()
        self._add(row)
        for covered in documents.budgeted_versions(self._session, signed):
            self._add(covered)
        return True

    def add_dataset_version(
        self, manifest: AnyManifest, manifest_sha256: str, folder: str, *, event: AuditEvent
    ) -> bool:
        """Keep a published version. False when it is held already: a version is its content."""
        if self._session.get(models.DatasetVersionTable, manifest.dataset_version) is not None:
            return False
        self._append(event)
        for row in documents.dataset_rows(self._session, manifest, manifest_sha256, folder, self.now):
            self._add(row)
        if studies := documents.study_rows(manifest):
            self._session.execute(insert(models.VersionStudyTable), studies)
        return True

    def withdraw_dataset_version(self, dataset_version: str, *, event: AuditEvent) -> bool:
        """Take a version out of use. False when it is already."""
        if self._session.get(models.WithdrawalTable, dataset_version) is not None:
            return False
        self._append(event)
        self._add(models.WithdrawalTable(dataset_version=dataset_version, time=self.now))
        return True

    def add_image(self, image: str, manifest: str | None, lineage: str, text: str, *, event: AuditEvent) -> bool:
        """Keep what is in an image. False when that is held already; an approved image's facts are never replaced."""
        held = self._session.get(models.ImageFactsTable, image)
        if held is not None and (held.text == text or self._approval(image)):
            return False
        self._append(event)
        row = models.ImageFactsTable(image=image, manifest=manifest, lineage=lineage, text=text, added=self.now)
        self._session.merge(row)
        self._session.flush()
        return True

    def approve_image(self, image: str, note: str, by: str | None = None, *, event: AuditEvent) -> bool:
        """Approve an image by digest. False when it is already."""
        if self._approval(image):
            return False
        self._append(event)
        self._session.merge(
            models.ImageTable(
                image=image, approved=self.now, note=note, approved_by=by, withdrawn=None, withdrawn_by=None
            )
        )
        self._session.flush()
        return True

    def withdraw_image(self, image: str, by: str | None = None, *, event: AuditEvent) -> bool:
        """Take an approval back, by somebody as they typed their name. False when there is none."""
        approval = self._approval(image)
        if approval is None:
            return False
        self._append(event)
        approval.withdrawn, approval.withdrawn_by = self.now, by
        self._session.flush()
        return True

    def _approval(self, image: str) -> models.ImageTable | None:
        held = self._session.get(models.ImageTable, image)
        return held if held is not None and held.withdrawn is None else None

    def set_paused(self, paused: bool, *, event: AuditEvent) -> bool:
        """Pause or resume. False when nothing changes."""
        if self.paused() == paused:
            return False
        self._append(event)
        self._session.merge(models.SettingTable(setting=PAUSED, value="yes" if paused else "no"))
        self._session.flush()
        return True

    # --- instructions, jobs, releases

    def add_instruction(
        self, signed: Signed[Instruction], reply_context: bytes, job: str, *, event: AuditEvent
    ) -> bool:
        """Keep an instruction, open, and its job in its first state. False when its id was ever seen."""
        if self._session.get(models.InstructionTable, signed.document.id) is not None:
            return False
        self._append(event)
        self._add(documents.instruction_model(signed, reply_context, self.now))
        self._add(documents.job_model(signed.document, job, self.now))
        return True

    def advance(
        self,
        job: str,
        happened: jobs.JobStep,
        *,
        event: AuditEvent,
        sandbox: str | None = None,
        dataset_version: str | None = None,
        code: Code | None = None,
        hub_code: HubCode | None = None,
        used_s: float = 0.0,
        counts: records.NewShownCounts | None = None,
    ) -> records.JobRow:
        """Move a job along its table; what else is given is kept with it, and `used_s` added to what it used. `counts`
        are what its release shows.

        With `hub_code` the instruction is answered in the same step. Raises `IntegrityBroken` for an event the table
        does not have in this state.
        """
        model = self._job(job)
        state = jobs.advance(jobs.JobState(model.state), happened)
        self._append(event)
        model.state, model.updated = state.value, self.now
        model.used_s += used_s
        model.preempted += happened is jobs.JobStep.PREEMPT
        model.starts += happened is jobs.JobStep.START
        if sandbox is not None:
            model.sandbox = sandbox
        if code is not None:
            model.code = code.value
        if dataset_version is not None:
            model.dataset_version = dataset_version
            if self._session.get(models.RunVersionTable, (model.run, dataset_version)) is None:
                self._add(models.RunVersionTable(run=model.run, dataset_version=dataset_version))
        if hub_code is not None:
            self._refuse(model.instruction, hub_code)
        if counts is not None:
            self._keep_counts(counts)
        self._session.flush()
        return job_row(model)

    def refuse_at_once(self, instruction: str, job: str, code: Code, hub_code: HubCode, *, event: AuditEvent) -> None:
        """Gate 1 refused an instruction that was just kept: who brought it is told now, so nothing of it is needed any
        more but its id and its hash."""
        self.advance(job, jobs.JobStep.REFUSE, event=event, code=code, hub_code=hub_code)
        model = self._session.get_one(models.InstructionTable, instruction)
        model.text, model.reply_context, model.delivered = "", b"", self.now
        self._session.flush()

    def recover(self, job: str, *, event: AuditEvent) -> records.JobRow:
        """Put a job found after a restart where it continues (`mediator.jobs.AFTER_RESTART`)."""
        model = self._job(job)
        self._append(event)
        model.state, model.updated = jobs.AFTER_RESTART[jobs.JobState(model.state)].value, self.now
        model.sandbox = None
        self._session.flush()
        return job_row(model)

    def add_release(self, release: records.NewRelease, job: str, *, event: AuditEvent) -> None:
        """Keep a release with its envelope: the job is released, the instruction answered, the round served.

        A job that gate 1 sent to redelivery keeps its state; what it releases must have been released for this task
        before. Raises `IntegrityBroken` otherwise, or for a job that is not in a state to release.
        """
        model = self._job(job)
        instruction = self._session.get_one(models.InstructionTable, release.instruction)
        again = instruction.state == "open" and jobs.JobState(model.state) in _MAY_REDELIVER
        if again and not self._released_before(release):
            raise IntegrityBroken("only what was released before can be redelivered")
        state = jobs.JobState.RELEASED if again else jobs.advance(jobs.JobState(model.state), jobs.JobStep.SPOOL)
        self._append(event)
        self._add(documents.release_model(release, self.now))
        model.state, model.updated = state.value, self.now
        instruction.state, instruction.hub_code = "released", None
        served = self._session.get(models.RoundTable, (release.run, release.round, release.task.value))
        if served is not None:
            served.state, served.changed = "served", self.now
        self._session.flush()

    def mark_delivered(self, instruction: str, *, event: AuditEvent) -> bool:
        """The hub has the answer; a released job is delivered with it. False when it was before, or is unknown."""
        model = self._session.get(models.InstructionTable, instruction)
        if model is None or model.state == "open" or model.delivered is not None:
            return False
        self._append(event)
        model.delivered = self.now
        for job in self._session.query(models.JobTable).filter_by(instruction=instruction):
            if job.state == jobs.JobState.RELEASED.value:
                job.state, job.updated = jobs.advance(jobs.JobState.RELEASED, jobs.JobStep.DELIVER).value, self.now
        self._session.flush()
        return True

    def take_back(self, instruction: str, code: Code, hub_code: HubCode, *, event: AuditEvent) -> bool:
        """A release that waits for the link does not leave: the hub is told `hub_code` instead, and its job has
        stopped. False where nothing of it waits any more."""
        model = self._session.get(models.InstructionTable, instruction)
        if model is None or model.state != "released" or model.delivered is not None:
            return False
        self._append(event)
        for job in self._session.query(models.JobTable).filter_by(instruction=instruction):
            if job.state == jobs.JobState.RELEASED.value:
                job.state, job.updated = jobs.advance(jobs.JobState.RELEASED, jobs.JobStep.STOP).value, self.now
                job.code = code.value
        self._refuse(instruction, hub_code)
        return True

    # --- ledger, canaries

    def charge(self, charge: records.NewCharge, *, event: AuditEvent) -> bool:
        """Charge a task, once. False when (permit, run, round, task) was charged before: a crash costs no budget."""
        if self.charged(charge.permit, charge.run, charge.round, charge.task) is not None:
            return False
        self._append(event)
        self._add(documents.ledger_model(charge, self.now))
        run = self._session.get_one(models.RunTable, charge.run)
        run.state, run.changed = "running", self.now
        key = (charge.run, charge.round, charge.task.value)
        if self._session.get(models.RoundTable, key) is None:
            self._add(
                models.RoundTable(run=charge.run, round=charge.round, task=key[2], state="open", changed=self.now)
            )
        return True

    def add_canary(self, fingerprint: str, passed: bool, probes: Mapping[str, bool], *, event: AuditEvent) -> None:
        """Keep what a canary found out about a sandbox fingerprint."""
        self._append(event)
        self._add(models.CanaryTable(fingerprint=fingerprint, time=self.now, passed=passed, probes=dict(probes)))

    # --- audit

    def add_checkpoint(self, site: str, key: SigningKey, *, event: AuditEvent) -> Checkpoint:
        """Sign the log as it stands after `event`, and keep the checkpoint."""
        self._append(event)
        tree, opened = self.audit_tree(), self.epoch()
        checkpoint = sign_checkpoint(site, tree, self.now, key, None if opened is None else opened.epoch)
        text = encode_checkpoint(checkpoint).decode("ascii").rstrip("\n")
        frontier = [peak.hex() for peak in tree.peaks]
        self._add(models.CheckpointTable(size=checkpoint.size, text=text, time=self.now, frontier=frontier))
        return checkpoint

    def add_witnessed(self, witnessed: WitnessedCheckpoint, *, event: AuditEvent) -> bool:
        """Keep a checkpoint the hub has signed too. False when it is held; the caller has verified both signatures.

        Raises `IntegrityBroken` when it is not one of ours.
        """
        ours = self._session.get(models.CheckpointTable, witnessed.checkpoint.size)
        text = encode_checkpoint(witnessed.checkpoint).decode("ascii").rstrip("\n")
        if ours is None or ours.text != text:
            raise IntegrityBroken("a witness signed a checkpoint that is not ours")
        if self._session.get(models.WitnessedTable, ours.size) is not None:
            return False
        self._append(event)
        line = encode_checkpoint(witnessed).decode("ascii").rstrip("\n")
        self._add(models.WitnessedTable(size=ours.size, text=line, time=self.now))
        return True

    # --- inside

    def _append(self, event: AuditEvent) -> None:
        if self._log is None:
            # the row lock orders writers on databases that have several; SQLite has one writer by itself
            self._log = self._session.get_one(models.AuditHeadTable, 1, with_for_update=True)
        head = self._log
        record = AuditRecord(
            sequence=head.size + 1,
            time=self.now,
            actor=event.actor,
            action=event.action,
            object=event.object,
            permit=event.permit,
            verdict=event.verdict,
            code="" if event.code is None else event.code.value,
        )
        line = encode_line(record).removesuffix(b"\n")
        tree = self.audit_tree().append(line)
        self._session.add(
            models.AuditRecordTable(
                sequence=record.sequence,
                time=self.now,
                action=event.action.value,
                verdict=event.verdict.value,
                line=line.decode("ascii"),
            )
        )
        head.size, head.frontier = tree.size, [peak.hex() for peak in tree.peaks]
        head.newest = self.now if head.newest is None else max(head.newest, self.now)

    def _add(self, model: models.NodeBase) -> None:
        self._session.add(model)
        self._session.flush()

    def _job(self, job: str) -> models.JobTable:
        model = self._session.get(models.JobTable, job)
        if model is None:
            raise IntegrityBroken("there is no such job")
        return model

    def _released_before(self, release: records.NewRelease) -> bool:
        earlier = self.find_release(release.run, release.round, release.task)
        return earlier is not None and earlier.root == release.root

    def _refuse(self, instruction: str, hub_code: HubCode) -> None:
        model = self._session.get_one(models.InstructionTable, instruction)
        model.state, model.hub_code, model.delivered = "refused", hub_code.value, None
        self._session.flush()
