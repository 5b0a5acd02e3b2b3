from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from mediator.admission import (
    AdmissionRequest,
    Admitted,
    Charge,
    NodeFacts,
    Redeliver,
    admit,
    check_model,
    container_spec,
)
from mediator.errors import Code, Denied, HubCode
from mediator.ledger import MAXIMUM_ATTEMPTS, Ledger, PriorRelease, Spending
from mediator.policy import Policy
from mediator.signatures import KeyRing, open_signed
from mediator.sizes import reserve_bytes
from mediator.terms import MAX_CONFIG_BYTES, check_config
from mediator.types import CLOCK_TOLERANCE, Kind, RunOrder, SiteDatasets
from tests.mediator.samples import (
    DATASET,
    DAY,
    FACTS,
    IMAGE,
    MODEL,
    NOW,
    OTHER_IMAGE,
    OTHER_VERSION,
    POLICY,
    PRIVATE,
    RESOURCES,
    SITE,
    STRANGER,
    TENSORS,
    VERSION,
    model,
    order,
    permit,
    request,
    revoked,
)

MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()
SECOND = timedelta(seconds=1)


def _refused(asked: AdmissionRequest) -> list[Code]:
    with pytest.raises(Denied) as caught:
        admit(asked)
    return [reason.code for reason in caught.value.reasons]


def _admitted(asked: AdmissionRequest) -> Admitted:
    verdict = admit(asked)
    assert isinstance(verdict, Admitted)
    return verdict


# --- what passes ----------------------------------------------------------------------------------------------


def test_a_valid_task_is_admitted_with_its_charge() -> None:
    verdict = _admitted(request())
    size = reserve_bytes(TENSORS, Kind.TRAIN)
    assert verdict.charge == Charge("run-1", 1, Kind.TRAIN, size, "images", None)
    assert (verdict.byte_limit, verdict.dataset_version, verdict.split) == (size, VERSION, "train")
    assert verdict.expires == NOW + 10 * DAY  # the run order ends first
    assert (verdict.dataset_version, verdict.order.image, verdict.split) == (VERSION, IMAGE, "train")


def test_an_evaluation_looks_at_the_other_split() -> None:
    verdict = _admitted(request(instruct={"task": Kind.EVALUATE, "round": 0}))
    assert verdict.split == "test"
    assert verdict.split != _admitted(request()).split
    assert verdict.byte_limit == reserve_bytes(TENSORS, Kind.EVALUATE)


def test_the_container_is_a_pure_function_of_the_verdict() -> None:
    verdict = _admitted(request())
    spec = container_spec(verdict, "job-1", "/work/job-1/data", "/work/job-1/in", NOW)
    assert spec == container_spec(_admitted(request()), "job-1", "/work/job-1/data", "/work/job-1/in", NOW)
    assert (spec.image, spec.resources, spec.purpose, spec.expires) == (IMAGE, RESOURCES, "job", verdict.expires)


# --- nothing, and next to nothing -----------------------------------------------------------------------------


def test_without_documents_nothing_runs() -> None:
    bare = request(permit=None, acceptance=None, order=None, revocations=None, policy=Policy())
    assert _refused(bare) == [
        Code.HOSPITAL_PAUSED, Code.PERMIT_MISSING, Code.PERMIT_NOT_ACCEPTED, Code.RUN_ORDER_MISSING
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("permit", Code.PERMIT_MISSING),
        ("acceptance", Code.PERMIT_NOT_ACCEPTED),
        ("order", Code.RUN_ORDER_MISSING),
        ("revocations", Code.REVOCATION_LIST_MISSING),
    ],
)
def test_each_document_is_needed(missing: str, code: Code) -> None:
    assert _refused(request(**{missing: None})) == [code]


def test_an_empty_policy_denies_everything() -> None:
    assert _refused(request(policy=Policy())) == [
        Code.HOSPITAL_PAUSED, Code.KIND_NOT_PERMITTED, Code.IMAGE_NOT_APPROVED, Code.RESOURCES_EXCEEDED,
        Code.REVOCATION_LIST_STALE,
    ]  # fmt: skip


def test_a_paused_hospital_says_so_first() -> None:
    asked = request(instruct={"site": "hospital-b"}, policy=replace(POLICY, paused=True))
    with pytest.raises(Denied) as caught:
        admit(asked)
    assert caught.value.hub_code is HubCode.PAUSED


# --- permit and run order ---------------------------------------------------------------------------------------


def test_an_expired_permit() -> None:
    assert Code.PERMIT_EXPIRED in _refused(request(grant={"expires": NOW}))


@pytest.mark.parametrize(
    ("begins", "code"), [(NOW - DAY, Code.ACCEPTANCE_EXPIRED), (NOW + DAY, Code.PERMIT_NOT_YET_VALID)]
)
def test_an_acceptance_that_is_over_before_the_permit_begins_is_never_live(begins: datetime, code: Code) -> None:
    asked = request(grant={"not_before": begins}, accept={"expires": begins})
    assert _refused(asked) == [code]
    later = replace(asked, now=begins + timedelta(microseconds=1))
    assert Code.ACCEPTANCE_EXPIRED in _refused(later)


def test_a_revoked_permit() -> None:
    listed = revoked(permits=("lesions-2026",))
    assert _refused(request(revocations=listed)) == [Code.PERMIT_REVOKED]


def test_a_superseded_permit() -> None:
    newer = permit(permit_version=3, supersedes=2)
    assert _refused(request(facts=replace(FACTS, siblings=(permit(), newer)))) == [Code.PERMIT_SUPERSEDED]


def test_a_run_order_opened_with_the_wrong_ring_is_still_refused() -> None:
    # the use case's mistake, not the researcher's: gate 1 asks again who signed
    forged = open_signed(RunOrder, STRANGER.sign(order()), KeyRing([STRANGER.verify_key]))
    assert _refused(request(order=forged)) == [Code.PERSON_NOT_NAMED]


def test_a_run_order_of_another_permit() -> None:
    other = open_signed(RunOrder, STRANGER.sign(order(permit_version=1)), KeyRing([STRANGER.verify_key]))
    assert _refused(request(order=other)) == [Code.PERSON_NOT_NAMED, Code.RUN_ORDER_MISMATCH]


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"schema_sha256": "0" * 64}, [Code.RUN_ORDER_MISMATCH]),
        ({"sites": ("hospital-b",)}, [Code.SITE_NOT_NAMED]),
        ({"sites": ()}, [Code.SITE_NOT_NAMED]),
        ({"image": OTHER_IMAGE}, [Code.IMAGE_NOT_PERMITTED]),
        ({"image": "sha256:" + "9" * 64}, [Code.IMAGE_NOT_APPROVED, Code.IMAGE_NOT_PERMITTED]),
        ({"rounds": 4}, [Code.ROUNDS_EXHAUSTED]),
        ({"expires": NOW}, [Code.RUN_ORDER_EXPIRED]),
        ({"config": {"epochs": 2, "learning-rate": 0.1}}, [Code.RUN_ORDER_MISMATCH]),
        ({"config": {"epochs": 99}}, [Code.CONFIG_NOT_PERMITTED, Code.RUN_ORDER_MISMATCH]),
    ],
)
def test_a_run_order_that_does_not_fit(change: dict[str, Any], codes: list[Code]) -> None:
    assert _refused(request(ask=change)) == codes


# --- the instruction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"site": "hospital-b"}, [Code.INSTRUCTION_MISADDRESSED]),
        ({"run": "run-2"}, [Code.INSTRUCTION_MISADDRESSED]),
        ({"permit": "other"}, [Code.INSTRUCTION_MISADDRESSED]),
        ({"permit_version": 1}, [Code.INSTRUCTION_MISADDRESSED]),
        ({"expires": NOW}, [Code.INSTRUCTION_EXPIRED]),
        ({"issued": NOW + CLOCK_TOLERANCE + SECOND}, [Code.CLOCK_WENT_BACK]),
        ({"round": 4}, [Code.ROUND_OUT_OF_RANGE]),
        ({"round": 0}, [Code.ROUND_OUT_OF_RANGE]),
        ({"config": {}}, [Code.RUN_ORDER_MISMATCH]),
        ({"config": {"epochs": True, "learning-rate": 0.1}}, [Code.CONFIG_NOT_PERMITTED, Code.RUN_ORDER_MISMATCH]),
        ({"config": {"epochs": 2, "learning-rate": 0.1}}, [Code.RUN_ORDER_MISMATCH]),
        ({"model_sha256": "0" * 64}, [Code.MODEL_MISMATCH]),
    ],
)
def test_an_instruction_that_does_not_fit(change: dict[str, Any], codes: list[Code]) -> None:
    assert _refused(request(instruct=change)) == codes


def test_a_strategy_may_add_what_the_permit_allows_and_nothing_else() -> None:
    base = {"epochs": 1, "learning-rate": 0.1}
    assert _admitted(request(instruct={"config": base | {"optimiser": "adam"}}))
    assert _refused(request(instruct={"config": base | {"code": "import os"}})) == [Code.CONFIG_NOT_PERMITTED]


def test_a_kind_the_permit_does_not_allow() -> None:
    assert _refused(request(grant={"kinds": (Kind.EVALUATE,)})) == [Code.KIND_NOT_PERMITTED]


def test_a_model_with_an_extra_tensor_does_not_come_in() -> None:
    smuggled = MODEL + b"bytes behind"
    asked = request(instruct={"model_sha256": hashlib.sha256(smuggled).hexdigest()}, model=smuggled)
    assert _refused(asked) == [Code.MODEL_NOT_PERMITTED]
    with pytest.raises(Denied) as caught:
        admit(asked)
    assert caught.value.hub_code is HubCode.REFUSED_INSTRUCTION


def test_a_model_exchanged_on_the_way() -> None:
    assert check_model(MODEL, MODEL_SHA256, TENSORS) == []
    assert [reason.code for reason in check_model(model(2.0), MODEL_SHA256, TENSORS)] == [Code.MODEL_MISMATCH]


# --- replay and redelivery --------------------------------------------------------------------------------------

SERVED = Ledger(
    rounds_charged=frozenset({("run-1", 1)}),
    bytes_charged=1 << 20,
    dataset_version=VERSION,
    task_charged=True,
    last_attempt=1,
    release=PriorRelease("release-1", MODEL_SHA256),
)


def test_a_replayed_instruction_is_refused() -> None:
    assert _refused(request(ledger=SERVED)) == [Code.INSTRUCTION_REPLAYED]
    assert _refused(request(ledger=replace(SERVED, release=None))) == [Code.INSTRUCTION_REPLAYED]


def test_an_older_attempt_that_was_held_back_is_a_replay_too() -> None:
    assert _refused(request(instruct={"attempt": 2}, ledger=replace(SERVED, last_attempt=3))) == [
        Code.INSTRUCTION_REPLAYED
    ]


def test_a_newer_attempt_with_the_same_model_gets_the_same_release() -> None:
    verdict = admit(request(instruct={"attempt": 2}, ledger=SERVED))
    assert isinstance(verdict, Redeliver)
    assert (verdict.release, verdict.instruction.attempt) == ("release-1", 2)


def test_a_second_answer_to_another_model_in_the_same_round_is_refused() -> None:
    other = model(2.0)
    asked = request(
        instruct={"attempt": 2, "model_sha256": hashlib.sha256(other).hexdigest()}, model=other, ledger=SERVED
    )
    assert _refused(asked) == [Code.ROUND_ALREADY_SERVED]


def test_redelivery_asks_the_permit_again() -> None:
    listed = revoked(permits=("lesions-2026",))
    assert _refused(request(instruct={"attempt": 2}, ledger=SERVED, revocations=listed)) == [Code.PERMIT_REVOKED]
    assert _refused(request(instruct={"attempt": 2}, ledger=SERVED, policy=replace(POLICY, paused=True))) == [
        Code.HOSPITAL_PAUSED
    ]


def test_a_job_that_broke_off_runs_again_and_is_not_charged_again() -> None:
    exhausted = replace(SERVED, release=None, rounds_charged=frozenset({("run-1", 1), ("run-1", 2), ("run-1", 3)}))
    verdict = _admitted(request(instruct={"attempt": 2}, ledger=exhausted))
    assert verdict.charge is None
    assert verdict.byte_limit == reserve_bytes(TENSORS, Kind.TRAIN)


# --- data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datasets", "code"),
    [
        ((), Code.DATASET_NOT_PERMITTED),
        ((replace(DATASET, version=OTHER_VERSION),), Code.DATASET_NOT_PERMITTED),
        ((replace(DATASET, project="other"),), Code.DATASET_NOT_PERMITTED),
        ((replace(DATASET, withdrawn=True),), Code.DATASET_MISSING),
        ((replace(DATASET, train_studies=9),), Code.TOO_FEW_STUDIES),
    ],
)
def test_data_that_may_not_be_used(datasets: tuple[Any, ...], code: Code) -> None:
    assert _refused(request(facts=replace(FACTS, datasets=datasets))) == [code]


def test_the_number_of_studies_is_that_of_the_split() -> None:
    facts = replace(FACTS, datasets=(replace(DATASET, test_studies=9),))
    assert _admitted(request(facts=facts))
    assert _refused(request(facts=facts, instruct={"task": Kind.EVALUATE})) == [Code.TOO_FEW_STUDIES]


TWO = {"datasets": (SiteDatasets(SITE, (VERSION, OTHER_VERSION)),)}
NEWER = replace(DATASET, version=OTHER_VERSION, published=NOW)


def test_a_run_begins_with_the_newest_version_and_stays_with_it() -> None:
    facts = replace(FACTS, datasets=(NEWER, DATASET))
    assert _admitted(request(grant=TWO, facts=facts)).dataset_version == OTHER_VERSION
    begun = Ledger(dataset_version=VERSION)
    assert _admitted(request(grant=TWO, facts=facts, ledger=begun)).dataset_version == VERSION
    withdrawn = replace(FACTS, datasets=(NEWER, replace(DATASET, withdrawn=True)))
    assert _refused(request(grant=TWO, facts=withdrawn, ledger=begun)) == [Code.DATASET_MISSING]


def test_a_version_the_hospital_did_not_accept_is_not_used() -> None:
    facts = replace(FACTS, datasets=(NEWER, DATASET))
    assert _admitted(request(grant=TWO, accept={"versions": (VERSION,)}, facts=facts)).dataset_version == VERSION
    assert _refused(request(accept={"versions": ()})) == [Code.DATASET_NOT_PERMITTED]


# --- the ledger -------------------------------------------------------------------------------------------------


def _rounds(*pairs: tuple[str, int]) -> Ledger:
    return Ledger(rounds_charged=frozenset(pairs))


def test_rounds_are_counted_over_all_runs_of_a_permit() -> None:
    assert _admitted(request(ledger=_rounds(("run-0", 1), ("run-0", 2))))
    assert _refused(request(ledger=_rounds(("run-0", 1), ("run-0", 2), ("run-0", 3)))) == [Code.ROUNDS_EXHAUSTED]


def test_training_and_evaluation_of_one_round_are_one_round() -> None:
    full = _rounds(("run-1", 1), ("run-1", 2), ("run-1", 3))
    assert _admitted(request(instruct={"task": Kind.EVALUATE, "round": 3}, ledger=full)).charge


def test_first_looks_cost_no_training_round_and_are_limited_too() -> None:
    look = {"task": Kind.EVALUATE, "round": 0}
    assert _admitted(request(instruct=look, ledger=_rounds(("run-1", 1), ("run-1", 2), ("run-1", 3))))
    assert _admitted(request(ledger=_rounds(("a", 0), ("b", 0), ("c", 0))))
    assert _refused(request(instruct=look, ledger=_rounds(("a", 0), ("b", 0), ("c", 0)))) == [Code.ROUNDS_EXHAUSTED]


def test_a_hospital_may_grant_fewer_rounds() -> None:
    assert _refused(request(accept={"maximum_rounds": 2})) == [Code.ROUNDS_EXHAUSTED]
    assert _refused(request(accept={"maximum_rounds": 0}, ask={"rounds": 1})) == [Code.ROUNDS_EXHAUSTED] * 2


def test_bytes_are_charged_before_the_job() -> None:
    left = (1 << 20) - reserve_bytes(TENSORS, Kind.TRAIN)
    assert _admitted(request(ledger=Ledger(bytes_charged=left)))
    assert _refused(request(ledger=Ledger(bytes_charged=left + 1))) == [Code.BYTES_EXHAUSTED]
    assert _refused(request(accept={"byte_budget": 0})) == [Code.BYTES_EXHAUSTED]


def _spent(under_permit: float | None, under_all: float | None, had_budget: bool = True) -> NodeFacts:
    return replace(FACTS, datasets=(replace(DATASET, spending=Spending(under_permit, under_all, had_budget)),))


@pytest.mark.parametrize("spent", [8.0, 8.01, None, math.nan])
def test_epsilon_of_a_permit_that_is_spent_or_not_accounted(spent: float | None) -> None:
    asked = request(grant=PRIVATE, facts=_spent(spent, 0.0))
    if spent == 8.0:
        assert _admitted(asked).charge == Charge(
            "run-1", 1, Kind.TRAIN, reserve_bytes(TENSORS, Kind.TRAIN), "images", 1.0
        )
    else:
        assert _refused(asked) == [Code.EPSILON_EXHAUSTED]


@pytest.mark.parametrize("spent", [10.0, 10.01, None, math.inf])
def test_epsilon_of_all_permits_together_is_held_to_the_hospitals_total(spent: float | None) -> None:
    asked = request(grant=PRIVATE, facts=_spent(1.0, spent))
    assert bool(spent == 10.0 and _admitted(asked)) or _refused(asked) == [Code.EPSILON_EXHAUSTED]
    assert _refused(replace(asked, policy=replace(POLICY, epsilon_total=0.0))) == [Code.EPSILON_EXHAUSTED]


def test_what_leaves_no_noised_output_spends_no_epsilon() -> None:
    asked = request(grant=PRIVATE, instruct={"task": Kind.EVALUATE}, facts=_spent(None, None))
    charge = _admitted(asked).charge
    assert charge is not None and charge.noise_multiplier is None


def test_a_task_charged_before_is_not_asked_for_epsilon_again() -> None:
    charged = Ledger(task_charged=True, last_attempt=1)
    assert _admitted(request(grant=PRIVATE, instruct={"attempt": 2}, ledger=charged, facts=_spent(99.0, 99.0)))


def test_exact_values_of_a_dataset_with_a_budget_do_not_leave_unless_the_steward_said_so() -> None:
    for kind in (Kind.TRAIN, Kind.EVALUATE):
        asked = request(instruct={"task": kind}, facts=_spent(None, None))
        assert _refused(asked) == [Code.DATASET_PROTECTED]
        assert _admitted(request(instruct={"task": kind}, accept={"unprotected": True}, facts=_spent(None, None)))
    begun = Ledger(task_charged=True, last_attempt=1)
    assert _refused(request(instruct={"attempt": 2}, ledger=begun, facts=_spent(None, None))) == [
        Code.DATASET_PROTECTED
    ]


def test_a_task_that_reached_a_container_three_times_is_over() -> None:
    for started in range(MAXIMUM_ATTEMPTS + 2):
        ledger = Ledger(task_charged=True, last_attempt=started, attempts_started=started)
        asked = request(instruct={"attempt": started + 1}, ledger=ledger)
        if started < MAXIMUM_ATTEMPTS:
            assert _admitted(asked)
        else:
            with pytest.raises(Denied) as caught:
                admit(asked)
            assert caught.value.reasons[0].code is Code.ATTEMPTS_EXHAUSTED
            assert caught.value.hub_code is HubCode.REFUSED_BUDGET
    released = replace(SERVED, last_attempt=3, attempts_started=3)
    assert isinstance(admit(request(instruct={"attempt": 4}, ledger=released)), Redeliver)


def test_resources_beyond_the_hospitals_ceiling() -> None:
    assert _refused(request(grant={"resources": replace(RESOURCES, gpus=1)})) == [Code.RESOURCES_EXCEEDED]


def test_every_reason_is_told_at_once() -> None:
    asked = request(
        grant={"expires": NOW},
        instruct={"site": "hospital-b", "expires": NOW, "round": 9},
        policy=replace(POLICY, images=frozenset()),
        ledger=Ledger(bytes_charged=1 << 40, last_attempt=7),
    )
    assert _refused(asked) == [
        Code.IMAGE_NOT_APPROVED, Code.PERMIT_EXPIRED, Code.INSTRUCTION_MISADDRESSED, Code.INSTRUCTION_EXPIRED,
        Code.ROUND_OUT_OF_RANGE, Code.INSTRUCTION_REPLAYED, Code.BYTES_EXHAUSTED,
    ]  # fmt: skip


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"epochs": 1},
        {"epochs": 5},
        {"learning-rate": 0.5},
        {"learning-rate": 1},
        {"augment": False},
        {"optimiser": "sgd"},
    ],
)
def test_a_permitted_configuration(config: dict[str, Any]) -> None:
    assert check_config(permit().config, config) == []


@pytest.mark.parametrize(
    "config",
    [
        {"epochs": 0},
        {"epochs": 6},
        {"epochs": 1.0},
        {"epochs": 1.5},
        {"epochs": True},
        {"epochs": "1"},
        {"epochs": None},
        {"learning-rate": 1.01},
        {"learning-rate": math.nan},
        {"learning-rate": math.inf},
        {"learning-rate": False},
        {"augment": 1},
        {"augment": "true"},
        {"optimiser": "lbfgs"},
        {"optimiser": ["sgd"]},
        {"optimiser": "sgd "},
        {"epochs": {"a": 1}},
        {"code": "import os"},
        {"": 1},
        {"epochs": b"1"},
        {"epochs": 1 << 60},
    ],
)
def test_a_configuration_that_could_carry_code(config: dict[str, Any]) -> None:
    assert {reason.code for reason in check_config(permit().config, config)} == {Code.CONFIG_NOT_PERMITTED}


def test_a_configuration_has_a_size() -> None:
    reasons = check_config(permit().config, {"optimiser": "x" * MAX_CONFIG_BYTES})
    assert [reason.detail for reason in reasons] == [f"over {MAX_CONFIG_BYTES} bytes"]


# --- a node that was restored from a backup -------------------------------------------------------------------


def _facts(**changes: Any) -> NodeFacts:
    return replace(FACTS, **changes)


def test_a_node_whose_log_was_set_back_admits_nothing() -> None:
    assert _refused(request(facts=_facts(set_back=True)))[0] is Code.LOG_SET_BACK
    # whatever else is missing: the hub hears that the node is not ready
    bare = request(facts=_facts(set_back=True), acceptance=None, order=None)
    assert _refused(bare)[0] is Code.LOG_SET_BACK


def test_an_instruction_from_before_the_epoch_is_refused_whatever_it_says() -> None:
    issued = NOW - timedelta(seconds=5)
    assert _refused(request(facts=_facts(opened=issued + SECOND))) == [Code.EPOCH_OVER]
    _admitted(request(facts=_facts(opened=issued)))


def test_a_run_that_was_ordered_before_the_epoch_has_ended() -> None:
    assert _refused(request(facts=_facts(opened=NOW - DAY, ordered_before=True))) == [Code.EPOCH_OVER]
    # not even what was released before is delivered again: this node cannot know that it was
    released = Ledger(release=PriorRelease("run-1/1/train/1", MODEL_SHA256))
    again = request(facts=_facts(opened=NOW - DAY, ordered_before=True), ledger=released)
    assert _refused(again) == [Code.EPOCH_OVER]
