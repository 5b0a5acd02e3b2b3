"""`--stop` ends what `--keep` left, and nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo import keeping
from deploy.driver.services import Service

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Service]:
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield Service("node-aster", process, tmp_path / "log")
    process.kill()
    process.wait()


def test_what_was_kept_is_ended(tmp_path: Path, sleeper: Service) -> None:
    keeping.write(tmp_path, [sleeper])
    assert [entry.pid for entry in keeping.read(tmp_path)] == [sleeper.process.pid]
    assert keeping.stop(tmp_path) == ["node-aster"]
    assert sleeper.process.wait(timeout=5) != 0
    assert not (tmp_path / keeping.FILE).exists()


def test_another_process_that_got_the_same_number_is_left_alone(tmp_path: Path, sleeper: Service) -> None:
    keeping.write(tmp_path, [sleeper])
    noted = json.loads((tmp_path / keeping.FILE).read_text())
    noted[0]["started"] -= 1
    (tmp_path / keeping.FILE).write_text(json.dumps(noted))
    assert keeping.stop(tmp_path) == []
    assert sleeper.process.poll() is None


def test_nothing_kept_is_nothing_to_stop(tmp_path: Path) -> None:
    assert keeping.stop(tmp_path) == []
