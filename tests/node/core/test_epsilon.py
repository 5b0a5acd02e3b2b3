"""Attacks on a privacy budget: the same patients asked again under other names, permits, kinds of task."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mediator import tensors
from mediator.errors import Code, Denied, HubCode
from mediator.types import Kind, PrivacyBudget, SiteDatasets
from node.core.context import PrivacySettings
from node.core.datasets import budget
from node.core.store import models
from node.core.tasks.admit_task import admission_request
from node.core.tasks.privacy import composed
from node.ipc.datasets import BudgetLine
from tests.mediator import samples
from tests.mediator.samples import OTHER_VERSION, PRIVATE, SITE
from tests.node.core.budget_desk import BudgetDesk

# one release of noise 8 is epsilon 1.01 at delta 1e-5, three are 1.85, four 2.17, eight 3.19
TWO = {**PRIVATE, "privacy": PrivacyBudget(epsilon=2.0, delta=1e-5, noise_multiplier=8.0), "maximum_rounds": 30}
RUNS = tuple(f"run-{n}" for n in range(1, 9))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[BudgetDesk]:
    desk = BudgetDesk(tmp_path)
    yield desk
    desk.close()


def hospital(desk: BudgetDesk, epsilon_total: float, delta: float = 1e-6) -> None:
    object.__setattr__(desk.core, "privacy", PrivacySettings(epsilon_total, delta))


def lines(desk: BudgetDesk) -> tuple[BudgetLine, ...]:
    with desk.core.store.read() as snapshot:
        return budget.lines(desk.core, snapshot)


def test_eight_orders_of_one_permit_spend_one_budget(house: BudgetDesk) -> None:
    house.grant("p-1", *RUNS, **TWO)
    assert [house.answer("p-1", run) for run in RUNS] == [None] * 3 + [HubCode.REFUSED_BUDGET] * 5
    charged = house.charged("p-1")
    assert [(row.dataset, row.noise_multiplier) for row in charged] == [("images", 8.0)] * 3
    spent = sum(row.epsilon for row in charged)
    assert spent == pytest.approx(composed({8.0: 3}, 1e-5)) and 1.8 < spent <= 2.0 < composed({8.0: 4}, 1e-5)
    assert house.row("run-4/1/train/1").code is Code.EPSILON_EXHAUSTED
    assert len(house.releases()) == 3


def test_eight_orders_at_one_moment_spend_no_more(house: BudgetDesk) -> None:
    house.grant("p-1", *RUNS, **TWO)
    began = threading.Barrier(len(RUNS))

    def ask(run: str) -> None:
        began.wait()
        house.ask(permit="p-1", permit_version=1, run=run)

    threads = [threading.Thread(target=ask, args=(run,)) for run in RUNS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.charged("p-1")) == 3
    refused = [run for run in RUNS if house.row(f"{run}/1/train/1").code is Code.EPSILON_EXHAUSTED]
    assert len(refused) == 5


def test_another_permit_or_version_of_the_dataset_finds_the_hospitals_budget_spent(house: BudgetDesk) -> None:
    hospital(house, 2.5, 1e-5)
    house.publish(OTHER_VERSION)
    other = {"datasets": (SiteDatasets(SITE, (OTHER_VERSION,)),)}
    house.grant("p-1", "run-1", **TWO)
    house.grant("p-2", "run-2", **TWO, **other)
    answers = [house.answer("p-1", "run-1", n) for n in (1, 2, 3)] + [
        house.answer("p-2", "run-2", n) for n in (1, 2, 3, 4, 5)
    ]
    left = answers.count(None)
    # neither permit's own budget is spent when the sum over both is
    assert left == 5 and composed({8.0: 5}, 1e-5) <= 2.5 < composed({8.0: 6}, 1e-5)
    assert answers[left:] == [HubCode.REFUSED_BUDGET] * (8 - left)
    assert [line for line in lines(house) if not line.permit] == [
        BudgetLine("images", "", left, 0, composed({8.0: left}, 1e-5), 1e-5, 2.5)
    ]


def test_another_name_is_another_dataset(house: BudgetDesk) -> None:
    """What the threat model says is not counted together."""
    hospital(house, 1.1, 1e-5)
    house.publish(OTHER_VERSION, dataset="other")
    house.grant("p-1", "run-1", **TWO)
    house.grant("p-2", "run-2", **TWO, datasets=(SiteDatasets(SITE, (OTHER_VERSION,)),))
    assert house.answer("p-1", "run-1") is None and house.answer("p-2", "run-2") is None
    assert house.answer("p-1", "run-1", 2) is house.answer("p-2", "run-2", 2) is HubCode.REFUSED_BUDGET


def test_noise_of_several_strengths_enters_one_composition(house: BudgetDesk) -> None:
    hospital(house, 4.8, 1e-5)
    little = replace(TWO["privacy"], epsilon=4.8, noise_multiplier=2.0)
    house.grant("p-1", "run-1", **TWO)
    house.grant("p-2", "run-2", **{**TWO, "privacy": little})
    assert house.answer("p-1", "run-1") is None
    assert composed({2.0: 1}, 1e-5) < 4.8 < composed({2.0: 1, 8.0: 1}, 1e-5)
    assert house.answer("p-2", "run-2") is HubCode.REFUSED_BUDGET


def test_outputs_of_jobs_that_failed_are_spent_too(tmp_path: Path) -> None:
    def failing(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        raise ValueError

    house = BudgetDesk(tmp_path, failing)
    house.grant("p-1", *RUNS, **TWO)
    told = [house.answer("p-1", run) for run in RUNS]
    assert told == [HubCode.RAISED_VALUE_ERROR] * 3 + [HubCode.REFUSED_BUDGET] * 5
    assert [house.answer("p-1", "run-1", attempt=2), house.answer("p-1", "run-1", attempt=3)] == told[:2]
    assert len(house.charged("p-1")) == 3 and house.releases() == []
    house.close()


def test_an_exact_task_does_not_leave_beside_a_budget_unless_the_steward_said_so(house: BudgetDesk) -> None:
    exact = {"maximum_rounds": 5}
    house.grant("plain", "run-1", **exact)
    assert house.answer("plain", "run-1") is None  # nobody has promised anything yet
    house.grant("p-1", "run-2", **TWO)  # accepted, and nothing asked under it yet
    assert [(each.permit, each.epsilon, each.budget) for each in lines(house)] == [
        ("p-1", 0.0, 2.0), ("plain", 0.0, None), ("", 0.0, 10.0)
    ]  # fmt: skip
    for task in (Kind.TRAIN, Kind.EVALUATE):
        assert house.answer("plain", "run-1", 2, task) is HubCode.REFUSED_PERMIT
        assert house.row(f"run-1/2/{task.value}/1").code is Code.DATASET_PROTECTED
    house.grant("spoken-for", "run-3", accept={"unprotected": True}, **exact)
    assert house.answer("spoken-for", "run-3") is None
    assert house.answer("p-1", "run-2") is None
    assert [(each.permit, each.noised, each.without_noise) for each in lines(house)] == [
        ("p-1", 1, 0), ("plain", 0, 1), ("spoken-for", 0, 1), ("", 1, 2)
    ]  # fmt: skip


def test_a_later_version_of_a_protected_dataset_is_protected_too(house: BudgetDesk) -> None:
    house.grant("p-1", **TWO)
    house.publish(OTHER_VERSION)
    house.grant("plain", "run-1", datasets=(SiteDatasets(SITE, (OTHER_VERSION,)),))
    assert house.answer("plain", "run-1") is HubCode.REFUSED_PERMIT


def test_a_budget_that_was_accepted_before_the_dataset_came_protects_it(house: BudgetDesk) -> None:
    covered = {"datasets": (SiteDatasets(SITE, (OTHER_VERSION,)),)}
    house.grant("p-1", **TWO, **covered)
    house.publish(OTHER_VERSION, dataset="late")
    house.grant("plain", "run-1", **covered)
    assert house.answer("plain", "run-1") is HubCode.REFUSED_PERMIT
    house.grant("other", "run-2")
    assert house.answer("other", "run-2") is None  # of a dataset without a budget


def test_evaluation_under_a_budget_carries_no_bit_of_the_jobs_choice(tmp_path: Path) -> None:
    """1,993 bits a round, they were: forty exact numbers. What leaves now are the permit's own."""
    said = [b'{"num-examples": 40}', b'{"num-examples": 9007199254740991, "auc": 0.123456}', b"\xff" * 4000]

    def choosing(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        files = {"metrics.json": said[task["round"] % len(said)]}
        return files | {"model.safetensors": model} if task["kind"] == "train" else files

    house = BudgetDesk(tmp_path, choosing)
    loose = {**TWO["metrics"], "evaluate": samples.permit().metrics["evaluate"]}
    with pytest.raises(Denied) as caught:
        house.grant("p-0", **{**TWO, "metrics": loose})
    assert {reason.code for reason in caught.value.reasons} == {Code.METRIC_UNPROTECTED}
    with house.core.store.read() as snapshot:
        assert snapshot.permits() == ()
    house.grant("p-1", "run-1", **TWO)
    roots = set()
    for round_ in (1, 2, 3):
        assert house.answer("p-1", "run-1", round_, Kind.EVALUATE) is None
        with house.core.store.read() as snapshot:
            release = snapshot.find_release("run-1", round_, Kind.EVALUATE)
        assert release is not None
        roots.add(release.root)
    # one and the same object three times: log2(1) bits
    assert len(roots) == 1
    house.close()


def test_a_ledger_of_thousands_is_asked_as_fast_as_an_empty_one(house: BudgetDesk) -> None:
    hospital(house, 1e6)
    house.grant("p-1", "run-1", **{**TWO, "privacy": replace(TWO["privacy"], epsilon=1e6), "maximum_rounds": 10_000})
    house.answer("p-1", "run-1")
    entry = {"permit": "p-1", "run": "run-1", "task": "train", "permit_version": 1, "size_bytes": 1, "epsilon": 0.0}
    with house.core.store.transaction(house.now) as tx:
        for number in range(2, 5000):
            noise = {"dataset": "images", "noise_multiplier": float(number % 7 + 1)}
            tx._session.add(models.LedgerEntryTable(round=number, time=house.now, **entry, **noise))
    asked = samples.request(instruct={"permit": "p-1", "permit_version": 1, "round": 5000}).instruction
    with house.core.store.read() as snapshot:
        began = time.perf_counter()
        request = admission_request(house.core, snapshot, asked, samples.MODEL, house.now)
        took_s = time.perf_counter() - began
    (facts,) = request.facts.datasets
    counts = {float(n): sum(1 for each in range(2, 5000) if each % 7 + 1 == n) for n in range(1, 8)}
    counts[8.0] = 2
    assert facts.spending.under_permit == pytest.approx(composed(counts, 1e-5))
    assert took_s < 1.0  # 0.06 s on an idle machine


def test_an_update_leaves_with_noise_and_no_number_beside_it(house: BudgetDesk) -> None:
    object.__setattr__(house.core, "random_bytes", np.random.default_rng(7).bytes)
    house.grant("p-1", "run-1", **TWO)
    assert house.answer("p-1", "run-1") is None
    with house.core.store.read() as snapshot:
        release = snapshot.find_release("run-1", 1, Kind.TRAIN)
    assert release is not None
    content = b"".join((house.root / "releases" / release.folder / each.id).read_bytes() for each in release.objects)
    assert tensors.parse(samples.MODEL, samples.TENSORS)["head.weight"].tobytes() not in content
    assert b"num-examples" in content and b"loss" not in content
