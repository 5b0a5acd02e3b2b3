from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.install.machine import Machine
from tests.installer.ground import build, engine


@pytest.fixture
def bare() -> Iterator[Machine]:
    """A machine without an engine. Its folder's name is short: a socket's path has 108 bytes."""
    root = Path(tempfile.mkdtemp(prefix="inst-", dir="/tmp"))
    root.chmod(0o755)
    yield build(root)
    shutil.rmtree(root)


@pytest.fixture
def machine(bare: Machine) -> Iterator[Machine]:
    """A machine with an engine that answers, and nothing of ours."""
    with engine(bare.root):
        yield bare
