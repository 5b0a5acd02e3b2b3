"""What hospital staff are shown of epsilon: of every dataset, each permit's and the sum over all."""

from __future__ import annotations

from itertools import groupby

from mediator.errors import Denied, Malformed
from mediator.permit import open_permit
from mediator.types import PrivacyBudget
from node.core.context import Core
from node.core.records import Spender
from node.core.store.reads import Reads
from node.core.tasks.privacy import composed
from node.ipc.datasets import BudgetLine


def lines(core: Core, snapshot: Reads) -> tuple[BudgetLine, ...]:
    """A line for each permit that a task on a dataset was charged under or whose budget was accepted for it, then one
    for all together."""
    shown: list[BudgetLine] = []
    for dataset, spenders in groupby(snapshot.spenders(), key=lambda each: each.dataset):
        found = [_line(core, snapshot, spender) for spender in spenders]
        noised = snapshot.noised(dataset)
        total = BudgetLine(
            dataset=dataset,
            permit="",
            noised=sum(noised.values()),
            without_noise=sum(line.without_noise for line in found),
            epsilon=composed(noised, core.privacy.delta),
            delta=core.privacy.delta,
            budget=core.privacy.epsilon_total,
        )
        shown += [*found, total]
    return tuple(shown)


def _line(core: Core, snapshot: Reads, spender: Spender) -> BudgetLine:
    privacy = _privacy(core, snapshot, spender)
    delta = core.privacy.delta if privacy is None else privacy.delta
    return BudgetLine(
        dataset=spender.dataset,
        permit=spender.permit,
        noised=spender.noised,
        without_noise=spender.without_noise,
        epsilon=composed(snapshot.noised(spender.dataset, spender.permit), delta),
        delta=delta,
        budget=None if privacy is None else privacy.epsilon,
    )


def _privacy(core: Core, snapshot: Reads, spender: Spender) -> PrivacyBudget | None:
    """The budget of the newest version there is; none where its key is trusted no more."""
    rows = [row for row in snapshot.permits() if row.permit == spender.permit]
    try:
        return open_permit(rows[-1].text, core.trust.committee).document.privacy if rows else None
    except (Denied, Malformed):
        return None
