"""Epochs of the log, and what the witness has of it, as the store keeps them: read by `Reads`, changed by `Tx`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from mediator.audit import Epoch, LogHead
from mediator.tree import Frontier
from node.core import records
from node.core.records import AuditEvent
from node.core.store import models
from node.core.store.documents import after_others
from node.core.store.rows import value_of

# lines read from the database at a time
_BATCH = 1000
_ONE = 1
ENDED = "ended"


class EpochReads:
    """What is asked about the log as a whole."""

    _session: Session

    def epoch(self) -> records.EpochRow | None:
        """The epoch that the log is in; nothing in the first."""
        model = self._session.scalars(
            select(models.LogEpochTable).order_by(models.LogEpochTable.number.desc()).limit(1)
        ).first()
        if model is None:
            return None
        before = LogHead(model.before_epoch, model.before_size, model.before_root)
        return records.EpochRow(Epoch(model.number, model.kept, before), model.record, model.opened)

    def epoch_number(self) -> int:
        return self._session.scalar(select(func.max(models.LogEpochTable.number))) or 0

    def set_back(self) -> records.SetBackRow | None:
        """What was seen of the log and is not in it; nothing while the log is known to be whole."""
        model = self._session.get(models.SetBackTable, _ONE)
        if model is None:
            return None
        return records.SetBackRow(LogHead(model.epoch, model.size, model.root), model.noticed)

    def ordered_before(self, run: str) -> bool:
        """Whether the order of a run came in before the log's epoch was opened."""
        model = self._session.get(models.RunOrderTable, run)
        return model is not None and model.epoch < self.epoch_number()

    def witnessed_size(self, within: int | None = None) -> int:
        """How many records the newest witnessed checkpoint covers, or the newest of at most `within` records.

        One look into an index, however many there are.
        """
        size = models.WitnessedTable.size
        query = select(func.max(size))
        return self._session.scalar(query if within is None else query.where(size <= within)) or 0

    def newest_witnessed(self) -> records.WitnessedRow | None:
        query = select(models.WitnessedTable).order_by(models.WitnessedTable.size.desc()).limit(1)
        model = self._session.scalars(query).first()
        return None if model is None else value_of(records.WitnessedRow, model)

    def checkpoint(self, size: int) -> records.CheckpointRow | None:
        """The checkpoint over exactly `size` records."""
        model = self._session.get(models.CheckpointTable, size)
        return None if model is None else value_of(records.CheckpointRow, model)

    def tree_at(self, size: int) -> Frontier:
        """The log as it was at `size` records: from the last checkpoint before, or from the beginning."""
        table = models.CheckpointTable
        query = select(table).where(table.size <= size, table.frontier.is_not(None))
        model = self._session.scalars(query.order_by(table.size.desc()).limit(1)).first()
        tree = Frontier()
        if model is not None:
            tree = Frontier(model.size, tuple(bytes.fromhex(peak) for peak in model.frontier or ()))
        for line in self.lines_between(tree.size, size):
            tree = tree.append(line)
        return tree

    def lines_between(self, after: int, size: int) -> Iterator[bytes]:
        """The lines numbered from `after` + 1 to `size`, without line ends."""
        table = models.AuditRecordTable
        while after < size:
            query = select(table.line).where(table.sequence > after, table.sequence <= size).order_by(table.sequence)
            found = self._session.scalars(query.limit(_BATCH)).all()
            if not found:
                return
            for line in found:
                yield line.encode("ascii")
            after += len(found)


class EpochWrites:
    """What changes them. Mixed into `Tx`."""

    if TYPE_CHECKING:  # `Tx` has them
        _session: Session
        now: datetime

        def _append(self, event: AuditEvent) -> None: ...
        def _add(self, model: models.NodeBase) -> None: ...
        def audit_size(self) -> int: ...
        def epoch_number(self) -> int: ...

    def note_set_back(self, head: LogHead, *, event: AuditEvent) -> bool:
        """Remember what was seen of the log and is not in it. False when that, or more, is known."""
        model = self._session.get(models.SetBackTable, _ONE)
        if model is not None and (model.epoch, model.size) >= (head.epoch, head.size):
            return False
        self._append(event)
        self._session.merge(
            models.SetBackTable(one=_ONE, epoch=head.epoch, size=head.size, root=head.root, noticed=self.now)
        )
        self._session.flush()
        return True

    def open_epoch(self, epoch: Epoch, *, event: AuditEvent) -> None:
        """Begin an epoch with `event`: every run ends, and no acceptance holds any more."""
        self._append(event)
        before = epoch.before
        self._add(
            models.LogEpochTable(
                number=epoch.number,
                record=self.audit_size(),
                kept=epoch.kept,
                before_epoch=before.epoch,
                before_size=before.size,
                before_root=before.root,
                opened=self.now,
            )
        )
        self._session.execute(update(models.RunTable).values(state=ENDED, changed=self.now))
        model = self._session.get(models.SetBackTable, _ONE)
        if model is not None:
            self._session.delete(model)
        self._session.flush()

    def accept_again(self, sha256: str, *, event: AuditEvent) -> bool:
        """Let an acceptance from before the log's epoch hold again. False when there is none, or it holds."""
        model = self._session.get(models.AcceptanceTable, sha256)
        if model is None or model.epoch == self.epoch_number():
            return False
        self._append(event)
        received = after_others(self._session, model.permit, model.permit_version, self.now)
        model.epoch, model.received = self.epoch_number(), received
        self._session.flush()
        return True

    def accept_clock(self, *, event: AuditEvent) -> None:
        """Count the newest time of the log from now: records from a wrong time are in it, and hold nothing up."""
        self._session.get_one(models.AuditHeadTable, 1).newest = None
        self._append(event)
        self._session.flush()
