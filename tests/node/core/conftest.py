"""A core whose job waits at a gate; files with another kind of desk have a fixture of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.core.desk import Desk, Gate


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def desk(tmp_path: Path, gate: Gate) -> Iterator[Desk]:
    made = Desk(tmp_path, gate)
    made.jobs.start()
    yield made
    gate.open.set()
    made.jobs.stop()
    made.core.store.close()
