"""What `isolation.py` times: a small network trained on slices read from files, in a bare process or in the sandbox.

isolation_work.py IN OUT      reads IN/tasks/<n>/task.json, trains `config.steps` steps, writes OUT/<n>/metrics.json
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

SLICES, SIDE, BATCH = 64, 64, 16


def train(steps: int, scratch: Path) -> float:
    """Train; the last loss. Each step reads its batch from files, as a data loader does."""
    torch.manual_seed(7)
    random = np.random.default_rng(7)
    for number in range(SLICES):
        np.save(scratch / f"{number}.npy", random.normal(size=(1, SIDE, SIDE)).astype(np.float32))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(32, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss = torch.zeros(())
    for step in range(steps):
        chosen = [(step * BATCH + offset) % SLICES for offset in range(BATCH)]
        batch = torch.from_numpy(np.stack([np.load(scratch / f"{number}.npy") for number in chosen]))
        target = batch.mean(dim=(1, 2, 3)).reshape(-1, 1)
        loss = torch.nn.functional.mse_loss(model(batch), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.item())


def main(inbox: Path, out: Path) -> None:
    torch.set_num_threads(1)
    number = 1
    while not (inbox / "stop").exists():
        order = inbox / "tasks" / str(number) / "task.json"
        if not order.exists():
            time.sleep(0.02)
            continue
        steps = json.loads(order.read_text())["config"]["steps"]
        scratch = Path(os.environ.get("HOME", "/tmp"))
        wall, cpu = time.perf_counter(), time.process_time()
        loss = train(steps, scratch)
        measured = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": loss}
        (out / str(number)).mkdir(parents=True)
        (out / str(number) / "metrics.json").write_text(json.dumps(measured))
        (out / str(number) / "DONE").touch()
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
