"""Attacks by a job and a hub together: data carried out in how the job ends, attempt after attempt."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mediator.audit import Action, Verdict
from mediator.errors import Code, HubCode, Reason
from mediator.exits import TOLD_PER_RUN
from mediator.jobs import JobStep
from mediator.ledger import MAXIMUM_ATTEMPTS
from mediator.types import Kind
from node.core.context import event
from tests.mediator import samples
from tests.node.core.budget_desk import BudgetDesk
from tests.node.core.desk import Gate, eventually, learn


class Choosing:
    """A job that ends by the next of its words: the class of an exception, a rule of gate 2, a count, a release."""

    def __init__(self, *words: str) -> None:
        self._words = itertools.cycle(words)
        self.asked = 0

    def __call__(self, task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        self.asked += 1
        word = next(self._words)
        if word == "release":
            return learn(task, model)
        if word == "small count":
            name = b"loss" if task["kind"] == "train" else b"auc"
            return {**learn(task, model), "metrics.json": b'{"%s": 0.5, "num-examples": 1}' % name}
        if word == "extra file":
            return {**learn(task, model), "patients.txt": b""}
        raise type(word, (Exception,), {})


def test_eighty_attempts_of_one_round_reach_three_containers_and_send_three_words(tmp_path: Path) -> None:
    job = Choosing("ValueError", "KeyError", "small count", "extra file")
    house = BudgetDesk(tmp_path, job)
    house.grant("p-1", "run-1")
    told = [house.answer("p-1", "run-1", attempt=attempt) for attempt in range(1, 81)]
    assert told[:3] == [HubCode.RAISED_VALUE_ERROR, HubCode.RAISED_KEY_ERROR, HubCode.REFUSED_OUTPUT]
    assert told[3:] == [HubCode.REFUSED_BUDGET] * 77  # the same word whatever the job would do
    assert job.asked == 3 and len(house.charged("p-1")) == 1 and house.releases() == []
    assert bits(told[:3]) < 18.4
    assert house.row("run-1/1/train/4").code is Code.ATTEMPTS_EXHAUSTED
    started = [each.about for each in house.log() if each.action == "job_start"]
    assert started == [f"run-1/1/train/{attempt}" for attempt in (1, 2, 3)]
    # another kind of task, and another round, have attempts of their own
    assert house.answer("p-1", "run-1", task=Kind.EVALUATE) is HubCode.FILE_NOT_PERMITTED and job.asked == 4
    house.close()


def test_attempts_sent_at_once_do_not_outrun_the_limit(tmp_path: Path) -> None:
    gate = Gate()

    def failing(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        gate(task, model)
        raise ValueError

    house = BudgetDesk(tmp_path, failing)
    house.grant("p-1", "run-1")
    for attempt in range(1, 13):
        house.ask(permit="p-1", permit_version=1, attempt=attempt)
    names = [f"run-1/1/train/{attempt}" for attempt in range(1, 13)]
    gate.open.set()
    for name in names:
        eventually(lambda name=name: house.instruction(name).hub_code, within_s=30.0)
    assert gate.asked == MAXIMUM_ATTEMPTS
    told = [house.instruction(name).hub_code for name in names]
    # those that may be open beside one another wait and are refused for the budget; the others do not even wait,
    # and may be asked again
    assert (told.count(HubCode.REFUSED_BUDGET), told.count(HubCode.NOT_READY)) == (5, 4)
    house.close()


def test_what_a_run_is_told_is_bounded_over_all_its_rounds_and_attempts(tmp_path: Path) -> None:
    """Plain words count as well: of whatever a job chooses to end by, a run is told 32, and one word after that."""
    words = ("ValueError", "small count", "KeyError", "extra file", "OSError", "small count", "TypeError")
    job = Choosing(*words)
    house = BudgetDesk(tmp_path, job)
    house.grant("p-1", "run-1", maximum_rounds=20, byte_budget=1 << 30)
    asked = list(itertools.product(range(1, 7), (Kind.TRAIN, Kind.EVALUATE), (1, 2, 3, 4)))
    told = [house.answer("p-1", "run-1", round_, task, attempt) for round_, task, attempt in asked]
    chosen = [word for word, (_, _, attempt) in zip(told, asked, strict=True) if attempt <= MAXIMUM_ATTEMPTS]
    assert len(chosen) == job.asked == 36
    assert {word for word, (_, _, attempt) in zip(told, asked, strict=True) if attempt == 4} == {HubCode.REFUSED_BUDGET}
    assert len(set(chosen[:TOLD_PER_RUN])) >= 5 and set(chosen[TOLD_PER_RUN:]) == {HubCode.JOB_FAILED}
    # the hospital's own record goes on to say it
    assert {house.row(f"run-1/6/train/{attempt}").code for attempt in (1, 2, 3)} != {Code.JOB_FAILED}
    assert bits(chosen) <= TOLD_PER_RUN * math.log2(len(HubCode))
    with house.core.store.read() as snapshot:
        assert snapshot.ends_told("run-1") == 36 and snapshot.ends_told("another run") == 0
    house.close()


def bits(words: list[HubCode | None]) -> float:
    """At most what such a sequence can carry: an answer that could not have been another carries nothing."""
    free = [word for number, word in enumerate(words) if number < TOLD_PER_RUN or word is not HubCode.JOB_FAILED]
    return len(free) * math.log2(len(HubCode))


def test_a_third_attempt_that_releases_is_delivered_again_however_often_it_is_asked(tmp_path: Path) -> None:
    job = Choosing("ValueError", "ValueError", "release")
    house = BudgetDesk(tmp_path, job)
    house.grant("p-1", "run-1")
    told = [house.answer("p-1", "run-1", attempt=attempt) for attempt in range(1, 7)]
    assert told == [HubCode.RAISED_VALUE_ERROR] * 2 + [None] * 4 and job.asked == 3
    house.close()


def test_an_attempt_that_reached_no_container_costs_none(tmp_path: Path) -> None:
    job = Choosing("release")
    house = BudgetDesk(tmp_path, job)
    house.grant("p-1", "run-1")
    house.runner.refusals["prepare"] = Reason(Code.GPU_UNAVAILABLE)
    assert {house.answer("p-1", "run-1", attempt=attempt) for attempt in range(1, 6)} == {HubCode.NOT_READY}
    house.runner.refusals.clear()
    assert house.answer("p-1", "run-1", attempt=6) is None and job.asked == 1
    house.close()


def test_an_instruction_that_overtook_its_run_order_may_be_asked_again(tmp_path: Path) -> None:
    """Orders come by another connection than instructions, which may have broken."""
    house = BudgetDesk(tmp_path, Choosing("release"))
    house.grant("p-1")
    assert house.answer("p-1", "run-1") is HubCode.NOT_READY and house.charged("p-1") == ()
    house.documents.receive(samples.RESEARCHER.sign(samples.order(run="run-1", permit="p-1", permit_version=1)))
    assert house.answer("p-1", "run-1", attempt=2) is None
    house.close()


def test_attempts_that_reach_no_container_are_kept_so_many_times_and_no_more(tmp_path: Path) -> None:
    """Each brings a text and a row that stay."""
    house = BudgetDesk(tmp_path, Choosing("release"))
    house.grant("p-1", "run-1")
    house.runner.refusals["prepare"] = Reason(Code.GPU_UNAVAILABLE)
    told = [house.answer("p-1", "run-1", attempt=attempt) for attempt in range(1, 71)]
    assert told == [HubCode.NOT_READY] * 64 + [HubCode.REFUSED_INSTRUCTION] * 6
    house.close()


def test_a_core_that_is_killed_does_not_forget_what_reached_a_container(tmp_path: Path) -> None:
    house = BudgetDesk(tmp_path)
    house.jobs.stop()
    house.grant("p-1", "run-1")
    house.ask(permit="p-1", permit_version=1)
    job, happened = house.row("run-1/1/train/1").job, event(Action.JOB_PREPARE, "job", Verdict.ALLOWED)
    with house.core.store.transaction(house.now) as tx:
        for step in (JobStep.PREPARE, JobStep.START):
            tx.advance(job, step, event=happened, sandbox="train-1")
        tx.recover(job, event=happened)
        of = {"permit": "p-1", "permit_version": 1}
        assert tx.attempts_started(samples.instruction(**of)) == 0  # it goes on, and is none of its own
        assert tx.attempts_started(samples.instruction(**of, attempt=2)) == 1
        assert tx.attempts_started(samples.instruction(**of, attempt=2, task=Kind.EVALUATE)) == 0
        assert tx.attempts_started(samples.instruction(**of, attempt=2, round=2)) == 0
    house.core.store.close()
