"""The reference job in its sandbox: three hospitals train, we average, and a model that finds lesions comes out."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import docker
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import load, load_file, save

from containers.broker import Broker
from mediator.ports import JobEvent
from mediator.types import Dtype, TensorSpec
from tests.containers.bench import ENGINE_URL, LIMITS, Bench, by_name, image_id
from tests.containers.job.test_dataset import write_slice
from tests.sim.cohort import SCANNERS, make_scan

pytestmark = pytest.mark.engine

LIMITS_TORCH = replace(LIMITS, memory_bytes=2 << 30, pids=128, wall_time_s=110)
CONFIG = {"epochs": 4, "learning-rate": 0.005, "batch-size": 8, "seed": 7}


@pytest.fixture
def torch_bench(bench: Bench) -> Bench:
    return replace(bench, image=image_id("cloister-job-torch"))


def initial_model(bench: Bench) -> Path:
    """The image's own untrained model, written by its entry point."""
    folder = bench.root / "initial"
    folder.mkdir()
    folder.chmod(0o777)
    api = docker.DockerClient(ENGINE_URL)
    api.containers.run(
        bench.image, ["--initial", "/initial"], network_mode="none", remove=True, volumes=[f"{folder}:/initial"]
    )
    return folder


def publish(bench: Bench, job: str, hospital: int, studies: int, seed: int) -> None:
    """Fill the job's `/data` with `studies` labelled studies, as publication does."""
    random = np.random.default_rng([hospital, seed])
    data = bench.root / "work" / job / "data"
    entries, labels = [], {}
    for number in range(studies):
        scan = make_scan(random, number % 2, SCANNERS[hospital])
        name = f"s-{number:04d}"
        folder = data / "studies" / name
        folder.mkdir(parents=True)
        for index, pixels in enumerate(scan.pixels):
            write_slice(folder / f"{index:04d}.dcm", index, pixels)
        entries.append({"study": name, "patient": name, "split": "train", "folder": f"studies/{name}", "instances": 3})
        labels[name] = scan.label
    (data / "manifest.json").write_text(json.dumps({"studies": entries}))
    table = pyarrow.table({"study": list(labels), "lesion": list(labels.values())})
    pyarrow.parquet.write_table(table, data / "clinical.parquet")
    for at in (data, *data.rglob("*")):
        at.chmod(0o755 if at.is_dir() else 0o644)


class Hospital:
    """One job's container, given one task after the other, on these GPUs."""

    def __init__(
        self, bench: Bench, broker: Broker, job: str, number: int, studies: int, seed: int, gpus: tuple[str, ...] = ()
    ) -> None:
        self.bench, self.broker, self.job, self.tasks = bench, broker, job, 0
        spec = bench.spec(job, resources=replace(LIMITS_TORCH, gpus=len(gpus)), gpu_devices=gpus)
        publish(bench, job, number, studies, seed)
        broker.prepare(bench.sign(spec))
        self.events = broker.execute(job)

    def ask(self, kind: str, model: bytes) -> dict[str, bytes]:
        self.tasks += 1
        self.bench.give(self.job, self.tasks, kind, model=model, **CONFIG)
        seen: list[JobEvent] = []
        while not seen or seen[-1].kind not in ("done", "exited", "out_of_memory"):
            seen.append(next(self.events))
        assert seen[-1] == JobEvent("done", task=self.tasks)
        return by_name(self.broker.finalise(self.job, self.tasks))


def test_the_initial_model_comes_with_its_schema(torch_bench: Bench) -> None:
    folder = initial_model(torch_bench)
    weights = load_file(folder / "initial.safetensors")
    schema = [
        TensorSpec(entry["name"], tuple(entry["shape"]), Dtype(entry["dtype"]))
        for entry in json.loads((folder / "tensors.json").read_text())
    ]
    assert {spec.name: spec.shape for spec in schema} == {name: array.shape for name, array in weights.items()}
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}


OF_TORCH = """
import copy, sys
sys.path.insert(0, "/opt/cloister")
sys.argv = ["train.py", "--initial", "/tmp/initial"]
import torch, train
train.main()
model, volumes, labels = train.initial_model(), torch.randn(8, 3, 64, 64), torch.tensor([0.0, 1.0] * 4)
theirs = copy.deepcopy(model)
config = {"epochs": 2, "learning-rate": 0.01, "batch-size": 4, "seed": 3}
train.train(model, volumes, labels, config)
loaded = [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]
assert not loaded, loaded[:3]
assert torch.are_deterministic_algorithms_enabled()

class Theirs:
    def __init__(self, model, rate):
        self.adam = torch.optim.Adam(model.parameters(), lr=rate)
    def step(self, loss):
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

train.Adam = Theirs
train.train(theirs, volumes, labels, config)
for one, other in zip(model.parameters(), theirs.parameters()):
    assert torch.allclose(one, other, atol=1e-6), (one - other).abs().max()
"""


def test_it_loads_nothing_of_torchs_compiler_and_its_adam_is_torchs(torch_bench: Bench) -> None:
    api = docker.DockerClient(ENGINE_URL)
    api.containers.run(
        torch_bench.image, ["-c", OF_TORCH], entrypoint="python3", network_mode="none", remove=True, user="65532:65532"
    )


def test_training_twice_gives_the_same_bytes(torch_bench: Bench) -> None:
    """So that a hub may ask again after a crash and get what it would have got."""
    broker = torch_bench.broker()
    model = (initial_model(torch_bench) / "initial.safetensors").read_bytes()
    hospital = Hospital(torch_bench, broker, "twice", 0, 16, seed=3)
    first, second = hospital.ask("train", model), hospital.ask("train", model)
    assert first == second
    assert first["model.safetensors"] != model


@pytest.mark.slow
def test_three_hospitals_learn_to_find_lesions_in_three_rounds(torch_bench: Bench) -> None:
    broker = torch_bench.broker()
    model = (initial_model(torch_bench) / "initial.safetensors").read_bytes()
    hospitals = [Hospital(torch_bench, broker, f"train-{n}", n, 60, seed=1) for n in range(3)]
    judge = Hospital(torch_bench, broker, "evaluate", 0, 60, seed=2)
    assert metrics(judge.ask("evaluate", model))["auc"] <= 0.65
    for _ in range(3):
        began = time.monotonic()
        answers = [hospital.ask("train", model) for hospital in hospitals]
        model = average([(metrics(one)["num-examples"], one["model.safetensors"]) for one in answers])
        print(f"round: {time.monotonic() - began:.1f} s")
    final = metrics(judge.ask("evaluate", model))
    assert final["auc"] >= 0.85
    assert set(final) == {"auc", "loss", "num-examples"}


def metrics(files: dict[str, bytes]) -> dict[str, float]:
    return dict(json.loads(files["metrics.json"]))


def average(answers: list[tuple[float, bytes]]) -> bytes:
    """FedAvg, as Flower's strategy of that name."""
    total = sum(weight for weight, _ in answers)
    parts = [(weight / total, load(content)) for weight, content in answers]
    names = parts[0][1]
    return save({name: np.float32(sum(share * weights[name] for share, weights in parts)) for name in names})
