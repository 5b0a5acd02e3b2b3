from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.bench import Bench, image_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """The attacking job, which behaves unless a task asks otherwise."""
    made = Bench.make(tmp_path, image_id("cloister-attacker"))
    yield made
    made.broker().clean([])
