from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.core.store.store import Store, open_store
from tests.node.core.store.samples import NOW


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'node.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url, NOW)
    yield opened
    opened.close()
