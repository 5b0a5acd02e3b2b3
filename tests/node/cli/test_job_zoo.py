"""What torch users bring, on the real engine: 0-d, batch norm, tied weights, twelve layers alike, 700 tensors and more.

One network has it all. It is handed back with the job library, with a ClientApp by name, and with one as a bare list;
the two are written as Flower's quickstarts are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.containers.bench import ENGINE_URL, forget_images
from tests.node.cli.test_job_kit import run

TAG = "cloister-test-zoo"
LAYERS = 12

TASK = """
import json
import sys

import torch
from torch import nn


class Zoo(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.5))
        self.layers = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(12)))
        self.norms = nn.Sequential(*(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False)) for _ in range(120)))
        self.embed, self.decode = nn.Linear(3, 3), nn.Linear(3, 3)
        self.decode.weight = self.embed.weight

    def forward(self, x):
        return self.decode(self.norms(self.layers(self.embed(x)))) * self.temperature


def train(net, epochs):
    with torch.no_grad():
        for place, layer in enumerate(net.layers):
            layer.weight.fill_(place)
    net.train()
    for _ in range(epochs):
        net(torch.randn(8, 3))
    return torch.tensor(0.25)


def test(net):
    net.eval()
    finite = torch.isfinite(net(torch.randn(8, 3))).all()
    tied = net.decode.weight is net.embed.weight
    # as many layers as hold their own number
    return sum(bool((layer.weight - place).abs().max() < 1e-3) for place, layer in enumerate(net.layers)), finite & tied


if __name__ == "__main__":
    names = {torch.float32: "F32", torch.int64: "I64"}
    state = Zoo().state_dict()
    print(json.dumps([{"name": k, "shape": list(v.shape), "dtype": names[v.dtype]} for k, v in state.items()]))
"""

APP = """
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from task import Zoo
from task import test as test_fn
from task import train as train_fn

app = ClientApp()


def load(msg, context):
    net = Zoo()
    if context.run_config["style"] == "by-list":
        arrays = msg.content["arrays"].to_numpy_ndarrays()
        state = zip(net.state_dict(), (torch.tensor(each) for each in arrays), strict=True)
        net.load_state_dict(dict(state), strict=True)
    else:
        net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    return net


@app.train()
def train(msg: Message, context: Context):
    net = load(msg, context)
    loss = train_fn(net, context.run_config["local-epochs"])
    count = len(range(40)[context.node_config["partition-id"] :: context.node_config["num-partitions"]])
    if context.run_config["style"] == "by-list":
        arrays = ArrayRecord([value.cpu().numpy() for _, value in net.state_dict().items()])
    else:
        arrays = ArrayRecord(net.state_dict())
    metrics = MetricRecord({"loss": loss.item(), "num-examples": count})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    right, well = test_fn(load(msg, context))
    metrics = MetricRecord({"right": right, "well": int(well), "num-examples": 40})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
"""

SERVE = """
import numpy as np
import torch
from app import app
from cloister_job.contract import Tasks
from cloister_job.flower import serve
from task import Zoo, test, train


def answer(task):
    net = Zoo()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in task.model().items()})
    if task.kind == "train":
        loss = train(net, 1)
        weights = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
        task.finish(model=weights, metrics={"loss": loss, "num-examples": np.int64(40)})
    else:
        right, well = test(net)
        task.finish(metrics={"right": np.float32(right), "well": well, "num-examples": torch.tensor(40)})


for task in Tasks():
    answer(task) if task.config["style"] == "library" else serve(app, tasks=[task])
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("zoo")
    assert run(folder, "job", "new", "zoo", "--template", "flower").code == 0
    for name, text in (("task.py", TASK), ("app.py", APP), ("serve.py", SERVE)):
        (folder / "zoo" / name).write_text(text)
    (folder / "zoo" / "pyproject.toml").write_text("[tool.flwr.app.config]\nlocal-epochs = 2\n")
    recipe = (folder / "zoo" / "Containerfile").read_text()
    (folder / "zoo" / "Containerfile").write_text(
        recipe.replace("serve.py /opt/job/", "serve.py pyproject.toml /opt/job/")
    )
    assert run(folder, "job", "build", "zoo", "--tag", TAG).code == 0
    engine = docker.from_env(environment={"DOCKER_HOST": ENGINE_URL})
    printed = engine.containers.run(
        TAG, ["/opt/job/task.py"], entrypoint=["python3"], network_mode="none", remove=True, stderr=False
    )
    draft = json.loads((folder / "zoo" / "permit.json").read_text())
    draft["tensors"] = json.loads(printed)
    draft["config"] = [
        {"name": "style", "type": "str", "minimum": None, "maximum": None, "choices": ["library", "by-name", "by-list"]}
    ]
    value = {"kind": "value", "minimum": 0, "maximum": 100, "digits": 4}
    count = {"name": "num-examples", "kind": "count", "minimum": 0, "maximum": 1_000_000, "digits": 0}
    draft["metrics"] = {
        "train": [{"name": "loss", **value}, count],
        "evaluate": [{"name": "right", **value}, {"name": "well", **value}, count],
    }
    draft["clip_norm"] = 10_000.0
    (folder / "permit.json").write_text(json.dumps(draft))
    yield folder
    forget_images(TAG)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("style", ["library", "by-name", "by-list"])
def test_all_that_torch_has_comes_whole_and_in_its_order(zoo: Path, style: str) -> None:
    names = [tensor["name"] for tensor in json.loads((zoo / "permit.json").read_text())["tensors"]]
    assert len(names) > 727 and names.index("layers.10.weight") > names.index("layers.9.weight")
    ended = run(zoo, "job", "test", TAG, "--config", json.dumps({"style": style}), "--rounds", 1, "--json")
    assert ended.code == 0, ended
    first, trained, last = ended.json()["tasks"]
    assert {task["verdict"] for task in (first, trained, last)} == {"released"}
    assert first["metrics"] == {"num-examples": 40, "right": 0, "well": 1}, "it can be computed with as it begins"
    assert trained["metrics"] == {"num-examples": 40, "loss": 0.25} and not trained["clipped"]
    assert last["metrics"] == {"num-examples": 40, "right": LAYERS, "well": 1}, "every layer is where it was"
