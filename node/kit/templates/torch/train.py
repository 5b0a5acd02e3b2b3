"""A torch training job under Cloister's job contract: replace the network, the loading and the loss by yours.

It tells studies with a lesion from studies without one. The names, shapes and types of the network's tensors stand in
permit.json (`python3 train.py --tensors` prints them), its metrics and configuration too.
"""

import json
import sys

import numpy as np
import torch
from cloister_job.contract import Task, Tasks
from cloister_job.dataset import Dataset
from cloister_job.initial import offer_initial
from cloister_job.loader import batches, default_workers
from torch import nn

LABEL = "lesion"
SHAPE = (3, 64, 64)  # slices, rows, columns that every study is cut or padded to
# the types that may leave, as a permit calls them
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int32: "I32", torch.int64: "I64"}


class Net(nn.Module):
    """(studies, slices, rows, columns) float32 -> (studies,) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2)
        self.conv2 = nn.Conv2d(8, 8, 5, padding=2)
        self.head = nn.Linear(8, 1)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        studies, slices, rows, columns = volumes.shape
        x = nn.functional.avg_pool2d(volumes.reshape(studies * slices, 1, rows, columns), 2)
        x = nn.functional.leaky_relu(self.conv1(x), 0.1)
        x = nn.functional.leaky_relu(self.conv2(x), 0.1)
        x = x.reshape(studies, slices, x.shape[1], -1).transpose(1, 2).flatten(2)
        # how far the largest answer stands out among all of the study's
        return self.head((x.amax(2) - x.mean(2)) / (x.std(2) + 1e-3) - 4).squeeze(1)


def examples(data: Dataset, size: int, shuffle: int | None):
    """Batches of ((studies, slices, rows, columns) float32, (studies,) float32 labels) on the device."""
    labels = data.column(LABEL)
    labelled = [study for study in data.studies if labels.get(study.id) is not None]
    for batch in batches(data, labelled, size, shape=SHAPE, shuffle=shuffle, workers=default_workers()):
        volumes = batch.volumes
        # scanners differ in level and contrast: each study to mean 0 and deviation 1
        mean, deviation = volumes.mean((1, 2, 3), keepdims=True), volumes.std((1, 2, 3), keepdims=True)
        wanted = np.array([labels[study.id] for study in batch.studies], np.float32)
        yield torch.from_numpy((volumes - mean) / (deviation + 1e-6)).to(DEVICE), torch.from_numpy(wanted).to(DEVICE)


def train(task: Task, data: Dataset) -> None:
    net = loaded(task)
    optimiser = torch.optim.Adam(net.parameters(), lr=float(task.config["learning-rate"]))
    epochs, total, seen = int(task.config["epochs"]), 0.0, 0
    for epoch in range(epochs):
        total, seen = 0.0, 0
        for volumes, labels in examples(data, int(task.config["batch-size"]), shuffle=epoch):
            loss = nn.functional.binary_cross_entropy_with_logits(net(volumes), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, seen = total + float(loss.detach()) * len(labels), seen + len(labels)
        task.progress((epoch + 1) / epochs)
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in net.state_dict().items()}
    task.finish(model=weights, metrics={"loss": total / seen, "num-examples": seen})


def evaluate(task: Task, data: Dataset) -> None:
    net, total, right, seen = loaded(task), 0.0, 0, 0
    with torch.no_grad():
        for volumes, labels in examples(data, 8, shuffle=None):
            logits = net(volumes)
            total += float(nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum"))
            right, seen = right + int(((logits > 0) == (labels > 0.5)).sum()), seen + len(labels)
    task.finish(metrics={"loss": total / seen, "accuracy": right / seen, "num-examples": seen})


def loaded(task: Task) -> Net:
    net = Net()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in task.model().items()})
    return net.to(DEVICE)


def print_tensors() -> None:
    """The network's tensors as permit.json names them, in the order in which every task will hand them over."""
    tensors = Net().state_dict().items()
    named = [{"name": name, "shape": list(one.shape), "dtype": DTYPES[one.dtype]} for name, one in tensors]
    print(json.dumps(named, indent=1))


def untrained() -> dict[str, torch.Tensor]:
    """What the hub begins with; equal every time it is made."""
    torch.manual_seed(0)
    return Net().state_dict()


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if __name__ == "__main__":
    if "--tensors" in sys.argv:
        sys.exit(print_tensors())
    offer_initial(untrained)  # started as `--initial FOLDER` it writes the untrained model there, and ends
    tasks = Tasks()  # first: from here on, an exception's class is told
    data = Dataset()
    for task in tasks:
        (train if task.kind == "train" else evaluate)(task, data)
