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


# --- what a quickstart asks its context for -------------------------------------------------------------------

quickstart = ClientApp()


@quickstart.train()
def _quickstart_train(msg: Message, context: Context) -> Message:
    """As in Flower's quickstart-pytorch, with numpy in torch's place; the loading is the app's own business."""
    weights = msg.content["arrays"].to_numpy_ndarrays()
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    examples = list(range(40))[partition_id::num_partitions]
    for _ in range(int(context.run_config["local-epochs"])):
        weights = [each - msg.content["config"]["lr"] for each in weights]
    arrays = ArrayRecord(weights)
    metrics = MetricRecord({"train_loss": 0.5, "num-examples": len(examples)})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@quickstart.evaluate()
def _quickstart_evaluate(msg: Message, context: Context) -> Message:
    part = (context.node_config["partition-id"], context.node_config["num-partitions"])
    metrics = {"num-examples": 40, "part": part[0], "parts": part[1]}
    numbers = {name: value for name, value in context.run_config.items() if isinstance(value, int | float)}
    return Message(content=RecordDict({"metrics": MetricRecord({**metrics, **numbers})}), reply_to=msg)


def told(
    tmp_path: Path, *configs: dict[str, object], kind: str = "evaluate", **more: object
) -> list[dict[str, object]]:
    """The metrics that the quickstart hands in for tasks of these configurations."""
    (tmp_path / "in" / "tasks").mkdir(parents=True)
    for number, config in enumerate(configs, 1):
        give(tmp_path / "in", number, kind=kind, config=config, tensors=["w"])
    tasks = Tasks(tmp_path / "in", tmp_path / "out", poll_s=0.001)
    serve(quickstart, tasks=_until(tasks, len(configs), tmp_path / "in" / "stop"), **more)  # type: ignore[arg-type]
    folders = [tmp_path / "out" / str(number) for number in range(1, len(configs) + 1)]
    return [json.loads((folder / "metrics.json").read_text()) for folder in folders]


def test_a_quickstart_trains_with_all_the_studies_of_its_site(tmp_path: Path) -> None:
    (metrics,) = told(tmp_path, {"lr": 0.5, "local-epochs": 2}, kind="train")
    assert metrics == {"train_loss": 0.5, "num-examples": 40}
    assert load_file(tmp_path / "out" / "1" / "model.safetensors")["w"].tolist() == [0.0, 0.0, 0.0]


def test_the_configuration_of_each_task_is_its_run_config(tmp_path: Path) -> None:
    first, second = told(tmp_path, {"lr": 0.5, "local-epochs": 1}, {"lr": 0.25, "local-epochs": 3})
    assert (first["lr"], first["local-epochs"], first["part"], first["parts"]) == (0.5, 1, 0, 1)
    assert (second["lr"], second["local-epochs"]) == (0.25, 3)


def test_what_a_task_does_not_say_the_apps_own_project_does(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flwr.app.config]\nnum-server-rounds = 3\nlocal-epochs = 1\n[tool.flwr.app.config.optim]\nlr = 0.1\n"
    )
    first, second = told(tmp_path, {}, {"local-epochs": 5}, project=tmp_path, run_config={"seed": 7})
    assert first == {
        "num-examples": 40, "part": 0, "parts": 1, "num-server-rounds": 3, "local-epochs": 1, "optim.lr": 0.1,
        "seed": 7,
    }  # fmt: skip
    assert second["local-epochs"] == 5 and second["seed"] == 7, "the task's configuration stands over the app's own"


def test_a_site_is_another_partition_where_its_task_says_so(tmp_path: Path) -> None:
    (metrics,) = told(tmp_path, {"partition-id": 2, "num-partitions": 4})
    assert (metrics["part"], metrics["parts"]) == (2, 4)
    (metrics,) = told(tmp_path / "again", {}, node_config={"partition-id": 1, "num-partitions": 3})
    assert (metrics["part"], metrics["parts"]) == (1, 3)


def test_a_value_that_no_record_of_flowers_holds_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.config]\nlist = [1, 2]\n")
    with pytest.raises(ValueError, match="list"):
        told(tmp_path, {}, project=tmp_path)
