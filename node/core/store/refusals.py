"""The table that counts refusals, as the store keeps it: read by `Reads`, changed by `Tx`.

Counting alone leaves no record: the number stands for records that are not written, until its day is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from node.core.records import AuditEvent, RefusalDayRow
from node.core.store import models
from node.core.store.rows import value_of


class RefusalReads:
    """What is asked about refusals that were counted."""

    _session: Session

    def refusals_kept(self, source: str, day: str) -> int:
        """How many refusals of a day were written down one by one."""
        model = self._session.get(models.RefusalDayTable, (source, day))
        return 0 if model is None else model.kept

    def refusal_days(self, before: str) -> tuple[RefusalDayRow, ...]:
        """Days that are over, oldest first."""
        table = models.RefusalDayTable
        query = select(table).where(table.day < before).order_by(table.day, table.source)
        return tuple(value_of(RefusalDayRow, model) for model in self._session.scalars(query))


class RefusalWrites(RefusalReads):
    """What changes them; a part of `Tx`, whose transaction and log these are."""

    if TYPE_CHECKING:

        def _append(self, event: AuditEvent) -> None: ...

    def count_refusals(self, source: str, day: str, *, kept: int = 0, more: int = 0) -> None:
        """Count refusals that were written down, and those that were not."""
        model = self._session.get(models.RefusalDayTable, (source, day))
        if model is None:
            model = models.RefusalDayTable(source=source, day=day, kept=0, more=0)
            self._session.add(model)
        model.kept += kept
        model.more += more
        self._session.flush()

    def sum_up_refusals(self, row: RefusalDayRow, *, event: AuditEvent) -> None:
        """`event` stands for what was counted only; the day is closed."""
        self._append(event)
        self.forget_refusals(row.source, row.day)

    def forget_refusals(self, source: str, day: str) -> None:
        """Close a day of which every refusal was written down."""
        table = models.RefusalDayTable
        self._session.execute(delete(table).where(table.source == source, table.day == day))
