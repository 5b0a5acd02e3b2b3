from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from mediator.errors import Code, Denied
from mediator.permit import (
    KNOWN_CONDITIONS,
    check_live,
    compile_permit,
    open_permit,
    open_revocations,
    open_run_order,
    schema_sha256,
)
from mediator.revocations import Revocations
from mediator.signatures import KeyRing
from mediator.terms import ungrantable
from mediator.types import (
    CLOCK_TOLERANCE,
    Acceptance,
    DataPermit,
    Dtype,
    Kind,
    MetricSpec,
    Person,
    RevocationList,
    SiteDatasets,
    TensorSpec,
)
from tests.mediator.samples import (
    COMMITTEE,
    COMMITTEE_RING,
    DAY,
    HUB,
    NOW,
    OTHER_VERSION,
    PRIVACY,
    PRIVATE,
    RESEARCHER,
    SITE,
    STRANGER,
    TENSORS,
    VERSION,
    acceptance,
    enforced,
    order,
    permit,
    revocations,
    signed_permit,
)


def _codes(denied: Denied) -> list[Code]:
    return [reason.code for reason in denied.reasons]


# --- opening --------------------------------------------------------------------------------------------------


def test_a_hub_that_forges_a_permit_with_its_own_key_is_untrusted() -> None:
    with pytest.raises(Denied) as caught:
        open_permit(HUB.sign(permit(issuer=HUB.key_id)), COMMITTEE_RING)
    assert _codes(caught.value) == [Code.UNTRUSTED_KEY]


def test_a_permit_that_names_another_issuer_than_its_signer_is_refused() -> None:
    ring = KeyRing([COMMITTEE.verify_key, STRANGER.verify_key])
    with pytest.raises(Denied) as caught:
        open_permit(STRANGER.sign(permit(issuer=COMMITTEE.key_id)), ring)
    assert _codes(caught.value) == [Code.UNTRUSTED_KEY]


def test_a_revocation_list_by_the_hub_is_untrusted() -> None:
    with pytest.raises(Denied):
        open_revocations(HUB.sign(revocations()), COMMITTEE_RING)
    assert open_revocations(COMMITTEE.sign(revocations()), COMMITTEE_RING).document == revocations()


def test_a_run_order_by_a_person_no_permit_names_is_untrusted() -> None:
    with pytest.raises(Denied) as caught:
        open_run_order(HUB.sign(order()), [permit()])
    assert _codes(caught.value) == [Code.UNTRUSTED_KEY]


def test_a_person_of_one_permit_cannot_order_under_another() -> None:
    other = permit(permit="other", persons=(Person("s", "o", STRANGER.verify_key.text),))
    with pytest.raises(Denied) as caught:
        open_run_order(STRANGER.sign(order()), [permit(), other])
    assert _codes(caught.value) == [Code.PERSON_NOT_NAMED]


def test_a_run_order_without_its_permit_is_refused() -> None:
    with pytest.raises(Denied) as caught:
        open_run_order(RESEARCHER.sign(order(permit_version=3)), [permit()])
    assert _codes(caught.value) == [Code.PERMIT_MISSING]


def test_without_a_permit_nobody_can_order() -> None:
    with pytest.raises(Denied) as caught:
        open_run_order(RESEARCHER.sign(order()), [])
    assert _codes(caught.value) == [Code.UNTRUSTED_KEY]


# --- compiling ------------------------------------------------------------------------------------------------


def test_a_permit_compiles_to_what_its_site_enforces() -> None:
    signed = signed_permit()
    compiled = compile_permit(signed, acceptance(signed))
    assert compiled.site == SITE
    assert compiled.versions == {VERSION}
    assert compiled.sha256 == signed.sha256
    assert list(compiled.persons) == [RESEARCHER.key_id]
    assert compiled.terms.expires == NOW + 20 * DAY  # the acceptance ends first
    assert schema_sha256(compiled.terms.tensors) == schema_sha256(reversed(TENSORS))
    assert compiled.metrics_of(Kind.EVALUATE) == signed.document.metrics["evaluate"]


def test_a_permits_tensors_keep_the_order_in_which_they_were_granted() -> None:
    names = ("w.2", "w.10", "b", "a")
    tensors = tuple(TensorSpec(name, (3,), Dtype.F32) for name in names)
    assert enforced(tensors=tensors).tensor_names == names
    # which a run order is bound to through the permit itself
    assert schema_sha256(enforced(tensors=tensors).terms.tensors) == schema_sha256(tensors[::-1])


def test_an_acceptance_only_narrows() -> None:
    signed = signed_permit(permit(datasets=(SiteDatasets(SITE, (VERSION, OTHER_VERSION)),)))
    narrow = compile_permit(signed, acceptance(signed, maximum_rounds=1, byte_budget=7, versions=(OTHER_VERSION,)))
    assert (narrow.terms.maximum_rounds, narrow.terms.byte_budget) == (1, 7)
    assert narrow.versions == {OTHER_VERSION}
    wide = compile_permit(signed, acceptance(signed, maximum_rounds=99, byte_budget=1 << 40, expires=NOW + 999 * DAY))
    granted = signed.document
    assert (wide.terms.maximum_rounds, wide.terms.byte_budget) == (granted.maximum_rounds, granted.byte_budget)
    assert wide.terms.expires == granted.expires


def test_an_acceptance_of_nothing_covers_nothing() -> None:
    signed = signed_permit()
    assert compile_permit(signed, acceptance(signed, versions=())).versions == frozenset()


@pytest.mark.parametrize("changes", [{"permit": "other"}, {"permit_version": 1}, {"permit_sha256": "0" * 64}])
def test_an_acceptance_of_another_permit_version_or_content_is_none(changes: dict[str, Any]) -> None:
    signed = signed_permit()
    with pytest.raises(Denied) as caught:
        compile_permit(signed, acceptance(signed, **changes))
    assert _codes(caught.value) == [Code.PERMIT_NOT_ACCEPTED]


def test_a_permit_reissued_with_other_content_needs_a_new_acceptance() -> None:
    accepted = acceptance(signed_permit())
    with pytest.raises(Denied) as caught:
        compile_permit(signed_permit(permit(clip_norm=100.0)), accepted)
    assert _codes(caught.value) == [Code.PERMIT_NOT_ACCEPTED]


def test_a_site_the_permit_does_not_name_is_refused() -> None:
    signed = signed_permit()
    with pytest.raises(Denied) as caught:
        compile_permit(signed, acceptance(signed, site="hospital-z", versions=(VERSION,)))
    assert _codes(caught.value) == [Code.SITE_NOT_NAMED, Code.DATASET_NOT_PERMITTED]


def test_a_permit_with_a_condition_this_node_cannot_enforce_is_refused() -> None:
    signed = signed_permit(permit(conditions=("no-network", "be-nice", "differential-privacy")))
    with pytest.raises(Denied) as caught:
        compile_permit(signed, acceptance(signed))
    assert _codes(caught.value) == [Code.CONDITION_UNENFORCEABLE] * 2
    assert "be-nice" not in str(caught.value)


def test_every_known_condition_compiles() -> None:
    signed = signed_permit(permit(conditions=tuple(KNOWN_CONDITIONS), **PRIVATE))
    assert compile_permit(signed, acceptance(signed)).terms.privacy == PRIVACY


@pytest.mark.parametrize(
    "metric",
    [
        MetricSpec("loss", "value", 0.0, 100.0, 4),
        MetricSpec("num-examples", "count", 0, 1e6, 0),
        MetricSpec("n", "count", 10, 11, 0),
        MetricSpec("share", "value", 0.125, 0.125, 2),  # which no release could print
        MetricSpec("n", "count", 1e300, 1e300, 0),
    ],
)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_number_that_a_job_could_choose_is_refused_under_a_privacy_budget(kind: str, metric: MetricSpec) -> None:
    granted = permit(privacy=PRIVACY, metrics={**PRIVATE["metrics"], kind: (metric,)})
    signed = signed_permit(granted)
    for asked in (
        lambda: compile_permit(signed, acceptance(signed)),
        lambda: _signed_by_the_committee(granted),
    ):
        with pytest.raises(Denied) as caught:
            asked()
        assert Code.METRIC_UNPROTECTED in _codes(caught.value)
        assert f"{metric.name} of {kind} would leave exact: leave it out, or give it one value" in str(caught.value)


def _signed_by_the_committee(granted: DataPermit) -> None:
    if reasons := ungrantable(granted, COMMITTEE.key_id, NOW):
        raise Denied(reasons)


# --- living ---------------------------------------------------------------------------------------------------


LISTED = revocations()


def _reasons(
    now: datetime = NOW,
    granted: DataPermit | None = None,
    accepted: Acceptance | None = None,
    listed: RevocationList | None = LISTED,
    **changes: Any,
) -> list[Code]:
    settings: dict[str, Any] = {
        "siblings": [permit()],
        "highest_revocation": 5,
        "max_revocation_age": DAY,
        "newest_audit": NOW - timedelta(seconds=1),
    } | changes
    held = None if listed is None else Revocations(listed.number, listed.issued, frozenset(listed.permits), "")
    reasons = check_live(granted or permit(), accepted or acceptance().document, held, now=now, **settings)
    return [reason.code for reason in reasons]


def test_a_permit_in_force_is_live() -> None:
    assert _reasons() == []


def test_a_permit_lives_from_its_first_instant_until_before_its_last() -> None:
    granted = permit()
    fresh: dict[str, Any] = {"max_revocation_age": 99 * DAY, "newest_audit": None}
    long = replace(acceptance().document, expires=NOW + 99 * DAY)
    just = timedelta(microseconds=1)
    early = revocations(issued=granted.not_before - DAY)
    assert _reasons(granted.not_before, listed=early, **fresh) == []
    assert _reasons(granted.not_before - just, listed=early, **fresh) == [Code.PERMIT_NOT_YET_VALID]
    assert _reasons(granted.expires - just, accepted=long, **fresh) == []
    assert _reasons(granted.expires, accepted=long, **fresh) == [Code.PERMIT_EXPIRED]


def test_an_acceptance_that_ended_ends_the_permit_here() -> None:
    assert _reasons(accepted=replace(acceptance().document, expires=NOW)) == [Code.ACCEPTANCE_EXPIRED]


def test_a_clock_set_back_to_revive_a_permit_is_noticed() -> None:
    assert _reasons(newest_audit=NOW + CLOCK_TOLERANCE) == []
    assert _reasons(newest_audit=NOW + CLOCK_TOLERANCE + timedelta(seconds=1)) == [Code.CLOCK_WENT_BACK]


def test_a_list_from_the_future_does_not_stay_fresh_forever() -> None:
    assert _reasons(listed=revocations(issued=NOW + DAY)) == [Code.CLOCK_WENT_BACK]


def test_a_revoked_permit_is_dead() -> None:
    assert _reasons(listed=revocations(permits=("lesions-2026",))) == [Code.PERMIT_REVOKED]


def test_withholding_the_revocation_list_stops_everything() -> None:
    assert _reasons(listed=None) == [Code.REVOCATION_LIST_MISSING]
    assert _reasons(listed=revocations(issued=NOW - DAY)) == []
    assert _reasons(listed=revocations(issued=NOW - DAY - timedelta(seconds=1))) == [Code.REVOCATION_LIST_STALE]


def test_an_older_revocation_list_does_not_come_back() -> None:
    assert _reasons(listed=revocations(number=4)) == [Code.REVOCATION_LIST_ROLLED_BACK]
    assert _reasons(listed=revocations(number=6)) == []


def test_a_superseded_permit_is_dead_once_its_successor_is_in_force() -> None:
    successor = permit(permit_version=3, supersedes=2, not_before=NOW)
    assert _reasons(siblings=[permit(), successor]) == [Code.PERMIT_SUPERSEDED]
    assert _reasons(siblings=[replace(successor, not_before=NOW + DAY)]) == []
    assert _reasons(siblings=[replace(successor, supersedes=1)]) == []
    assert _reasons(siblings=[replace(successor, permit="other")]) == []


def test_every_reason_is_told_at_once() -> None:
    dead = revocations(number=1, issued=NOW - 9 * DAY, permits=("lesions-2026",))
    assert _reasons(NOW + 99 * DAY, listed=dead) == [
        Code.PERMIT_EXPIRED,
        Code.ACCEPTANCE_EXPIRED,
        Code.REVOCATION_LIST_ROLLED_BACK,
        Code.REVOCATION_LIST_STALE,
        Code.PERMIT_REVOKED,
    ]
