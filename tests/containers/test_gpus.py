"""A training job sees exactly the GPUs it was granted, asked of the driver inside the sealed container.

Needs GPUs, and the engine's NVIDIA runtime (nvidia-container-toolkit).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from containers.engine import Engine
from containers.job_log import job_log
from tests.containers.bench import LIMITS, Bench, by_name, image_id, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.needs_gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no GPU on this machine"),
]
UUID = re.compile(r"(GPU-[0-9a-f-]+)\)")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench.make(tmp_path, image_id("cloister-attacker"))
    ceiling = replace(made.site.ceiling, gpus=16, gpu_memory_bytes=1 << 40)
    made.site = replace(made.site, ceiling=ceiling)
    yield made
    made.broker().clean([])


@pytest.fixture(scope="module")
def gpus() -> list[str]:
    """Every GPU of this machine, by UUID."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    return UUID.findall(listed)


def seen(bench: Bench, job: str, granted: tuple[str, ...]) -> tuple[set[str], int, int]:
    """What a job finds that was granted these: UUIDs, how many the driver lists, how many device nodes open."""
    broker = bench.broker()
    spec = bench.spec(job, resources=replace(LIMITS, gpus=len(granted), pids=256), gpu_devices=granted)
    broker.prepare(bench.sign(spec))
    bench.give(job, 1, misbehave="show-gpus")
    assert until(broker.execute(job), "done", "exited", "failed").kind == "done"
    metrics = json.loads(by_name(broker.finalise(job, 1))["metrics.json"])
    lines = b"\n".join(job_log(Engine(bench.url), bench.site.site, job, follow=False)).decode()
    return set(UUID.findall(lines)), metrics["num-examples"], metrics["loss"]


def test_each_gpu_by_itself(bench: Bench, gpus: list[str]) -> None:
    for number, gpu in enumerate(gpus):
        assert seen(bench, f"job-{number}", (gpu,)) == ({gpu}, 1, 1)


def test_all_of_them_and_all_but_one(bench: Bench, gpus: list[str]) -> None:
    assert seen(bench, "all", tuple(gpus)) == (set(gpus), len(gpus), len(gpus))
    if len(gpus) > 1:
        assert seen(bench, "fewer", tuple(gpus[1:])) == (set(gpus[1:]), len(gpus) - 1, len(gpus) - 1)


def test_a_job_without_a_grant_sees_none(bench: Bench) -> None:
    assert seen(bench, "none", ()) == (set(), 0, 0)
