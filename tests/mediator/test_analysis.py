"""Permits that grant analyses, and gate 1 asked about one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mediator import canonical
from mediator.admission import Admitted, admit, container_spec
from mediator.analysis import LabelSpec
from mediator.errors import Code, Denied, Malformed
from mediator.ledger import Ledger, Spending
from mediator.permit import compile_permit
from mediator.types import DataPermit, Kind, MetricSpec, PrivacyBudget
from tests.mediator import samples
from tests.mediator.analyses import GRANT, INSTRUCT, ORDER, RULES


def ask(
    *, grant: dict[str, Any] | None = None, order: dict[str, Any] | None = None,
    instruct: dict[str, Any] | None = None, **changes: Any,
) -> Admitted:  # fmt: skip
    verdict = admit(
        samples.request(
            grant={**GRANT, **(grant or {})}, ask={**ORDER, **(order or {})}, instruct={**INSTRUCT, **(instruct or {})},
            **{"model": b"", **changes},
        )
    )  # fmt: skip
    assert isinstance(verdict, Admitted)
    return verdict


PROTECTED = replace(samples.DATASET, spending=Spending(None, None, had_budget=True))


def codes(**changes: Any) -> set[Code]:
    with pytest.raises(Denied) as denied:
        ask(**changes)
    return {reason.code for reason in denied.value.reasons}


# --- the permit ---------------------------------------------------------------------------------------------


def test_a_permit_from_before_analyses_has_the_form_and_the_hash_it_had() -> None:
    plain = canonical.to_plain(samples.permit())
    assert "analysis" not in plain and canonical.from_plain(DataPermit, plain) == samples.permit()
    with pytest.raises(Malformed):
        canonical.from_plain(DataPermit, {**plain, "analysis": None})


def test_a_permit_with_analyses_comes_back_as_it_was_signed() -> None:
    granted = samples.permit(**GRANT)
    assert samples.signed_permit(granted).document == granted
    assert samples.enforced(**GRANT).terms.analysis == RULES


@pytest.mark.parametrize(
    "change",
    [
        {"analysis": None}, {"kinds": (Kind.TRAIN,)}, {"analysis": replace(RULES, threshold=9)},
        {"privacy": PrivacyBudget(1.0, 1e-5, 1.0)},
        {"metrics": {"analyse": (MetricSpec("auc", "value", 0, 1, 2),)}},
    ],
)  # fmt: skip
def test_a_permit_that_grants_what_cannot_be_enforced_is_refused(change: dict[str, Any]) -> None:
    signed = samples.signed_permit(samples.permit(**{**GRANT, **change}))
    with pytest.raises(Denied) as denied:
        compile_permit(signed, samples.acceptance(signed))
    assert {reason.code for reason in denied.value.reasons} == {Code.CONDITION_UNENFORCEABLE}


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1}, {"files": 0}, {"files": 33}, {"rows": 0}, {"columns": 101}, {"digits": 10}, {"digits": 0},
        {"dominance_n": 0}, {"dominance_k": 100.0}, {"p_percent": 0.0}, {"types": ("csv", "csv")}, {"size_bytes": 0},
        {"labels": (LabelSpec("sex", ("f",)), LabelSpec("sex", ("m",)))},
    ],
)  # fmt: skip
def test_rules_that_hold_nothing_back_cannot_be_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(RULES, **change)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sex", ("f",)), ("sex", ()), ("sex", ("f", "f")), ("sex", ("total",)), ("sex", ("=f",)), ("sex", ("f,m",)),
        ("sex", ("f" * 25,)), ("sex", tuple(str(n) for n in range(51))), ("s" * 30, ("f",)), ("sex", ("a\nb",)),
    ],
)  # fmt: skip
def test_a_label_that_could_carry_text_or_name_people_cannot_be_written(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label"):
        LabelSpec(name, words)


def test_a_hospitals_policy_only_narrows() -> None:
    strict = replace(samples.POLICY, threshold=20, reviewers=2)
    lax = replace(samples.POLICY, threshold=2, reviewers=1)
    assert strict.narrow(RULES) == replace(RULES, threshold=20, reviewers=2)
    assert lax.narrow(replace(RULES, reviewers=2)) == replace(RULES, reviewers=2)
    assert lax.narrow(RULES) == RULES


# --- gate 1 -------------------------------------------------------------------------------------------------


def test_an_analysis_is_admitted_with_its_charge_and_its_split() -> None:
    verdict = ask()
    assert verdict.split == "train" and verdict.byte_limit == RULES.size_bytes
    assert verdict.charge is not None and verdict.charge.size_bytes == RULES.size_bytes
    assert ask(grant={"analysis": replace(RULES, split="test")}).split == "test"
    spec = container_spec(verdict, "job-1", "/data", "/in", samples.NOW)
    assert spec.resources == samples.RESOURCES and spec.image == samples.IMAGE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"grant": {"kinds": (Kind.TRAIN, Kind.ANALYSE), "images": (samples.OTHER_IMAGE,)}}, Code.IMAGE_NOT_PERMITTED),
        ({"order": {"strategy": "FedAvg"}}, Code.RUN_ORDER_MISMATCH),
        ({"order": {"rounds": 2}}, Code.RUN_ORDER_MISMATCH),
        ({"order": {"sites": ("hospital-b",)}}, Code.SITE_NOT_NAMED),
        ({"instruct": {"round": 0}}, Code.ROUND_OUT_OF_RANGE),
        ({"model": samples.MODEL}, Code.MODEL_NOT_PERMITTED),
        ({"instruct": {"model_sha256": "a" * 64}}, Code.MODEL_NOT_PERMITTED),
        ({"grant": {"minimum_studies": 41}}, Code.TOO_FEW_STUDIES),
        ({"grant": {"analysis": replace(RULES, split="test"), "minimum_studies": 21}}, Code.TOO_FEW_STUDIES),
        ({"grant": {"maximum_rounds": 0}}, Code.ROUNDS_EXHAUSTED),
        ({"grant": {"byte_budget": RULES.size_bytes - 1}}, Code.BYTES_EXHAUSTED),
        ({"policy": replace(samples.POLICY, paused=True)}, Code.HOSPITAL_PAUSED),
        ({"policy": replace(samples.POLICY, kinds=frozenset({Kind.TRAIN}))}, Code.KIND_NOT_PERMITTED),
        ({"policy": replace(samples.POLICY, images=frozenset())}, Code.IMAGE_NOT_APPROVED),
        ({"ledger": Ledger(held=True)}, Code.ROUND_ALREADY_SERVED),
        ({"ledger": Ledger(last_attempt=1)}, Code.INSTRUCTION_REPLAYED),
        ({"ledger": Ledger(last_attempt=0, attempts_started=3)}, Code.ATTEMPTS_EXHAUSTED),
        ({"facts": replace(samples.FACTS, datasets=(PROTECTED,))}, Code.DATASET_PROTECTED),
    ],
)
def test_an_analysis_is_asked_everything_that_any_task_is(change: dict[str, Any], code: Code) -> None:
    assert code in codes(**change)


def test_a_permit_without_analyses_grants_none() -> None:
    assert Code.KIND_NOT_PERMITTED in codes(grant={"kinds": (Kind.TRAIN,), "analysis": None})


def test_a_hub_cannot_train_under_a_local_order() -> None:
    with pytest.raises(Denied) as denied:
        admit(samples.request(ask={"strategy": "local"}))
    assert [reason.code for reason in denied.value.reasons] == [Code.RUN_ORDER_MISMATCH]
