"""What of the privacy budgets of a dataset is spent: Rényi accounting by `dp-accounting`.

The unit is a dataset name, all its versions; an entry of the ledger is an output, whatever became of it. Thousands of
entries have a handful of noise multipliers, so they are composed by how many there are of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from mediator.ledger import Spending
from mediator.release.noise import accounted_multiplier
from mediator.types import DataPermit, Kind
from node.core.store.reads import Reads

NOT_ASKED = Spending(under_permit=None, under_all=None, had_budget=True)
"""Of a dataset that the permit does not cover."""


def composed(noised: Mapping[float, int], delta: float) -> float:
    """Epsilon at `delta` of so many Gaussian outputs of each noise multiplier (Mironov 2017, composed in Rényi
    divergence and converted once)."""
    return _epsilon(tuple(sorted(item for item in noised.items() if item[1] > 0)), delta)


def spending_after(
    snapshot: Reads, permit: DataPermit, task: Kind, dataset: str, *, charged: bool, delta: float
) -> Spending:
    """What `dataset` will have cost with this task, at the permit's delta and at the hospital's, `delta`."""
    had_budget = snapshot.had_budget(dataset)
    if permit.privacy is None:
        return Spending(under_permit=None, under_all=None, had_budget=had_budget)
    more = [permit.privacy.noise_multiplier] if task is Kind.TRAIN and not charged else []
    mine, every = snapshot.noised(dataset, permit.permit), snapshot.noised(dataset)
    return Spending(
        under_permit=composed(_with(mine, more), permit.privacy.delta),
        under_all=composed(_with(every, more), delta),
        had_budget=had_budget,
    )


def _with(noised: Mapping[float, int], more: Iterable[float]) -> Mapping[float, int]:
    counted = dict(noised)
    for multiplier in more:
        counted[multiplier] = counted.get(multiplier, 0) + 1
    return counted


@lru_cache(maxsize=1024)
def _epsilon(noised: tuple[tuple[float, int], ...], delta: float) -> float:
    if not noised:
        return 0.0
    # imported here: it brings scipy, and most permits have no privacy budget
    from dp_accounting import dp_event, rdp

    accountant = rdp.RdpAccountant()
    for multiplier, count in noised:
        accountant.compose(dp_event.GaussianDpEvent(accounted_multiplier(multiplier)), count)
    return float(accountant.get_epsilon(delta))
