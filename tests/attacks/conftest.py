from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.bench import Bench, image_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """The misbehaving job's image, which behaves unless a task asks otherwise."""
    made = Bench.make(tmp_path, image_id("cloister-job-rogue"))
    yield made
    made.broker().clean([])
