"""The reference job: a small network that finds a local lesion in CT-like studies. The image's entry point.

    train.py                        serve the job contract
    train.py --initial FOLDER       write FOLDER/initial.safetensors and FOLDER/tensors.json for a permit, and end

train:    config {"epochs", "learning-rate", "batch-size", "seed"}, metrics {"loss", "num-examples"}
evaluate: the same config keys are accepted, metrics {"auc", "loss", "num-examples"}

The network convolves every slice by itself and asks how far the largest and the least answer of all slices stand out: a
lesion anywhere counts, and where it lies does not. No batch statistics, so averaging weights is averaging models.

It computes on the GPU it was granted, and on the CPU where it was granted none. The same task gives the same bytes on
the same kind of device; a GPU and a CPU, or two kinds of GPU, differ in the last digits.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cloister_job.contract import Task, Tasks
from cloister_job.dataset import Dataset
from safetensors.numpy import save_file
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from torch import nn

LABEL = "lesion"
INITIAL_SEED = 2026
DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class LesionNet(nn.Module):
    """(studies, slices, rows, columns) float32 → (studies,) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2)
        self.conv2 = nn.Conv2d(8, 8, 5, padding=2)
        self.head = nn.Linear(16, 1)
        # untrained it says the same of every study; largest answers of random filters would already tell something
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        studies, slices, rows, columns = volume.shape
        x = nn.functional.avg_pool2d(volume.reshape(studies * slices, 1, rows, columns), 2)
        # leaky: averaging models moves biases, and a unit that is silent everywhere would never speak again
        x = self.conv2(nn.functional.leaky_relu(self.conv1(x), 0.1))
        everywhere = x.reshape(studies, slices, x.shape[1], -1).transpose(1, 2).flatten(2)
        # how far the largest and the least answer stand out among all of this study's; about 4 where there is only
        # noise. Bare maxima share a large mean that drowns the gradient: one start in ten then learnt nothing. Both
        # ends, so that a hospital of bright lesions and one of dark ones shape the same filters and not each other's
        mean, spread = everywhere.mean(2), everywhere.std(2) + 1e-3
        peaks = torch.cat([everywhere.amax(2) - mean, mean - everywhere.amin(2)], 1) / torch.cat([spread, spread], 1)
        return self.head(peaks - 4).squeeze(1)


def load(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Every labelled study in view, on the device: (studies, slices, rows, columns) and (studies,) labels, float32.

    Each study is brought to mean 0 and deviation 1, since scanners differ in both. A shorter study repeats its last
    slice, which changes no maximum.
    """
    labels = data.column(LABEL)
    studies = [study for study in data.studies if labels.get(study.id) is not None]
    volumes = [data.volume(study) for study in studies]
    slices = max(len(volume) for volume in volumes)
    whole = [np.pad(volume, ((0, slices - len(volume)), (0, 0), (0, 0)), mode="edge") for volume in volumes]
    stack = np.stack([(volume - volume.mean()) / (volume.std() + 1e-6) for volume in whole])
    wanted = torch.tensor([float(labels[study.id]) for study in studies])
    return torch.from_numpy(stack.astype(np.float32)).to(DEVICE), wanted.to(DEVICE)


def initial_model() -> LesionNet:
    torch.manual_seed(INITIAL_SEED)
    return LesionNet()


def weights_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def train(model, volumes, labels, config, on_step=lambda fraction: None, begun=None, pause=lambda state: None) -> float:
    """Run `epochs` of Adam from the given weights; the last epoch's mean loss. The same arguments, the same result.

    `pause` hears after each epoch of a function that packs the state; `begun` is such a state to go on from.
    """
    generator = torch.Generator().manual_seed(int(config["seed"]))
    optimiser = Adam(model, float(config["learning-rate"]))
    epochs, batch = int(config["epochs"]), int(config["batch-size"])
    first, total = (0, 0.0) if begun is None else unpack(begun, model, optimiser, generator)
    for epoch in range(first, epochs):
        total = 0.0
        for chosen in torch.randperm(len(labels), generator=generator).split(batch):
            # the lesion's place means nothing, so a flipped study is a new one
            flips = [axis for axis in (2, 3) if torch.rand((), generator=generator) < 0.5]
            loss = nn.functional.binary_cross_entropy_with_logits(model(volumes[chosen].flip(flips)), labels[chosen])
            optimiser.step(loss)
            total += float(loss.detach()) * len(chosen)
        on_step((epoch + 1) / epochs)
        pause(partial(pack, epoch + 1, total, model, optimiser, generator))
    return total / len(labels)


class Adam:
    """Adam as in Kingma and Ba 2015, with their constants. `torch.optim` would load torch's whole compiler with it, of
    which nothing is used here: a start of this program would take twice as long."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.weights, self.rate, self.steps = list(model.parameters()), rate, 0
        self.mean = [torch.zeros_like(weight) for weight in self.weights]
        self.square = [torch.zeros_like(weight) for weight in self.weights]

    def step(self, loss: torch.Tensor) -> None:
        self.steps += 1
        size, root = self.rate / (1 - 0.9**self.steps), (1 - 0.999**self.steps) ** 0.5
        slopes = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for weight, slope, mean, square in zip(self.weights, slopes, self.mean, self.square, strict=True):
                mean.lerp_(slope, 0.1)
                square.mul_(0.999).addcmul_(slope, slope, value=0.001)
                weight.addcdiv_(mean, (square.sqrt() / root).add_(1e-8), value=-size)


def pack(epochs_done, total, model, optimiser, generator) -> bytes:
    """A training between two epochs, as safetensors: weights, Adam's moments and steps, the random generator."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"mean/{number}": moment for number, moment in enumerate(optimiser.mean)}
    tensors |= {f"square/{number}": moment for number, moment in enumerate(optimiser.square)}
    tensors |= {"steps": torch.tensor(optimiser.steps)}
    tensors |= {"generator": generator.get_state(), "total": torch.tensor(total, dtype=torch.float64)}
    return save_torch(tensors | {"epochs": torch.tensor(epochs_done)})


def unpack(state: bytes, model, optimiser, generator) -> tuple[int, float]:
    """Put a training back to where `pack` left it: epochs done, and the last one's total loss."""
    tensors = load_torch(state)
    model.load_state_dict({name: tensors[f"model/{name}"] for name in model.state_dict()})
    optimiser.mean = [tensors[f"mean/{number}"].to(DEVICE) for number in range(len(optimiser.mean))]
    optimiser.square = [tensors[f"square/{number}"].to(DEVICE) for number in range(len(optimiser.square))]
    optimiser.steps = int(tensors["steps"])
    generator.set_state(tensors["generator"])
    return int(tensors["epochs"]), float(tensors["total"])


def evaluate(model, volumes, labels) -> dict[str, float]:
    with torch.no_grad():
        logits = model(volumes)
    loss = float(nn.functional.binary_cross_entropy_with_logits(logits, labels))
    return {"auc": auc(logits.cpu().numpy(), labels.cpu().numpy()), "loss": loss, "num-examples": len(labels)}


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs in the right order; 0.5 where one kind of study is missing."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return 0.5
    difference = positive[:, None] - negative[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def answer(task: Task, volumes: torch.Tensor, labels: torch.Tensor) -> None:
    model = LesionNet().to(DEVICE)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in task.model().items()})
    if task.kind == "train":
        loss = train(model, volumes, labels, task.config, task.progress, task.checkpoint, partial(make_room, task))
        task.finish(model=weights_of(model), metrics={"loss": loss, "num-examples": len(labels)})
    else:
        task.finish(metrics=evaluate(model, volumes, labels))


def make_room(task: Task, state) -> None:
    """Between two epochs: when the hospital asks for the place, leave what is done so far and end."""
    if task.stopping:
        task.leave(state())


def write_initial(folder: Path) -> None:
    """The untrained model, and its tensors as a permit names them, in the order in which a task hands them over."""
    weights = weights_of(initial_model())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "initial.safetensors")
    (folder / "initial.safetensors").chmod(0o644)
    schema = [
        {"name": name, "shape": list(array.shape), "dtype": DTYPES[array.dtype.name]} for name, array in weights.items()
    ]
    (folder / "tensors.json").write_text(json.dumps(schema, indent=1) + "\n", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description="the reference job: finds a local lesion in CT-like studies")
    parser.add_argument("--initial", type=Path, metavar="FOLDER", help="write the untrained model there, and end")
    arguments = parser.parse_args()
    # one thread adds in one order, and so does a GPU that is told to (cuBLAS wants it said before it begins): the same
    # task gives the same bytes, so a task can be asked for again
    torch.set_num_threads(1)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # what `use_deterministic_algorithms(True)` sets, without the compiler that it loads
    torch.set_deterministic_debug_mode("error")
    if arguments.initial:
        return write_initial(arguments.initial)
    tasks = Tasks()
    volumes, labels = load(Dataset())
    for task in tasks:
        answer(task, volumes, labels)


if __name__ == "__main__":
    sys.exit(main())
