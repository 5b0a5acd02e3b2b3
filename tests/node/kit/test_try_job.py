"""A trial at home: real gates, real warm containers, a runner without an engine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from containers.warm.pool import Sandboxes
from mediator.errors import Code, Denied
from mediator.signatures import SigningKey
from mediator.types import DataPermit, Dtype, Kind, Manifest, MetricSpec, Resources, TensorSpec
from node.host.versions import job_view
from node.kit.synthetic import plain_shape, write_version
from node.kit.try_job import Step, Trial, try_job
from tests.mediator import samples
from tests.sim.runner import Behaviour, FakeRunner

IMAGE = "sha256:" + "7" * 64
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COUNT = MetricSpec("num-examples", "count", 0, 1000, 0)
DRAFT = replace(
    samples.permit(),
    tensors=(TensorSpec("w", (4,), Dtype.F32),),
    config=(),
    columns=("lesion",),
    metrics={"train": (COUNT,), "evaluate": (COUNT,)},
    clip_norm=3.0,
    minimum_studies=3,
    resources=Resources(1.0, 1 << 28, 64, 5, 1 << 20, 1 << 20, 16, 0),
)
MODEL = save({"w": np.ones(4, np.float32)})


def honest(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
    """Adds 1 to every weight."""
    metrics = {"metrics.json": b'{"num-examples": 12}'}
    if task["kind"] == "evaluate":
        return metrics
    return metrics | {"model.safetensors": save({"w": load(model)["w"] + 1})}


def _bytes(count: int) -> bytes:
    """No two keys of a trial are the same."""
    return secrets.token_bytes(count)


class Place:
    def __init__(self, root: Path, behave: Behaviour) -> None:
        self.root, key = root, SigningKey(bytes(32))
        (root / "work").mkdir()
        self.manifest: Manifest = write_version(root / "v", plain_shape(6, 3, {"lesion": "double"}), project="lesions")
        self.runner = FakeRunner(key.verify_key, {IMAGE: behave})
        self.boxes = Sandboxes(self.runner, root / "work", key.sign, lambda *_: None, lambda *_: None, lambda *_: None)

    def steps(self, draft: DataPermit = DRAFT, **changes: Any) -> Iterator[Step]:
        draft = replace(draft, project="lesions")
        trial = replace(Trial(IMAGE, draft, {}, MODEL, self.manifest), **changes)
        return try_job(trial, sandboxes=self.boxes, make_view=self._view, clock=lambda: NOW, random_bytes=_bytes)

    def _view(self, split: str, columns: tuple[str, ...], into: Path) -> None:
        job_view(self.root / "v", self.manifest, split, columns, into)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, honest)


def test_an_honest_job_is_released_in_every_round_cold_then_warm(place: Place) -> None:
    steps = list(place.steps())
    assert [(step.round, step.kind.value, step.start) for step in steps] == [
        (0, "evaluate", "cold"), (1, "train", "cold"), (1, "evaluate", "warm"), (2, "train", "warm"),
        (2, "evaluate", "warm"),
    ]  # fmt: skip
    assert {step.verdict for step in steps} == {"released"}
    assert [step.metrics for step in steps] == [{"num-examples": 12}] * 5
    assert len(place.runner.specs) == 2, "one container for training, one for evaluating"
    train = [step for step in steps if step.kind is Kind.TRAIN]
    # the released model is the next round's, so each step goes 4 weights 1 further
    assert [(step.norm, step.clipped) for step in train] == [(2.0, False), (2.0, False)]


def test_a_long_step_is_shown_as_clipped(place: Place) -> None:
    step = next(step for step in place.steps(replace(DRAFT, clip_norm=1.0)) if step.kind is Kind.TRAIN)
    assert step.verdict == "released" and step.clipped and step.norm == 2.0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"model.safetensors": save({"w": np.ones(3, np.float32)})}, Code.TENSOR_SHAPE),
        ({"model.safetensors": save({"w": np.ones(4, np.float64)})}, Code.TENSOR_DTYPE),
        ({"model.safetensors": save({"w": np.full(4, np.nan, np.float32)})}, Code.NOT_FINITE),
        ({"model.safetensors": MODEL + b"patient 17"}, Code.TRAILING_BYTES),
        (
            {"model.safetensors": save({"w": np.ones(4, np.float32), "x": np.ones(1, np.float32)})},
            Code.TENSOR_NOT_PERMITTED,
        ),
        ({"metrics.json": b'{"num-examples": 3}'}, Code.COUNT_BELOW_THRESHOLD),
        ({"metrics.json": b'{"num-examples": 12, "patient": 17}'}, Code.METRIC_NOT_PERMITTED),
    ],
)
def test_what_gate_2_refuses_in_a_hospital_it_refuses_at_home(
    tmp_path: Path, answer: dict[str, bytes], code: Code
) -> None:
    def behave(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        return {**honest(task, model), **answer} if task["kind"] == "train" else honest(task, model)

    place = Place(tmp_path, behave)
    steps = list(place.steps())
    assert [(step.kind, step.verdict, step.gate) for step in steps] == [
        (Kind.EVALUATE, "released", 0), (Kind.TRAIN, "refused", 2)
    ]  # fmt: skip
    assert code in [reason.code for reason in steps[-1].reasons]
    assert not any("patient" in str(reason) for reason in steps[-1].reasons)
    assert [key.task for key in place.boxes.running()] == [Kind.EVALUATE], "a refused container is destroyed"


def test_a_job_that_raises_is_told_by_its_class(tmp_path: Path) -> None:
    def behave(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        raise KeyError("patient 17")

    steps = list(Place(tmp_path, behave).steps())
    assert [(step.round, step.kind.value, step.verdict) for step in steps] == [
        (0, "evaluate", "failed"), (1, "train", "failed")
    ]  # fmt: skip
    assert {reason.code for step in steps for reason in step.reasons} == {Code.RAISED_KEY_ERROR}


def test_what_gate_1_refuses_in_a_hospital_it_refuses_at_home(place: Place) -> None:
    """Configuration, too few studies, a model of another shape, rounds that the draft does not have."""
    for draft, changes, code in (
        (DRAFT, {"config": {"epochs": 1}}, Code.CONFIG_NOT_PERMITTED),
        (replace(DRAFT, minimum_studies=100), {}, Code.TOO_FEW_STUDIES),
        (DRAFT, {"model": save({"v": np.ones(4, np.float32)})}, Code.MODEL_NOT_PERMITTED),
        (replace(DRAFT, maximum_rounds=1), {"rounds": 2}, Code.ROUNDS_EXHAUSTED),
        (replace(DRAFT, byte_budget=10), {}, Code.BYTES_EXHAUSTED),
    ):
        first = next(place.steps(draft, **changes))
        assert (first.verdict, first.gate) == ("refused", 1)
        assert code in [reason.code for reason in first.reasons] and len(set(first.reasons)) == len(first.reasons)
    assert place.runner.specs == [], "gate 1 is asked before any container is made"


def test_a_draft_that_no_hospital_could_enforce_is_refused_whole(place: Place) -> None:
    with pytest.raises(Denied) as refused:
        next(place.steps(replace(DRAFT, conditions=("no-network", "be nice"))))
    assert refused.value.reasons[0].code is Code.CONDITION_UNENFORCEABLE


def test_a_draft_without_evaluation_only_trains(place: Place) -> None:
    steps = list(place.steps(replace(DRAFT, kinds=(Kind.TRAIN,))))
    assert [(step.round, step.kind) for step in steps] == [(1, Kind.TRAIN), (2, Kind.TRAIN)]


def test_a_draft_may_be_long_over_and_name_others(place: Place) -> None:
    """Dates, persons, sites and images are the trial's own; the draft's are placeholders still."""
    old = replace(DRAFT, not_before=datetime(2001, 1, 1, tzinfo=UTC), expires=datetime(2002, 1, 1, tzinfo=UTC))
    assert {step.verdict for step in place.steps(old)} == {"released"}


def test_a_job_sees_the_split_of_its_kind_and_no_other(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    def behave(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        view = max((tmp_path / "work").glob(f"{task['kind']}-*"))
        studies = json.loads((view / "data" / "manifest.json").read_bytes())["studies"]
        seen[task["kind"]] = {study["split"] for study in studies}
        return honest(task, model)

    assert {step.verdict for step in Place(tmp_path, behave).steps()} == {"released"}
    assert seen == {"train": {"train"}, "evaluate": {"test"}}
