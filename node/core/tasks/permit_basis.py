"""What a permit rests on at this node, and whether that still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from mediator.errors import Code, Denied, Malformed
from mediator.ledger import is_protected
from mediator.permit import check_live, open_acceptance, open_permit
from mediator.revocations import Revocations, newest
from mediator.signatures import KeyRing, VerifyKey
from mediator.types import Acceptance, DataPermit
from node.core.context import Core
from node.core.store.reads import Reads


@dataclass(frozen=True)
class PermitBasis:
    """What a permit rests on, as one snapshot of the store has it."""

    permit: DataPermit
    acceptance: Acceptance
    revocations: Revocations | None
    siblings: Sequence[DataPermit]
    newest_audit: datetime | None
    order_expires: datetime | None = None
    set_back: bool = False
    order_before: bool = False

    def ended(self, core: Core) -> Code | None:
        """Why the permit, or the order where there is one, is not live now; None while it is."""
        now = core.clock()
        if self.set_back:
            return Code.LOG_SET_BACK
        if self.order_before:
            return Code.EPOCH_OVER
        if self.order_expires is not None and now >= self.order_expires:
            return Code.RUN_ORDER_EXPIRED
        revoked = newest(self.revocations, core.heard.revocations)
        reasons = check_live(
            self.permit,
            self.acceptance,
            revoked,
            siblings=self.siblings,
            highest_revocation=0 if revoked is None else revoked.number,
            max_revocation_age=core.max_revocation_age,
            newest_audit=self.newest_audit,
            now=now,
        )
        return reasons[0].code if reasons else None

    def exposes(self, snapshot: Reads, datasets: Iterable[str]) -> Code | None:
        """Why values of these datasets may not leave any more: the budget of another permit protects one of them
        meanwhile, which gate 1 asked about when the work began."""
        had = map(snapshot.had_budget, datasets)
        protected = any(is_protected(self.permit, self.acceptance, had_budget=each) for each in had)
        return Code.DATASET_PROTECTED if protected else None


def standing(core: Core, snapshot: Reads, permit: str, permit_version: int) -> PermitBasis | None:
    """What a permit rests on; None where the node does not hold it, or has not accepted it, and where one of the two
    no longer opens (its key is trusted no more): that grants nothing, and keeps nobody else waiting."""
    permit_row, acceptance_row = snapshot.permit(permit, permit_version), snapshot.acceptance(permit, permit_version)
    if permit_row is None or acceptance_row is None:
        return None
    committee = tuple(core.trust.committee.values())
    granted = _opened_permit(permit_row.text, committee)
    accepted = _opened_acceptance(acceptance_row.text, tuple(core.trust.stewards.values()))
    if granted is None or accepted is None:
        return None
    siblings = [_opened_permit(row.text, committee) for row in snapshot.permits() if row.permit == permit]
    return PermitBasis(
        permit=granted,
        acceptance=accepted,
        revocations=core.revocations(snapshot),
        siblings=[each for each in siblings if each is not None],
        newest_audit=snapshot.newest_audit_time(),
        set_back=snapshot.set_back() is not None,
    )


# What a text says under the same keys is always the same; and whoever watches over containers asks every second.


@lru_cache(maxsize=64)
def _opened_permit(text: str, committee: tuple[VerifyKey, ...]) -> DataPermit | None:
    try:
        return open_permit(text, KeyRing(committee)).document
    except (Denied, Malformed):
        return None


@lru_cache(maxsize=64)
def _opened_acceptance(text: str, stewards: tuple[VerifyKey, ...]) -> Acceptance | None:
    try:
        return open_acceptance(text, KeyRing(stewards)).document
    except (Denied, Malformed):
        return None


def permit_ended(core: Core, snapshot: Reads, permit: str, permit_version: int) -> Code | None:
    """Why a permit is not live here and now; None while it is."""
    found = standing(core, snapshot, permit, permit_version)
    return Code.PERMIT_MISSING if found is None else found.ended(core)


def run_ended(core: Core, snapshot: Reads, run: str, permit: str, permit_version: int) -> Code | None:
    """Why nothing of a run may leave here and now: its order is over, or the permit that it is under, or its data are
    protected; None while it may."""
    order, found = snapshot.run_order(run), standing(core, snapshot, permit, permit_version)
    if order is None or found is None:
        return Code.PERMIT_MISSING
    found = replace(found, order_expires=order.expires, order_before=snapshot.ordered_before(run))
    return found.ended(core) or found.exposes(snapshot, snapshot.datasets_of(run))
