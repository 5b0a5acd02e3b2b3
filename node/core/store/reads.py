"""Everything that is asked of the store. Each method answers from one snapshot and changes nothing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import case, exists, func, select
from sqlalchemy.orm import Session

from federation.client.ports import OutgoingReply
from mediator.audit import Action
from mediator.jobs import TERMINAL, JobState
from mediator.tree import Frontier
from mediator.types import Instruction, Kind
from node.core import records
from node.core.store import models
from node.core.store.airlock import AirlockReads
from node.core.store.epochs import EpochReads
from node.core.store.failures import FailureReads
from node.core.store.imports import ImportReads
from node.core.store.ledger import LedgerReads
from node.core.store.refusals import RefusalReads
from node.core.store.rows import dataset_row, instruction_row, job_row, release_row, revocation_list_row, value_of

PAUSED = "paused"
# a redelivered job reaches these without a dataset: nothing is computed for it
_RELEASED = (JobState.RELEASED.value, JobState.DELIVERED.value)


class Reads(AirlockReads, EpochReads, FailureReads, ImportReads, LedgerReads, RefusalReads):
    """One snapshot of the store."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- documents

    def permit(self, permit: str, permit_version: int) -> records.PermitRow | None:
        model = self._session.get(models.PermitTable, (permit, permit_version))
        return None if model is None else value_of(records.PermitRow, model)

    def permits(self) -> tuple[records.PermitRow, ...]:
        query = select(models.PermitTable).order_by(models.PermitTable.permit, models.PermitTable.permit_version)
        return tuple(value_of(records.PermitRow, model) for model in self._session.scalars(query))

    def acceptance(self, permit: str, permit_version: int) -> records.AcceptanceRow | None:
        """The acceptance taken in last: a steward may narrow an earlier one. None from before the log's epoch holds."""
        query = select(models.AcceptanceTable).where(
            models.AcceptanceTable.permit == permit,
            models.AcceptanceTable.permit_version == permit_version,
            models.AcceptanceTable.epoch == self.epoch_number(),
        )
        order = (models.AcceptanceTable.received.desc(), models.AcceptanceTable.sha256)
        model = self._session.scalars(query.order_by(*order).limit(1)).first()
        return None if model is None else value_of(records.AcceptanceRow, model)

    def run_order(self, run: str) -> records.RunOrderRow | None:
        model = self._session.get(models.RunOrderTable, run)
        return None if model is None else self._run_order(model)

    def run_orders(self) -> tuple[records.RunOrderRow, ...]:
        query = select(models.RunOrderTable).order_by(models.RunOrderTable.received, models.RunOrderTable.run)
        return tuple(self._run_order(model) for model in self._session.scalars(query))

    def run_orders_since(self, permit: str, since: datetime) -> int:
        """How many run orders under a permit, whatever its version, came in since."""
        table = models.RunOrderTable
        query = select(func.count()).where(table.permit == permit, table.received >= since)
        return self._session.scalar(query) or 0

    def newest_revocation_list(self) -> records.RevocationListRow | None:
        """The list with the highest number; numbers only grow."""
        query = select(models.RevocationListTable).order_by(models.RevocationListTable.number.desc()).limit(1)
        model = self._session.scalars(query).first()
        return None if model is None else revocation_list_row(model)

    # --- datasets, images, settings

    def dataset_version(self, dataset_version: str) -> records.DatasetVersionRow | None:
        found = self._dataset_versions(dataset_version)
        return found[0] if found else None

    def dataset_versions(self) -> tuple[records.DatasetVersionRow, ...]:
        """All versions ever published, withdrawn ones too, oldest first."""
        return self._dataset_versions(None)

    def studies_in_use(self, project: str, roots: Collection[str]) -> frozenset[str]:
        """Which of these studies, named by their roots, a version holds that is not withdrawn."""
        held = models.VersionStudyTable
        withdrawn = select(models.WithdrawalTable.dataset_version)
        query = select(held.root).where(held.project == project, held.root.in_(roots))
        return frozenset(self._session.scalars(query.where(held.dataset_version.not_in(withdrawn))))

    def images(self) -> tuple[records.ImageRow, ...]:
        """Approvals, withdrawn ones too, oldest first."""
        query = select(models.ImageTable).order_by(models.ImageTable.approved, models.ImageTable.image)
        return tuple(value_of(records.ImageRow, model) for model in self._session.scalars(query))

    def approved_images(self) -> frozenset[str]:
        """Every digest that a permit may name an approved image by: its id, and its manifest's where it has one."""
        held = select(models.ImageTable.image).where(models.ImageTable.withdrawn.is_(None))
        manifests = select(models.ImageFactsTable.manifest).where(models.ImageFactsTable.image.in_(held))
        ids = self._session.scalars(held)
        return frozenset([*ids, *(each for each in self._session.scalars(manifests) if each)])

    def image_facts(self, digest: str) -> records.ImageFactsRow | None:
        """What is known of an image, by its id or its manifest's digest."""
        by_either = (models.ImageFactsTable.image == digest) | (models.ImageFactsTable.manifest == digest)
        model = self._session.scalars(select(models.ImageFactsTable).where(by_either).limit(1)).first()
        return None if model is None else value_of(records.ImageFactsRow, model)

    def images_added(self) -> tuple[records.ImageFactsRow, ...]:
        """All images that were ever added, oldest first."""
        query = select(models.ImageFactsTable).order_by(models.ImageFactsTable.added, models.ImageFactsTable.image)
        return tuple(value_of(records.ImageFactsRow, model) for model in self._session.scalars(query))

    def paused(self) -> bool:
        model = self._session.get(models.SettingTable, PAUSED)
        return model is not None and model.value == "yes"

    # --- instructions, jobs, releases

    def instruction(self, instruction: str) -> records.InstructionRow | None:
        """The instruction of this id, if it was ever seen: an id seen once is never served again."""
        model = self._session.get(models.InstructionTable, instruction)
        return None if model is None else instruction_row(model)

    def job(self, job: str) -> records.JobRow | None:
        model = self._session.get(models.JobTable, job)
        return None if model is None else job_row(model)

    def jobs(self, limit: int = 100) -> tuple[records.JobRow, ...]:
        """The newest jobs, newest first."""
        query = (
            select(models.JobTable).order_by(models.JobTable.created.desc(), models.JobTable.job.desc()).limit(limit)
        )
        return tuple(job_row(model) for model in self._session.scalars(query))

    def unfinished(self) -> tuple[records.JobRow, ...]:
        """Jobs that have not ended, oldest first."""
        ended = [state.value for state in TERMINAL]
        query = select(models.JobTable).where(models.JobTable.state.not_in(ended))
        return tuple(job_row(model) for model in self._session.scalars(query.order_by(models.JobTable.created)))

    def jobs_of(self, instruction: str) -> tuple[records.JobRow, ...]:
        """The job of an instruction, if it has one."""
        query = select(models.JobTable).where(models.JobTable.instruction == instruction)
        return tuple(job_row(model) for model in self._session.scalars(query))

    def attempts_open(self, run: str, round_: int, task: Kind) -> int:
        """How many attempts of one task are at work, or wait."""
        job, ended = models.JobTable, [state.value for state in TERMINAL]
        query = select(func.count()).where(job.run == run, job.round == round_, job.task == task.value)
        return self._session.scalar(query.where(job.state.not_in(ended))) or 0

    def attempts_admitted(self, run: str, round_: int, task: Kind) -> int:
        """How many attempts of one task gate 1 ever let in, whatever became of them."""
        job = models.JobTable
        query = select(func.count()).where(job.run == run, job.round == round_, job.task == task.value)
        return self._session.scalar(query.where(job.dataset_version.is_not(None))) or 0

    def releases_of(self, run: str, round_: int, task: Kind) -> int:
        """How often one task was released, redeliveries counted."""
        kept = models.ReleaseTable
        query = select(func.count()).where(kept.run == run, kept.round == round_, kept.task == task.value)
        return self._session.scalar(query) or 0

    def ends_told(self, run: str) -> int:
        """How many answers of a run told the hub how a job ended: each that did not release and reached a container."""
        answered, job = models.InstructionTable, models.JobTable
        query = select(func.count()).select_from(answered).join(job, job.instruction == answered.instruction)
        return (
            self._session.scalar(query.where(answered.run == run, answered.hub_code.is_not(None), job.starts > 0)) or 0
        )

    def attempts_started(self, instruction: Instruction) -> int:
        """How many other attempts of this task reached a container."""
        job = models.JobTable
        query = select(func.count(job.instruction.distinct())).where(
            job.run == instruction.run,
            job.round == instruction.round,
            job.task == instruction.task.value,
            job.instruction != instruction.id,
            job.starts > 0,
        )
        return self._session.scalar(query) or 0

    def recent_use(self, after: datetime) -> tuple[records.UseRow, ...]:
        """What jobs that changed since `after` used of the site's slots."""
        job, permit = models.JobTable, models.PermitTable
        same = (permit.permit == job.permit) & (permit.permit_version == job.permit_version)
        query = select(permit.project, job.used_s, job.updated).join(permit, same)
        rows = self._session.execute(query.where(job.updated > after, job.used_s > 0).order_by(job.updated))
        return tuple(records.UseRow(*row) for row in rows)

    def last_attempt(self, run: str, round_: int, task: Kind) -> int:
        """The highest attempt of one task that gate 1 let through, 0 for none."""
        admitted = models.JobTable.dataset_version.is_not(None) | models.JobTable.state.in_(_RELEASED)
        query = (
            select(func.max(models.InstructionTable.attempt))
            .join(models.JobTable, models.JobTable.instruction == models.InstructionTable.instruction)
            .where(
                models.InstructionTable.run == run,
                models.InstructionTable.round == round_,
                models.InstructionTable.task == task.value,
                admitted,
            )
        )
        return self._session.scalar(query) or 0

    def run_dataset_version(self, run: str) -> str | None:
        """The dataset version that the rounds of a run use here, once one was admitted."""
        query = select(models.RunVersionTable.dataset_version).where(models.RunVersionTable.run == run)
        return self._session.scalars(query.order_by(models.RunVersionTable.dataset_version).limit(1)).first()

    def find_release(self, run: str, round_: int, task: Kind) -> records.ReleaseRow | None:
        """The release of one task with the highest attempt."""
        found = self._releases(
            models.ReleaseTable.run == run, models.ReleaseTable.round == round_, models.ReleaseTable.task == task.value
        )
        return max(found, key=lambda row: row.attempt, default=None)

    def releases(self, run: str) -> tuple[records.ReleaseRow, ...]:
        """All releases of a run, oldest first."""
        return self._releases(models.ReleaseTable.run == run)

    def waiting_releases(self) -> tuple[records.ReleaseRow, ...]:
        """Releases the hub has not had yet, and is to have, oldest first."""
        asked = models.InstructionTable
        return self._releases(asked.state == "released", asked.delivered.is_(None))

    def outgoing(self) -> tuple[OutgoingReply, ...]:
        """Every answer the hub has not had yet and that is not set aside, oldest first; `folder` is where its objects
        are kept."""
        query = (
            select(models.InstructionTable, models.ReleaseTable)
            .outerjoin(models.ReleaseTable, models.ReleaseTable.instruction == models.InstructionTable.instruction)
            .where(
                models.InstructionTable.state != "open",
                models.InstructionTable.delivered.is_(None),
                models.InstructionTable.task
                != Kind.ANALYSE.value,  # asked by this hospital, answered to nobody outside
                ~exists().where(
                    models.FailureTable.subject == models.InstructionTable.instruction,
                    models.FailureTable.kind
                    == case((models.InstructionTable.state == "released", records.RELEASE), else_=records.REFUSAL),
                    models.FailureTable.set_aside.is_not(None),
                ),
            )
            .order_by(models.InstructionTable.received, models.InstructionTable.instruction)
        )
        rows = []
        for model, release in self._session.execute(query):
            row = instruction_row(model)
            # a refusal that came after a release (a revocation, say) is what the hub is told
            sent = release if row.state == "released" else None
            rows.append(
                OutgoingReply(
                    instruction=row.instruction,
                    reply_context=row.reply_context,
                    envelope=None if sent is None else sent.envelope,
                    folder=None if sent is None else sent.folder,
                    hub_code=row.hub_code if sent is None else None,
                )
            )
        return tuple(rows)

    # --- canaries

    def newest_canary(self, fingerprint: str) -> records.CanaryRow | None:
        query = select(models.CanaryTable).where(models.CanaryTable.fingerprint == fingerprint)
        model = self._session.scalars(query.order_by(models.CanaryTable.canary.desc()).limit(1)).first()
        return None if model is None else value_of(records.CanaryRow, model)

    def newest_canary_of_all(self) -> records.CanaryRow | None:
        """What the canary found last, whatever the sandbox."""
        model = self._session.scalars(
            select(models.CanaryTable).order_by(models.CanaryTable.canary.desc()).limit(1)
        ).first()
        return None if model is None else value_of(records.CanaryRow, model)

    # --- audit

    def newest_audit_time(self) -> datetime | None:
        return self._head().newest

    def audit_size(self) -> int:
        return self._head().size

    def audit_tree(self) -> Frontier:
        head = self._head()
        return Frontier(head.size, tuple(bytes.fromhex(peak) for peak in head.frontier))

    def audit_lines(self, after: int, limit: int) -> tuple[str, ...]:
        """The lines numbered from `after` + 1 on, at most `limit`, without line ends."""
        query = select(models.AuditRecordTable.line).where(models.AuditRecordTable.sequence > after)
        return tuple(self._session.scalars(query.order_by(models.AuditRecordTable.sequence).limit(limit)))

    def records_since_checkpoint(self) -> int:
        """Records beyond the newest checkpoint, not counting those that checkpoints and witnesses wrote."""
        newest = self.newest_checkpoint()
        query = select(func.count()).where(
            models.AuditRecordTable.sequence > (0 if newest is None else newest.size),
            models.AuditRecordTable.action != Action.CHECKPOINT.value,
        )
        return self._session.scalar(query) or 0

    def newest_checkpoint(self) -> records.CheckpointRow | None:
        query = select(models.CheckpointTable).order_by(models.CheckpointTable.size.desc()).limit(1)
        model = self._session.scalars(query).first()
        return None if model is None else value_of(records.CheckpointRow, model)

    def checkpoints(self, after: int = 0) -> tuple[records.CheckpointRow, ...]:
        """Checkpoints over more than `after` records, by size."""
        query = (
            select(models.CheckpointTable)
            .where(models.CheckpointTable.size > after)
            .order_by(models.CheckpointTable.size)
        )
        return tuple(value_of(records.CheckpointRow, model) for model in self._session.scalars(query))

    def witnessed(self, after: int = 0) -> tuple[records.WitnessedRow, ...]:
        """Witnessed checkpoints over more than `after` records, by size."""
        query = (
            select(models.WitnessedTable).where(models.WitnessedTable.size > after).order_by(models.WitnessedTable.size)
        )
        return tuple(value_of(records.WitnessedRow, model) for model in self._session.scalars(query))

    # --- inside

    def _head(self) -> models.AuditHeadTable:
        return self._session.get_one(models.AuditHeadTable, 1)

    def _run_order(self, model: models.RunOrderTable) -> records.RunOrderRow:
        return value_of(records.RunOrderRow, model, state=self._session.get_one(models.RunTable, model.run).state)

    def _dataset_versions(self, only: str | None) -> tuple[records.DatasetVersionRow, ...]:
        version = models.DatasetVersionTable
        query = (
            select(version, models.DatasetTable, models.WithdrawalTable)
            .join(models.DatasetTable, models.DatasetTable.dataset == version.dataset)
            .outerjoin(models.WithdrawalTable, models.WithdrawalTable.dataset_version == version.dataset_version)
            .order_by(version.created, version.dataset_version)
        )
        if only is not None:
            query = query.where(version.dataset_version == only)
        return tuple(dataset_row(*found) for found in self._session.execute(query))

    def _releases(self, *conditions: object) -> tuple[records.ReleaseRow, ...]:
        query = (
            select(models.ReleaseTable, models.InstructionTable)
            .join(models.InstructionTable, models.InstructionTable.instruction == models.ReleaseTable.instruction)
            .where(*conditions)  # type: ignore[arg-type]
            .order_by(models.ReleaseTable.created, models.ReleaseTable.instruction)
        )
        return tuple(release_row(*found) for found in self._session.execute(query))
