"""An unmodified `ClientApp`, written as Flower's quickstarts are, behind the shim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from containers.job.contract import Tasks
from containers.job.flower import NoReply, serve
from tests.containers.job.test_contract import give

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    weights = msg.content["arrays"].to_numpy_ndarrays()
    seen = int(context.state["seen"]["rounds"]) + 1 if "seen" in context.state else 1
    context.state["seen"] = MetricRecord({"rounds": seen})
    arrays = msg.content["arrays"]
    updated = ArrayRecord(dict(zip(arrays, map(_array, weights), strict=True)))
    metrics = MetricRecord({"num-examples": 8, "loss": 0.25 * seen, "round": msg.content["config"]["server-round"]})
    return Message(content=RecordDict({"arrays": updated, "metrics": metrics}), reply_to=msg)


def _array(weights: np.ndarray):
    from flwr.app import Array

    return Array(weights + 1)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 4, "epochs": msg.content["config"]["epochs"]})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)


def run(tmp_path: Path, kinds: tuple[str, ...], app: ClientApp = app) -> Path:
    (tmp_path / "in" / "tasks").mkdir(parents=True)
    for number, kind in enumerate(kinds, 1):
        give(tmp_path / "in", number, kind=kind)
    tasks = Tasks(tmp_path / "in", tmp_path / "out", poll_s=0.001)
    serve(app, tasks=_until(tasks, len(kinds), tmp_path / "in" / "stop"))
    return tmp_path / "out"


def _until(tasks: Tasks, last: int, stop: Path):
    for task in tasks:
        yield task
        if task.number == last:
            stop.touch()


def test_train_and_evaluate_go_through_the_contract(tmp_path: Path) -> None:
    out = run(tmp_path, ("train", "evaluate", "train"))
    assert load_file(out / "1" / "model.safetensors")["w"].tolist() == [2.0, 2.0, 2.0]
    assert json.loads((out / "1" / "metrics.json").read_text()) == {"num-examples": 8, "loss": 0.25, "round": 1}
    assert json.loads((out / "2" / "metrics.json").read_text()) == {"num-examples": 4, "epochs": 2}
    assert not (out / "2" / "model.safetensors").exists()
    # the app's own state lives from round to round
    assert json.loads((out / "3" / "metrics.json").read_text())["loss"] == 0.5


def test_an_app_without_the_record_we_need_writes_no_done(tmp_path: Path) -> None:
    silent = ClientApp()

    @silent.train()
    def nothing(msg: Message, context: Context) -> Message:
        return Message(content=RecordDict(), reply_to=msg)

    with pytest.raises(NoReply):
        run(tmp_path, ("train",), silent)
    assert not (tmp_path / "out" / "1" / "DONE").exists()
