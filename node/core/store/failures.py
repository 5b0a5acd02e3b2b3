"""What failed although everything around it answered, as the store keeps it: read by `Reads`, changed by `Tx`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from node.core import records
from node.core.records import AuditEvent
from node.core.store import models
from node.core.store.rows import value_of

# Subjects come from strangers: the oldest leave, those first that were only counted. What was set aside is in the log.
MOST_ROWS = 1000


class FailureReads:
    """What is asked about failures."""

    _session: Session

    def failure(self, kind: str, subject: str) -> records.FailureRow | None:
        model = self._session.get(models.FailureTable, (kind, subject))
        return None if model is None else value_of(records.FailureRow, model)

    def set_aside(self, limit: int = MOST_ROWS) -> tuple[records.FailureRow, ...]:
        """What is tried no more, newest first."""
        table = models.FailureTable
        query = select(table).where(table.set_aside.is_not(None))
        newest = self._session.scalars(query.order_by(table.set_aside.desc(), table.subject).limit(limit))
        return tuple(value_of(records.FailureRow, model) for model in newest)

    def count_set_aside(self) -> int:
        """How much is tried no more."""
        table = models.FailureTable
        return self._session.scalar(select(func.count()).select_from(table).where(table.set_aside.is_not(None))) or 0


class FailureWrites:
    """What changes them."""

    _session: Session
    now: datetime

    if TYPE_CHECKING:

        def _append(self, event: AuditEvent) -> None: ...
        def _add(self, model: models.NodeBase) -> None: ...

    def count_failure(
        self, kind: str, subject: str, reason: str, *, set_aside: bool, event: AuditEvent | None
    ) -> records.FailureRow:
        """Count a failure once more. With `set_aside` its subject is tried no more; `event` says so, and a failure that
        is only counted has none."""
        if event is not None:
            self._append(event)
        model = self._session.get(models.FailureTable, (kind, subject))
        if model is None:
            self._make_room()
            model = models.FailureTable(
                kind=kind, subject=subject, reason=reason, times=0, first=self.now, last=self.now, set_aside=None
            )
            self._add(model)
        model.times, model.reason, model.last = model.times + 1, reason, self.now
        if set_aside:
            model.set_aside = self.now
        self._session.flush()
        return value_of(records.FailureRow, model)

    def _make_room(self) -> None:
        """Answers stay, and take no room from the others: one that was set aside would go out again if its row went.
        There are no more of them than instructions that were taken in."""
        table = models.FailureTable
        strangers = table.kind.not_in(records.ANSWERS)
        over = (self._session.scalar(select(func.count()).select_from(table).where(strangers)) or 0) + 1 - MOST_ROWS
        if over <= 0:
            return
        mine = select(table.kind, table.subject).where(strangers)
        oldest = self._session.execute(mine.order_by(table.set_aside.is_not(None), table.last).limit(over)).all()
        for kind, subject in oldest:
            self._session.execute(delete(table).where(table.kind == kind, table.subject == subject))
