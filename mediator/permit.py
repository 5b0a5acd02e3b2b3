"""Permits are code: opening the signed documents, and compiling a permit to what one node enforces.

Three signatures make a run: the Access Committee's permit, the hospital's acceptance of exactly that permit, and
a named person's run order. `compile_permit` binds the first two into an `EnforcedPermit`; gate 1 adds the third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from mediator import canonical
from mediator.errors import Code, Denied, Malformed, Reason, UnsupportedVersion
from mediator.revocations import Revocations
from mediator.signatures import KeyRing, Signed, VerifyKey, open_signed
from mediator.sizes import check_sizes
from mediator.types import (
    CLOCK_TOLERANCE,
    Acceptance,
    DataPermit,
    Kind,
    MetricSpec,
    RevocationList,
    RevocationListV2,
    RunOrder,
    SiteDatasets,
    TensorSpec,
)

# Every condition this node can hold itself to, and what holds it. A permit that asks for anything else is
# refused: a promise that no code keeps is none.
KNOWN_CONDITIONS: Mapping[str, str] = {
    "no-network": "a job's container has no network",
    "aggregates-only": "gate 2 lets out tensors and metrics the permit names, tables that hold its rules, no more",
    "clipped-updates": "gate 2 bounds the norm of every update",
    "small-counts-suppressed": "gate 2 refuses a count below the permit's threshold",
    "split-by-patient": "no patient stands in two splits, and evaluation studies are not mounted for training",
    "delete-work-at-expiry": "jobs stop and work areas are deleted at expiry and revocation",
    "differential-privacy": "gate 2 adds noise and the ledger adds up epsilon; needs a privacy budget",
}
_NEEDS_PRIVACY = "differential-privacy"


@dataclass(frozen=True)
class EnforcedPermit:
    """A permit as one hospital enforces it: the committee's grant, and what the hospital's acceptance narrowed of it.

    `sha256` is the hash of the grant. Whatever is asked for is read from `terms`, so a field that a permit gains is
    enforced without a line here.
    """

    granted: DataPermit
    sha256: str
    accepted: Acceptance

    @property
    def site(self) -> str:
        return self.accepted.site

    @cached_property
    def terms(self) -> DataPermit:
        """The grant with every limit that the acceptance narrowed in its place, and this site's data alone.

        `tensors` stand in the permit's own order, which is the order in which a job is given them and in which they
        leave; `expires` is the earlier of permit and acceptance. A permit ends after it begins: an acceptance that is
        over before leaves an instant, in which nothing is live (`check_live`).
        """
        granted, accepted = self.granted, self.accepted
        versions = granted.versions_of(self.site) if accepted.versions is None else accepted.versions
        return replace(
            granted,
            expires=max(min(granted.expires, accepted.expires), granted.not_before + timedelta.resolution),
            maximum_rounds=_narrower(granted.maximum_rounds, accepted.maximum_rounds),
            byte_budget=_narrower(granted.byte_budget, accepted.byte_budget),
            datasets=(SiteDatasets(self.site, versions),),
        )

    @property
    def versions(self) -> frozenset[str]:
        """The dataset versions of this site."""
        return frozenset(self.terms.versions_of(self.site))

    @cached_property
    def persons(self) -> KeyRing:
        """The keys that may sign run orders."""
        return person_keys(self.granted)

    @property
    def tensor_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.terms.tensors)

    def metrics_of(self, kind: Kind) -> tuple[MetricSpec, ...]:
        """The metrics a task of this kind must return; none where the permit lists none."""
        return self.terms.metrics.get(kind.value, ())


def schema_sha256(tensors: Iterable[TensorSpec]) -> str:
    """Hex SHA-256 of a tensor schema's canonical JSON, sorted by name: what a run order binds itself to.

    Names, shapes and types, in whatever order they come. The order that counts is the permit's, which a run order
    binds itself to by id and version.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    return hashlib.sha256(canonical.dumps(canonical.to_plain(ordered))).hexdigest()


def person_keys(permit: DataPermit) -> KeyRing:
    """The keys of the persons a permit names."""
    return KeyRing(VerifyKey.from_text(person.public_key) for person in permit.persons)


def open_permit(text: str, committee: KeyRing) -> Signed[DataPermit]:
    """A data permit, signed by a committee key that is the issuer it names. Raises `Malformed` or `Denied`."""
    signed = open_signed(DataPermit, text, committee)
    if signed.document.issuer != signed.key_id:
        raise Denied(Reason(Code.UNTRUSTED_KEY, "the permit names another issuer than the key that signed it"))
    return signed


def open_known_permits(texts: Iterable[str], committee: KeyRing) -> list[DataPermit]:
    """Those of the permits that still open. One that does not, because an earlier version signed it or its key is no
    longer trusted, grants nobody anything, and keeps nothing from being granted under another."""
    opened = []
    for text in texts:
        try:
            opened.append(open_permit(text, committee).document)
        except (Malformed, Denied):
            continue
    return opened


def open_acceptance(text: str, stewards: KeyRing) -> Signed[Acceptance]:
    """A hospital's acceptance, signed by one of its stewards. Raises `Malformed` or `Denied`."""
    return open_signed(Acceptance, text, stewards)


def open_revocations(text: str, committee: KeyRing) -> Signed[RevocationList]:
    """A revocation list of either version, signed by a committee key. Raises `Malformed` or `Denied`."""
    try:
        return open_signed(RevocationListV2, text, committee)
    except UnsupportedVersion:
        return open_signed(RevocationList, text, committee)


def open_run_order(text: str, permits: Iterable[DataPermit]) -> Signed[RunOrder]:
    """A run order under one of `permits`, signed by a person that this very permit names.

    Raises `Malformed`, or `Denied`: `untrusted_key` when no permit names the key, `permit_missing` when the
    order is for another permit, `person_not_named` when its key is named, but in a different permit.
    """
    known = list(permits)
    everybody = KeyRing(key for permit in known for key in person_keys(permit).values())
    signed = open_signed(RunOrder, text, everybody)
    order = signed.document
    for permit in known:
        if (permit.permit, permit.permit_version) == (order.permit, order.permit_version):
            if signed.key_id not in person_keys(permit):
                raise Denied(Reason(Code.PERSON_NOT_NAMED, "the permit does not name the key of this run order"))
            return signed
    raise Denied(Reason(Code.PERMIT_MISSING, "no permit of this id and version"))


def compile_permit(permit: Signed[DataPermit], acceptance: Signed[Acceptance]) -> EnforcedPermit:
    """What the accepting hospital's node enforces. Raises `Denied` with every reason.

    1. The acceptance is for exactly this permit: id, version, and hash of its content.
    2. The permit names the site.
    3. The acceptance covers no dataset version that the permit does not.
    4. Every condition is one this node can hold itself to.
    5. Under a privacy budget nothing leaves beside the noised update that a job could choose: every metric, of every
       kind of task, a count too, has one permitted value. (What a job's program writes there may be any function of
       the patients, so noise for it would have to drown the whole range.)
    6. Analyses are granted with their rules, whose threshold is not below the permit's own, and without a privacy
       budget, which no table keeps to.
    7. What its tasks return can be handed over and released (`check_sizes`).
    """
    granted, accepted = permit.document, acceptance.document
    named = (accepted.permit, accepted.permit_version, accepted.permit_sha256)
    if named != (granted.permit, granted.permit_version, permit.sha256):  # (1)
        raise Denied(Reason(Code.PERMIT_NOT_ACCEPTED, "the acceptance is for another permit, version or content"))
    reasons = []
    if all(entry.site != accepted.site for entry in granted.datasets):  # (2)
        reasons.append(Reason(Code.SITE_NOT_NAMED, "the permit does not name this site"))
    if not set(accepted.versions or ()).issubset(granted.versions_of(accepted.site)):  # (3)
        reasons.append(Reason(Code.DATASET_NOT_PERMITTED, "the acceptance covers a version the permit does not"))
    reasons += unenforceable(granted)  # (4), (5), (6), (7)
    if reasons:
        raise Denied(reasons)
    return EnforcedPermit(granted, permit.sha256, accepted)


def unenforceable(permit: DataPermit) -> list[Reason]:
    """What a permit asks for that this node cannot hold itself to; empty when there is nothing."""
    reasons = [
        Reason(Code.CONDITION_UNENFORCEABLE, f"condition number {number} is not one this node knows")
        for number, condition in enumerate(permit.conditions, 1)
        if condition not in KNOWN_CONDITIONS
    ]
    if permit.privacy is None and _NEEDS_PRIVACY in permit.conditions:
        reasons.append(Reason(Code.CONDITION_UNENFORCEABLE, f"{_NEEDS_PRIVACY} without a privacy budget"))
    if permit.privacy is not None:
        reasons += _unprotected(permit.metrics)
    return reasons + check_sizes(permit) + _analysis_unenforceable(permit)


def _unprotected(metrics: Mapping[str, tuple[MetricSpec, ...]]) -> list[Reason]:
    chosen = [(kind, spec) for kind, specs in sorted(metrics.items()) for spec in specs if spec.fixed is None]
    cure = "leave it out, or give it one value: minimum = maximum, for num-examples 1, so that sites weigh the same"
    return [
        Reason(Code.METRIC_UNPROTECTED, f"a privacy budget, but {spec.name} of {kind} would leave exact: {cure}")
        for kind, spec in chosen
    ]


def _analysis_unenforceable(permit: DataPermit) -> list[Reason]:
    rules, code = permit.analysis, Code.CONDITION_UNENFORCEABLE
    if (Kind.ANALYSE in permit.kinds) is not (rules is not None):
        return [Reason(code, "analyses without rules, or rules without analyses")]
    reasons = []
    if rules is not None and rules.threshold < permit.count_threshold:
        reasons.append(Reason(code, "tables may not have smaller counts than metrics"))
    if rules is not None and permit.privacy is not None:
        reasons.append(Reason(code, "a privacy budget, but tables would leave exact"))
    if permit.metrics.get(Kind.ANALYSE.value):
        reasons.append(Reason(code, "an analysis has tables and no metrics"))
    return reasons


def check_live(
    permit: DataPermit,
    acceptance: Acceptance,
    revocations: Revocations | None,
    *,
    siblings: Iterable[DataPermit],
    highest_revocation: int,
    max_revocation_age: timedelta,
    newest_audit: datetime | None,
    now: datetime,
) -> tuple[Reason, ...]:
    """Why a permit is not live at `now`; empty while it is. Asked at gate 1 and again while jobs run.

    `siblings` are the permits of the same id that the node knows, `highest_revocation` the highest list number
    it has ever seen, `newest_audit` the newest time in its audit log.

    1. The clock has not gone back behind the audit log, nor behind the revocation list.
    2. not before ≤ now < expiry, of permit and acceptance.
    3. No version in force supersedes this one.
    4. A revocation list is present, not older than one seen before, not older than `max_revocation_age`.
    5. Neither it nor one before it has revoked the permit.
    """
    reasons = []
    if newest_audit is not None and now < newest_audit - CLOCK_TOLERANCE:  # (1)
        reasons.append(Reason(Code.CLOCK_WENT_BACK, "now is before the newest audit record"))
    reasons += _dates(permit, now)  # (2)
    if now >= acceptance.expires:
        reasons.append(Reason(Code.ACCEPTANCE_EXPIRED, f"expired {canonical.print_time(acceptance.expires)}"))
    reasons += _replaced(permit, siblings, now)  # (3)
    if revocations is None:  # (4)
        return (*reasons, Reason(Code.REVOCATION_LIST_MISSING))
    if revocations.number < highest_revocation:
        reasons.append(Reason(Code.REVOCATION_LIST_ROLLED_BACK, f"number {highest_revocation} has been seen"))
    if now - revocations.issued > max_revocation_age:
        reasons.append(Reason(Code.REVOCATION_LIST_STALE, f"issued {canonical.print_time(revocations.issued)}"))
    if revocations.issued > now + CLOCK_TOLERANCE:  # (1) a list from the future would stay fresh for too long
        reasons.append(Reason(Code.CLOCK_WENT_BACK, "now is before the revocation list was issued"))
    return (*reasons, *_revoked(permit, revocations))  # (5)


def check_granted(
    permit: DataPermit, revocations: Revocations | None, *, siblings: Iterable[DataPermit], now: datetime
) -> tuple[Reason, ...]:
    """Why no hospital would find a permit live at `now`, as far as that is known without one; empty otherwise.

    The part of `check_live` that rests on the committee's documents alone: a hub asks it before it sends anybody
    anything. It is no permission: whether a list is recent, and what a hospital has accepted, each node asks itself.

    1. Not before ≤ now < expiry.
    2. No version in force supersedes this one.
    3. No revocation list has revoked it.
    """
    withdrawn = _revoked(permit, revocations) if revocations is not None else ()
    return (*_dates(permit, now), *_replaced(permit, siblings, now), *withdrawn)


def _dates(permit: DataPermit, now: datetime) -> list[Reason]:
    if now < permit.not_before:
        return [Reason(Code.PERMIT_NOT_YET_VALID, f"valid from {canonical.print_time(permit.not_before)}")]
    if now >= permit.expires:
        return [Reason(Code.PERMIT_EXPIRED, f"expired {canonical.print_time(permit.expires)}")]
    return []


def _replaced(permit: DataPermit, siblings: Iterable[DataPermit], now: datetime) -> list[Reason]:
    if any(_supersedes(other, permit, now) for other in siblings):
        return [Reason(Code.PERMIT_SUPERSEDED, "a later version is in force")]
    return []


def _revoked(permit: DataPermit, revocations: Revocations) -> list[Reason]:
    if permit.permit in revocations.permits:
        return [Reason(Code.PERMIT_REVOKED, f"by revocation list {revocations.number}")]
    return []


def _supersedes(other: DataPermit, permit: DataPermit, now: datetime) -> bool:
    replaces = other.permit == permit.permit and (other.supersedes or 0) >= permit.permit_version
    return replaces and other.not_before <= now


def _narrower(granted: int, accepted: int | None) -> int:
    return granted if accepted is None else min(granted, accepted)
