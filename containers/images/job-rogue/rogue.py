"""A job that answers like the reference job, and then takes more than it may. For the demo's closing act and for tests.

    train: config {…, "misbehave": NAME}       NAME is one of those below; anything else behaves

It learns nothing: the model goes back as it came, changed in the one way that is asked for.
"""

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable

import numpy as np
from cloister_job.contract import Task, Tasks
from safetensors.numpy import save

Behaviour = Callable[[Task, dict[str, np.ndarray]], None]
METRICS = {"loss": 0.5, "num-examples": 64}
FILL_BLOCK = b"\0" * (1 << 20)


def finish(task: Task, model: bytes, metrics: str | None = None) -> None:
    (task.out / "model.safetensors").write_bytes(model)
    (task.out / "metrics.json").write_text(metrics if metrics is not None else json.dumps(METRICS), encoding="utf-8")
    (task.out / "DONE").touch()


# ------------------------------------------------------------------ what gate 2 must refuse: the model


def extra_tensor(task, weights):
    """A study's pixels under an innocent name."""
    finish(task, save({**weights, "head.scale": np.zeros((64, 64), np.float32)}))


def missing_tensor(task, weights):
    finish(task, save(dict(list(weights.items())[1:])))


def trailing_bytes(task, weights):
    """Bytes hidden behind the last tensor."""
    finish(task, save(weights) + b"PATIENT" * 100)


def header_gap(task, weights):
    """Bytes hidden between two tensors: offsets that leave a hole."""
    whole = save(weights)
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    last = max((name for name in header), key=lambda name: header[name]["data_offsets"][0])
    hole = 64
    header[last]["data_offsets"] = [offset + hole for offset in header[last]["data_offsets"]]
    start = header[last]["data_offsets"][0] - hole
    body = whole[8 + size :]
    printed = json.dumps(header).encode()
    finish(task, struct.pack("<Q", len(printed)) + printed + body[:start] + b"P" * hole + body[start:])


def metadata(task, weights):
    finish(task, save(weights, metadata={"note": "text that no permit names"}))


def wrong_dtype(task, weights):
    finish(task, save({name: array.astype(np.float64) for name, array in weights.items()}))


def wrong_shape(task, weights):
    finish(task, save({name: array.reshape(-1) for name, array in weights.items()}))


def not_a_number(task, weights):
    """Payload bits in NaN: 22 of them in each value."""
    finish(task, save({name: np.full_like(array, np.nan) for name, array in weights.items()}))


def denormals(task, weights):
    """Bits in numbers too small to change the model. Released, but flushed to zero."""
    finish(task, save({name: np.full_like(array, 1e-42) for name, array in weights.items()}))


def huge_update(task, weights):
    """Released, but clipped to the permit's norm."""
    finish(task, save({name: array + np.float32(1e6) for name, array in weights.items()}))


# ------------------------------------------------------------------ the metrics


def long_metric(task, weights):
    finish(task, save(weights), json.dumps({**METRICS, "loss": 0.123456789012345}))


def extra_metric(task, weights):
    finish(task, save(weights), json.dumps({**METRICS, "patient-17": 1.0}))


def text_metric(task, weights):
    finish(task, save(weights), json.dumps({**METRICS, "loss": "text"}))


def large_metrics(task, weights):
    finish(task, save(weights), json.dumps(METRICS) + " " * 100_000)


def deep_metrics(task, weights):
    finish(task, save(weights), "[" * 50_000)


# ------------------------------------------------------------------ the folder


def symlink(task, weights):
    (task.out / "metrics.json").symlink_to("/etc/passwd")
    finish_without_metrics(task, weights)


def fifo(task, weights):
    os.mkfifo(task.out / "metrics.json")
    finish_without_metrics(task, weights)


def hard_link(task, weights):
    (task.out / "progress.jsonl").write_text("{}\n")
    os.link(task.out / "progress.jsonl", task.out / "metrics.json")
    finish_without_metrics(task, weights)


def folder(task, weights):
    (task.out / "metrics.json").mkdir()
    finish_without_metrics(task, weights)


def unknown_name(task, weights):
    (task.out / "patients\n.csv").write_text("name")
    finish(task, save(weights))


def sparse_file(task, weights):
    with open(task.out / "metrics.json", "wb") as file:
        file.truncate(10 << 30)
    finish_without_metrics(task, weights)


def unreadable(task, weights):
    finish(task, save(weights))
    (task.out / "metrics.json").chmod(0)


def finish_without_metrics(task, weights):
    (task.out / "model.safetensors").write_bytes(save(weights))
    (task.out / "DONE").touch()


def fill_files(task, weights):
    """As many files as the volume takes."""
    try:
        for number in range(10_000_000):
            (task.out / f"{number}").touch()
    except OSError:
        (task.out / "0").rename(task.out / "DONE")
        wait_for_the_end()


def fill_bytes(task, weights):
    try:
        with open(task.out / "model.safetensors", "wb") as file:
            while True:
                file.write(FILL_BLOCK)
    except OSError:
        (task.out / "DONE").touch()
        wait_for_the_end()


def deep_folders(task, weights):
    """Folders deeper than a path may be long, each shut behind us."""
    home = os.getcwd()
    os.chdir(task.out.parent)
    for level in range(int(task.config["depth"])):
        os.mkdir("d")
        os.chdir("d")
        if level:
            os.chmod("..", 0)
    os.chdir(home)
    finish(task, save(weights))


# ------------------------------------------------------------------ the process


def change_after_done(task, weights):
    """Something harmless until DONE, something else until we are frozen."""
    finish(task, save(weights))
    while True:
        (task.out / "metrics.json").write_text(json.dumps({**METRICS, "num-examples": time.time_ns() % 1000}))


def ignore_sigterm(task, weights):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_the_end()


def memory_bomb(task, weights):
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20) * 16))


def fork_bomb(task, weights):
    children = 0
    try:
        while True:
            if os.fork() == 0:
                wait_for_the_end()
            children += 1
    except OSError:
        finish(task, save(weights), json.dumps({**METRICS, "num-examples": children}))


def fill_log(task, weights):
    for _ in range(200):
        sys.stdout.write("patient " * (1 << 17))
    sys.stdout.flush()
    finish(task, save(weights))


def keep_files(task, weights):
    """What the last task left in scratch space and beside its folder, told by a count."""
    left = [path for path in (task.out.parent / "kept", task.out.parent / "1" / "kept") if path.exists()]
    (task.out.parent / "kept").write_text("from one task to the next")
    finish(task, save(weights), json.dumps({**METRICS, "num-examples": len(left)}))


def linger(task, weights):
    """A second process stays behind and puts a file into the next task's folder."""
    notes = task.out / "notes.csv"
    if task.number == 1:
        if os.fork() == 0:
            haunt(task.out.parent / "2" / notes.name)
    else:
        while not notes.exists():
            time.sleep(0.01)
    finish(task, save(weights))


def haunt(path):
    while True:
        if path.parent.is_dir():
            path.write_text("name")
        time.sleep(0.01)


def slow(task, weights):
    """Nothing wrong, but five seconds of it."""
    for step in range(10):
        time.sleep(0.5)
        task.progress((step + 1) / 10)
    finish(task, save(weights))


def exit_at_once(task, weights):
    sys.exit(37)


def over_time(task, weights):
    wait_for_the_end()


def wait_for_the_end():
    while True:
        time.sleep(1)


BEHAVIOURS = {
    behave.__name__.replace("_", "-"): behave
    for behave in (
        extra_tensor, missing_tensor, trailing_bytes, header_gap, metadata, wrong_dtype, wrong_shape, not_a_number,
        denormals, huge_update, long_metric, extra_metric, text_metric, large_metrics, deep_metrics, symlink, fifo,
        hard_link, folder, unknown_name, sparse_file, unreadable, fill_files, fill_bytes, deep_folders,
        change_after_done, ignore_sigterm, memory_bomb, fork_bomb, fill_log, keep_files, linger, slow, exit_at_once,
        over_time,
    )
}  # fmt: skip


def main() -> None:
    for task in Tasks():
        weights = task.model()
        if task.kind == "evaluate":
            task.finish(metrics={"auc": 0.5, **METRICS})
        elif behave := BEHAVIOURS.get(str(task.config.get("misbehave", ""))):
            behave(task, weights)
        else:
            task.finish(model=weights, metrics=METRICS)


if __name__ == "__main__":
    sys.exit(main())
