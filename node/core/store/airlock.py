"""Files in the airlock, as the store keeps them: read by `Reads`, changed by `Tx`."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from mediator.airlock.review import ENDED, FileEvent, FileState, advance
from mediator.errors import Code, IntegrityBroken
from mediator.jobs import JobState
from mediator.types import Kind
from node.core import records
from node.core.records import AuditEvent
from node.core.store import models
from node.core.store.rows import value_of
from node.ipc.airlock import NewReview, ReviewRow


def new_airlock_file(
    job: records.JobRow, name: str, record: str, content: bytes, *, needed: int, near: str
) -> records.NewAirlockFile:
    """A file that comes into the airlock now, with its record; `needed` persons have to let it."""
    return records.NewAirlockFile(
        file=f"file-{secrets.token_hex(8)}",
        job=job.job,
        run=job.run,
        permit=job.permit,
        permit_version=job.permit_version,
        name=name,
        needed=needed,
        content_sha256=hashlib.sha256(content).hexdigest(),
        record_sha256=hashlib.sha256(record.encode("utf-8")).hexdigest(),
        record=record,
        content=content,
        near=near,
    )


class AirlockReads:
    """What is asked about files in the airlock."""

    _session: Session

    def airlock_file(self, file: str) -> records.AirlockRow | None:
        model = self._session.get(models.AirlockFileTable, file)
        return None if model is None else _row(model)

    def airlock_files(self, *, waiting: bool = False, limit: int = 1000) -> tuple[records.AirlockRow, ...]:
        """The newest files, newest first; with `waiting` those that have not ended alone, all of them."""
        query = select(models.AirlockFileTable).order_by(
            models.AirlockFileTable.created.desc(), models.AirlockFileTable.file
        )
        if waiting:
            query = query.where(models.AirlockFileTable.state.not_in([state.value for state in ENDED]))
        else:
            query = query.limit(limit)
        return tuple(_row(model) for model in self._session.scalars(query))

    def airlock_content(self, file: str) -> bytes | None:
        """What may leave of a file, as long as nothing has ended it."""
        return self._session.scalar(select(models.AirlockFileTable.content).where(models.AirlockFileTable.file == file))

    def airlock_near(self, file: str) -> str:
        """The values that people have to judge in a file, as they were kept; empty where there are none."""
        query = select(models.AirlockFileTable.near).where(models.AirlockFileTable.file == file)
        return self._session.scalar(query) or ""

    def shown_counts(self, permit: str) -> tuple[records.ShownCountsRow, ...]:
        """All counts that left under a permit, whatever its version, or may leave; oldest first."""
        shown, file = models.ShownCountsTable, models.AirlockFileTable
        query = select(shown, file.state).outerjoin(file, file.file == shown.source).where(shown.permit == permit)
        return tuple(
            value_of(records.ShownCountsRow, row, task=Kind(row.task), approved=state == FileState.APPROVED.value)
            for row, state in self._session.execute(query.order_by(shown.time, shown.source))
        )

    def airlock_reviews(self, file: str) -> tuple[ReviewRow, ...]:
        """The reviews of a file, oldest first."""
        query = select(models.AirlockReviewTable).where(models.AirlockReviewTable.file == file)
        found = self._session.scalars(query.order_by(models.AirlockReviewTable.time, models.AirlockReviewTable.sha256))
        return tuple(value_of(ReviewRow, model) for model in found)

    def is_held(self, run: str) -> bool:
        """Whether an analysis of this run has its files in the airlock, or had."""
        held = (
            models.JobTable.run == run,
            models.JobTable.task == Kind.ANALYSE.value,
            models.JobTable.state == JobState.HELD.value,
        )
        return self._session.scalars(select(models.JobTable.job).where(*held).limit(1)).first() is not None


class AirlockWrites(AirlockReads):
    """What changes files in the airlock; a part of `Tx`, whose transaction and log these are."""

    if TYPE_CHECKING:
        now: datetime

        def _append(self, event: AuditEvent) -> None: ...
        def _add(self, model: models.NodeBase) -> None: ...

    def add_airlock_file(
        self,
        file: records.NewAirlockFile,
        happened: FileEvent,
        counts: records.NewShownCounts | None = None,
        *,
        event: AuditEvent,
        code: Code | None = None,
    ) -> None:
        """Keep a file as the rules left it: checked, with what it shows, or refused and without content."""
        state = advance(FileState.PRODUCED, happened)
        self._append(event)
        model = models.AirlockFileTable(**vars(file), created=self.now, updated=self.now)
        self._end(model, state, code)
        self._add(model)
        if counts is not None and state not in ENDED:
            self._keep_counts(counts)

    def hand_out(self, file: str, *, event: AuditEvent) -> None:
        """An approved file is on its way: what it shows counts as outside from now on, whatever becomes of the file."""
        shown = self._session.get(models.ShownCountsTable, file)
        self._append(event)
        if shown is not None:
            shown.left, shown.time = True, self.now
        self._session.flush()

    def _keep_counts(self, counts: records.NewShownCounts) -> None:
        if self._session.get(models.ShownCountsTable, counts.source) is None:  # else kept before a crash
            self._add(models.ShownCountsTable(**vars(counts), time=self.now))

    def add_review(self, review: NewReview, happened: FileEvent, *, event: AuditEvent) -> FileState:
        """Keep a person's review, and what it does to its file. Raises `IntegrityBroken` for a review held already."""
        if self._session.get(models.AirlockReviewTable, review.sha256) is not None:
            raise IntegrityBroken("a review that is held already")
        model = self._airlock_file(review.file)
        state = advance(FileState(model.state), happened)
        self._append(event)
        self._add(models.AirlockReviewTable(**vars(review), time=self.now))
        self._end(model, state, Code.REVIEW_REFUSED if happened is FileEvent.REFUSE else None)
        model.updated = self.now
        self._session.flush()
        return state

    def advance_airlock_file(
        self, file: str, happened: FileEvent, *, event: AuditEvent, code: Code | None = None
    ) -> None:
        """Move a file along its table; whatever ends it deletes its content."""
        model = self._airlock_file(file)
        state = advance(FileState(model.state), happened)
        self._append(event)
        self._end(model, state, code)
        model.updated = self.now
        self._session.flush()

    def _airlock_file(self, file: str) -> models.AirlockFileTable:
        model = self._session.get(models.AirlockFileTable, file)
        if model is None:
            raise IntegrityBroken("there is no such file in the airlock")
        return model

    def _end(self, model: models.AirlockFileTable, state: FileState, code: Code | None) -> None:
        model.state = state.value
        model.code = None if code is None else code.value
        if state in ENDED:
            model.content = None
        if state in (FileState.REFUSED, FileState.EXPIRED):
            model.near = ""
            shown = self._session.get(models.ShownCountsTable, model.file)
            if shown is not None and not shown.left:
                self._session.delete(shown)
                self._session.flush()


def _row(model: models.AirlockFileTable) -> records.AirlockRow:
    code = None if model.code is None else Code(model.code)
    return value_of(records.AirlockRow, model, state=FileState(model.state), code=code)
