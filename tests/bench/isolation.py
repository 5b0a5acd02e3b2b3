"""The price of the sandbox: the same training in a bare process and in a sealed container, and how fast it starts.

    .venv/bin/python -m tests.bench.isolation [--steps 1200] [--rounds 5]      as root, with the engine and the images

The bare process is the image's own files under `chroot`: the same Python, the same torch, none of the restrictions.
Both stay up, and take turns round by round, so that what else this machine does falls on both alike. Reported are the
medians of wall time and of the process's own CPU time, and their ratios (sandbox / bare).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import docker

from mediator.types import Resources
from tests.containers.bench import Bench, by_name, image_id, until

WORK = Path(__file__).with_name("isolation_work.py")
LIMITS = Resources(
    cpus=2.0, memory_bytes=2 << 30, pids=256, wall_time_s=1800, tmp_bytes=64 << 20, out_bytes=4 << 20, out_files=24,
    gpus=0,
)  # fmt: skip


def image_with_work(bench: Bench) -> str:
    """The reference image with the work as its program; its id."""
    api = docker.APIClient(bench.url)
    made = api.create_container(image_id("cloister-job-torch", bench.url))["Id"]
    try:
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            with tarfile.open(file.name, "w") as archive:
                archive.add(WORK, "work.py")
            api.put_archive(made, "/opt/cloister", Path(file.name).read_bytes())
        changes = ['ENTRYPOINT ["python3", "/opt/cloister/work.py", "/in", "/out"]']
        return str(api.commit(made, changes=changes)["Id"])
    finally:
        api.remove_container(made)


class Bare:
    """The work as a plain process on the image's own files, as another user but with nothing else taken away."""

    def __init__(self, bench: Bench, image: str) -> None:
        # outside the bench's folder, whose files the bench gives modes to
        self.root = Path(tempfile.mkdtemp(prefix="cloister-bare-"))
        self.root.chmod(0o755)
        api = docker.APIClient(bench.url)
        made = api.create_container(image)["Id"]
        with subprocess.Popen(["tar", "-x", "-C", self.root], stdin=subprocess.PIPE) as unpack:
            assert unpack.stdin is not None
            for piece in api.export(made):
                unpack.stdin.write(piece)
            unpack.stdin.close()
        api.remove_container(made)
        for name in ("in/tasks", "out", "scratch"):
            (self.root / name).mkdir(parents=True)
        for name in ("out", "scratch"):
            (self.root / name).chmod(0o777)
        # mounted in a namespace of its own, so that nothing here can walk into the machine's devices
        mounts = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"'
        environment = ["HOME=/scratch", "OMP_NUM_THREADS=2", "PATH=/usr/bin:/bin", "PYTHONPATH=/opt/cloister"]
        program = ["env", "-i", *environment, "python3", "/opt/cloister/work.py", "/in", "/out"]
        inside = ["chroot", "--userspec=65532:65532", str(self.root), *program]
        self._process = subprocess.Popen(["unshare", "--mount", "sh", "-c", mounts, str(self.root), *inside])

    def ask(self, number: int, steps: int) -> dict[str, float]:
        part = self.root / "in" / "tasks" / f".{number}.part"
        part.mkdir()
        (part / "task.json").write_text(json.dumps({"config": {"steps": steps}}))
        part.rename(part.with_name(str(number)))
        answer = self.root / "out" / str(number)
        while not (answer / "DONE").exists():
            assert self._process.poll() is None
            time.sleep(0.02)
        return dict(json.loads((answer / "metrics.json").read_text()))

    def close(self) -> None:
        (self.root / "in" / "stop").touch()
        self._process.wait(30)
        shutil.rmtree(self.root)


def cost(bench: Bench, image: str, steps: int, rounds: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """(bare, sandbox) of each round, after one of each that counts for nothing."""
    broker, bare = bench.broker(), Bare(bench, image)
    try:
        broker.prepare(bench.sign(bench.spec(image=image, resources=LIMITS)))
        events = broker.execute("job")
        measured = []

        def sandboxed(number: int) -> dict[str, float]:
            bench.give("job", number, steps=steps)
            until(events, "done")
            return dict(json.loads(by_name(broker.finalise("job", number))["metrics.json"]))

        for number in range(1, rounds + 2):
            if number % 2:  # neither always goes first
                outside, inside = bare.ask(number, steps), sandboxed(number)
            else:
                inside, outside = sandboxed(number), bare.ask(number, steps)
            if number > 1:
                measured.append((outside, inside))
        return measured
    finally:
        bare.close()
        broker.clean([])


def starts(bench: Bench, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds from a signed spec (cold) or from a task's arrival (warm) to its files in our hands: the work is none."""
    cold, warm = [], []
    for number in range(rounds):
        broker, job = bench.broker(), f"start-{number}"
        signed = bench.sign(bench.spec(job, image=image_id("cloister-attacker", bench.url)))
        bench.give(job, 1)
        began = time.perf_counter()
        broker.prepare(signed)
        events = broker.execute(job)
        until(events, "done")
        broker.finalise(job, 1)
        cold.append(time.perf_counter() - began)
        for task in (2, 3):
            began = time.perf_counter()
            bench.give(job, task)
            until(events, "done")
            broker.finalise(job, task)
            warm.append(time.perf_counter() - began)
        broker.terminate(job, 0)
        broker.clean([])
    return cold, warm


def table(measured: list[tuple[dict[str, float], dict[str, float]]], cold: list[float], warm: list[float]) -> None:
    print(f"{'':24}{'bare':>10}{'sandbox':>10}{'ratio':>10}")
    for key, name in (("wall_s", "training, wall (s)"), ("cpu_s", "training, CPU (s)")):
        outside, inside = (statistics.median(pair[side][key] for pair in measured) for side in (0, 1))
        each = sorted(pair[1][key] / pair[0][key] for pair in measured)
        span = f"rounds: {each[0]:.3f} to {each[-1]:.3f}"
        print(f"{name:24}{outside:10.2f}{inside:10.2f}{inside / outside:10.3f}   {span}")
    print(f"{'a task, cold (s)':24}{'':10}{statistics.median(cold):10.2f}")
    print(f"{'a task, warm (s)':24}{'':10}{statistics.median(warm):10.2f}")
    if len({round(entry["loss"], 9) for pair in measured for entry in pair}) != 1:
        print("the two did not compute the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="cloister-isolation-"))
    try:
        bench = Bench.make(root, "sha256:" + "0" * 64)
        bench.site = replace(bench.site, ceiling=LIMITS)
        image = image_with_work(bench)
        try:
            measured = cost(bench, image, asked.steps, asked.rounds)
        finally:
            docker.APIClient(bench.url).remove_image(image, force=True)
        table(measured, *starts(bench, asked.rounds))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
