"""How much of a privacy budget a run has spent: Rényi accounting by `dp-accounting`."""

from __future__ import annotations

from functools import cache

from mediator.release.noise import accounted_multiplier
from mediator.types import PrivacyBudget


@cache
def epsilon(privacy: PrivacyBudget, releases: int) -> float:
    """Epsilon at the permit's delta after `releases` noised updates (Gaussian mechanism, composed; Mironov 2017)."""
    if releases == 0:
        return 0.0
    # imported here: it brings scipy, and most permits have no privacy budget
    from dp_accounting import dp_event, rdp

    gaussian = dp_event.GaussianDpEvent(accounted_multiplier(privacy))
    accountant = rdp.RdpAccountant()
    accountant.compose(gaussian, releases)
    return float(accountant.get_epsilon(privacy.delta))
