"""`cloister node self-test` and `cloister check --self-test`: what a person is told of a job of nobody's."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from containers import self_test_job
from node.core import staff
from node.core.core import CoreProcess
from node.host.config import load_config
from node.host.keys import read_verify_key
from node.host.state import prepare_state
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.node.core.process.test_process import configured
from tests.sim.runner import FakeRunner


@dataclass
class Running:
    """A node's core that is running over an engine that is played."""

    config: Path
    answers: bool = True

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(CLOISTER), *words, "--config", str(self.config), "--json"]
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.fixture
def running() -> Iterator[Running]:
    root = Path(tempfile.mkdtemp(prefix="cl-"))  # a socket's path is short
    configured(root)
    made = Running(root / "node.toml")
    config = load_config(made.config)
    prepare_state(config)

    def job(_task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        read = self_test_job.what_was_read(runner.specs[-1].data_dir)
        answer = self_test_job.one_more(model) if made.answers else model
        return {"model.safetensors": answer, "metrics.json": json.dumps(read).encode()}

    runner = FakeRunner(read_verify_key(config.paths.verdict_public_key), {config.engine.sentinel: job})
    core = CoreProcess(config, runner)
    core.trust._run_canary = lambda _name, _spec, expected: (expected or "f" * 64, ())
    core.start()
    servers = staff.servers(config, core)
    for server in servers:
        server.start()
    yield made
    for server in servers:
        server.stop()
    core.stop()
    shutil.rmtree(root)


def checked(running: Running) -> dict[str, Any]:
    said = json.loads(running.ask("check", "--self-test").stdout)
    found: dict[str, Any] = next(each for each in said if each["what"] == "self-test")
    return found


def test_a_person_is_told_that_a_job_was_run_or_why_it_was_not(running: Running) -> None:
    done = running.ask("node", "self-test")
    assert done.returncode == 0 and json.loads(done.stdout)["failure"] == "", done
    assert checked(running)["state"] == "ok"
    running.answers = False
    done = running.ask("node", "self-test")
    assert done.returncode == 5 and "error: the job did not end as it must: contract_violation" in done.stderr, done
    found = checked(running)
    assert found["state"] == "missing" and "contract_violation" in found["detail"] and found["mend"], found
