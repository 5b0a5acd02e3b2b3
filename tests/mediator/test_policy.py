from __future__ import annotations

from dataclasses import replace

import pytest

from mediator.errors import Code
from mediator.policy import Policy
from mediator.types import Kind
from tests.mediator.samples import IMAGE, POLICY, RESOURCES


@pytest.mark.parametrize("kind", list(Kind))
def test_an_empty_policy_denies_everything(kind: Kind) -> None:
    codes = [reason.code for reason in Policy().check(kind, IMAGE, RESOURCES)]
    assert codes == [
        Code.HOSPITAL_PAUSED, Code.KIND_NOT_PERMITTED, Code.IMAGE_NOT_APPROVED, Code.RESOURCES_EXCEEDED
    ]  # fmt: skip
    assert not Policy().max_revocation_age


def test_each_part_of_a_policy_denies_by_itself() -> None:
    assert POLICY.check(Kind.TRAIN, IMAGE, RESOURCES) == []
    for changed, code in (
        (replace(POLICY, paused=True), Code.HOSPITAL_PAUSED),
        (replace(POLICY, kinds=frozenset({Kind.EVALUATE})), Code.KIND_NOT_PERMITTED),
        (replace(POLICY, images=frozenset()), Code.IMAGE_NOT_APPROVED),
        (replace(POLICY, resources=replace(RESOURCES, pids=1)), Code.RESOURCES_EXCEEDED),
        (replace(POLICY, resources=replace(RESOURCES, cpus=0.5)), Code.RESOURCES_EXCEEDED),
        (replace(POLICY, resources=None), Code.RESOURCES_EXCEEDED),
    ):
        assert [reason.code for reason in changed.check(Kind.TRAIN, IMAGE, RESOURCES)] == [code]


def test_too_many_cpus_are_refused_by_their_number() -> None:
    [reason] = POLICY.check(Kind.TRAIN, IMAGE, replace(RESOURCES, cpus=RESOURCES.cpus + 6))
    assert reason.detail == f"the permit asks for {RESOURCES.cpus + 6:g} CPUs, and this machine has or lends 1"
