"""What was charged, as the store keeps it: to permits in rounds and bytes, to datasets in noised outputs."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from mediator.types import Kind
from node.core import records
from node.core.store import models
from node.core.store.rows import value_of

_ENTRY = models.LedgerEntryTable


class LedgerReads:
    """What is asked about the ledger."""

    _session: Session

    def charged(self, permit: str, run: str, round_: int, task: Kind) -> records.ChargeRow | None:
        model = self._session.get(_ENTRY, (permit, run, round_, task.value))
        return None if model is None else value_of(records.ChargeRow, model, task=Kind(model.task))

    def charges(self, permit: str) -> tuple[records.ChargeRow, ...]:
        """Everything charged under a permit, whatever its version, oldest first."""
        query = select(_ENTRY).where(_ENTRY.permit == permit)
        found = self._session.scalars(query.order_by(_ENTRY.time, _ENTRY.run, _ENTRY.round, _ENTRY.task))
        return tuple(value_of(records.ChargeRow, model, task=Kind(model.task)) for model in found)

    def rounds_charged(self, permit: str) -> frozenset[tuple[str, int]]:
        """(run, round) of everything charged under a permit, whatever its version."""
        query = select(_ENTRY.run, _ENTRY.round).where(_ENTRY.permit == permit).distinct()
        return frozenset((run, round_) for run, round_ in self._session.execute(query))

    def bytes_charged(self, permit: str) -> int:
        """Bytes charged under a permit, whatever its version."""
        return int(self._session.scalar(select(func.sum(_ENTRY.size_bytes)).where(_ENTRY.permit == permit)) or 0)

    def ledger_totals(self, permit: str, permit_version: int, run: str) -> records.LedgerTotals:
        """What one run has been charged under one permit version."""
        query = select(
            func.count(_ENTRY.round.distinct()),
            func.coalesce(func.sum(_ENTRY.size_bytes), 0),
            func.coalesce(func.sum(_ENTRY.epsilon), 0.0),
        ).where(_ENTRY.permit == permit, _ENTRY.permit_version == permit_version, _ENTRY.run == run)
        rounds, size_bytes, epsilon = self._session.execute(query).one()
        return records.LedgerTotals(int(rounds), int(size_bytes), float(epsilon))

    def noised(self, dataset: str, permit: str | None = None) -> Mapping[float, int]:
        """Charged outputs of a dataset that leave with noise, by noise multiplier: under one permit, or under all."""
        query = select(_ENTRY.noise_multiplier, func.count()).where(
            _of(dataset), _ENTRY.noise_multiplier.is_not(None), *([] if permit is None else [_ENTRY.permit == permit])
        )
        found = self._session.execute(query.group_by(_ENTRY.noise_multiplier))
        return {multiplier: count for multiplier, count in found if multiplier is not None}

    def had_budget(self, dataset: str) -> bool:
        """Whether a permit with a privacy budget was ever accepted for one of its versions, or noise ever added."""
        covered, version = models.BudgetedVersionTable, models.DatasetVersionTable
        accepted = (
            select(covered.permit)
            .join(version, version.dataset_version == covered.dataset_version)
            .where(version.dataset == dataset)
        )
        return self._session.scalar(accepted.limit(1)) is not None or bool(self.noised(dataset))

    def datasets_of(self, run: str) -> tuple[str, ...]:
        """The datasets, by name, that a run was charged for."""
        query = select(_ENTRY.dataset).where(_ENTRY.run == run, _ENTRY.dataset.is_not(None)).distinct()
        return tuple(name for name in self._session.scalars(query) if name is not None)

    def spenders(self) -> tuple[records.Spender, ...]:
        """Of every dataset each permit that something was charged under, or whose privacy budget was accepted for it:
        how often, and how often without noise."""
        charged = select(
            func.coalesce(_ENTRY.dataset, ""),
            _ENTRY.permit,
            func.count(_ENTRY.noise_multiplier),
            func.count() - func.count(_ENTRY.noise_multiplier),
        ).group_by(_ENTRY.dataset, _ENTRY.permit)
        covered, version = models.BudgetedVersionTable, models.DatasetVersionTable
        accepted = select(version.dataset, covered.permit).join(
            covered, covered.dataset_version == version.dataset_version
        )
        found = {(row.dataset, row.permit): (0, 0) for row in self._session.execute(accepted.distinct())}
        for dataset, permit, noised, without_noise in self._session.execute(charged):
            found[dataset, permit] = (noised, without_noise)
        return tuple(records.Spender(*name, *found[name]) for name in sorted(found))


def _of(dataset: str) -> ColumnElement[bool]:
    # an entry of before datasets were noted, whose run is not known any more, counts for every dataset
    return or_(_ENTRY.dataset == dataset, _ENTRY.dataset.is_(None))
