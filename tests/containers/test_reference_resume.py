"""The reference job makes room in the middle of a training and goes on in another container: the very same model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mediator.ports import JobEvent
from tests.containers.bench import Bench, by_name, image_id, until
from tests.containers.test_reference_job import CONFIG, LIMITS_TORCH, initial_model, publish

pytestmark = pytest.mark.engine

LONG = {**CONFIG, "epochs": 24}


@pytest.fixture
def torch_bench(bench: Bench) -> Bench:
    return replace(bench, image=image_id("cloister-job-torch"))


def begin(bench: Bench, job: str, model: bytes, checkpoint: bytes | None = None):
    """Events of a training on the same eight studies, from its beginning or from a checkpoint."""
    broker = bench.broker()
    spec = bench.spec(job, resources=LIMITS_TORCH)
    publish(bench, job, 0, 8, seed=3)
    part = bench.root / "work" / job / "in" / "tasks" / ".1.part"
    part.mkdir(mode=0o755)
    order = {"contract": 1, "task": 1, "kind": "train", "round": 1, "config": LONG}
    (part / "task.json").write_text(json.dumps(order))
    (part / "model.safetensors").write_bytes(model)
    if checkpoint is not None:
        (part / "checkpoint").write_bytes(checkpoint)
    for file in part.iterdir():
        file.chmod(0o644)
    part.rename(part.with_name("1"))
    broker.prepare(bench.sign(spec))
    return broker, broker.execute(job)


@pytest.mark.slow
def test_a_training_that_made_room_ends_with_the_same_bytes(torch_bench: Bench) -> None:
    model = (initial_model(torch_bench) / "initial.safetensors").read_bytes()
    broker, events = begin(torch_bench, "whole", model)
    assert until(events, "done", "exited") == JobEvent("done", task=1)
    whole = by_name(broker.finalise("whole", 1))

    broker, events = begin(torch_bench, "left", model)
    until(events, "progress")
    (torch_bench.root / "work" / "left" / "in" / "stop").touch()
    ended = until(events, "done", "exited")
    assert (ended.kind, ended.status) == ("exited", 0)
    left = by_name(broker.finalise("left", 1))
    assert set(left) == {"checkpoint"}

    broker, events = begin(torch_bench, "went-on", model, left["checkpoint"])
    first = until(events, "progress")
    assert first.fraction > 1 / LONG["epochs"], "not from the first epoch"
    assert until(events, "done", "exited") == JobEvent("done", task=1)
    assert by_name(broker.finalise("went-on", 1)) == whole
