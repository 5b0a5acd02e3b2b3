"""Benches on the engines that Cloister runs on: the same tests are held against each."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.bench import REPO, Bench, image_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """The attacking job, which behaves unless a task asks otherwise, on Docker."""
    made = Bench.make(tmp_path, image_id("cloister-attacker"))
    yield made
    made.broker().clean([])


@pytest.fixture(scope="session")
def podman_url() -> str:
    """Podman's service beside Docker, with the two images the tests need."""
    command = [REPO / "deploy/lib/podman.sh", "cloister-sentinel", "cloister-attacker"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.strip()


@pytest.fixture
def podman_bench(tmp_path: Path, podman_url: str) -> Iterator[Bench]:
    """The same bench on Podman."""
    made = Bench.make(tmp_path, image_id("cloister-attacker", podman_url), url=podman_url)
    yield made
    made.broker().clean([])
