"""The zoo through a trial at home: real gates, the real job library and shim, a runner without an engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from containers.job.contract import Task, Tasks
from containers.job.flower import serve
from mediator import tensors
from node.kit.trial_inputs import random_model
from tests.node.kit.test_try_job import DRAFT, Place
from tests.sim.runner import Behaviour
from tests.sim.zoo import ZOO, Model, same, specs_of

METRICS = {"num-examples": 12}


def moved(model: Model) -> dict[str, np.ndarray]:
    """Every float a tenth further, in the model's order: small enough for no clip. Counters count."""
    return {name: array + array.dtype.type(0.125 if array.dtype.kind == "f" else 1) for name, array in model.items()}


def with_the_library(task: Task) -> None:
    task.finish(model=moved(task.model()) if task.kind == "train" else None, metrics=METRICS)


app = ClientApp()


@app.train()
def _train(msg: Message, context: Context) -> Message:
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    trained = list(moved(dict(enumerate(arrays))).values())
    content = RecordDict(
        {"arrays": ArrayRecord([np.asarray(each) for each in trained]), "metrics": MetricRecord(METRICS)}
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def _evaluate(msg: Message, context: Context) -> Message:
    return Message(content=RecordDict({"metrics": MetricRecord(METRICS)}), reply_to=msg)


def with_a_client_app(task: Task) -> None:
    serve(app, tasks=[task])


def job(answer: Callable[[Task], None], seen: list[Model]) -> Behaviour:
    """A container whose program uses the job library on the very files it was given."""

    def behave(order: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            at = folder / "in" / "tasks" / "1"
            at.mkdir(parents=True)
            written = {key: value for key, value in order.items() if key not in ("checkpoint", "stopping")}
            (at / "task.json").write_text(json.dumps(written, sort_keys=True))
            (at / "model.safetensors").write_bytes(model)
            task = next(iter(Tasks(folder / "in", folder / "out")))
            seen.append(task.model())
            answer(task)
            return {path.name: path.read_bytes() for path in (folder / "out" / "1").iterdir()}

    return behave


@pytest.mark.parametrize("answer", [with_the_library, with_a_client_app])
@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_the_zoo_is_released_whole(tmp_path: Path, name: str, answer: Callable[[Task], None]) -> None:
    model, seen = ZOO[name](), list[Model]()
    place = Place(tmp_path, job(answer, seen))
    draft = replace(DRAFT, tensors=specs_of(model), clip_norm=1000.0, byte_budget=1 << 30)
    steps = list(place.steps(draft, model=tensors.encode(model)))
    assert [(step.verdict, step.reasons, step.clipped) for step in steps] == [("released", (), False)] * 5
    # round 1 trains the model given; what gate 2 let out of it is given in round 1's evaluation, and so on
    floats = {key: array for key, array in model.items() if array.dtype.kind == "f"}
    counters = {key: array for key, array in model.items() if array.dtype.kind != "f"}
    once, twice = moved(floats), moved(moved(floats))
    expected = [{**model}, {**model}, {**model, **once}, {**model, **once}, {**model, **twice}]
    assert all(same(found, wanted) for found, wanted in zip(seen, expected, strict=True))
    assert all(found[key] == array for found in seen for key, array in counters.items()), "a counter has no mean"


@pytest.mark.parametrize("name", ZOO)
def test_a_trial_begins_with_a_model_that_can_be_computed_with(name: str) -> None:
    """In the permit's order, and no root of a running variance below 0."""
    begun = tensors.parse(random_model(specs_of(ZOO[name]())), specs_of(ZOO[name]()))
    assert list(begun) == list(ZOO[name]())
    assert all((array > 0).all() for key, array in begun.items() if key.endswith("running_var"))
