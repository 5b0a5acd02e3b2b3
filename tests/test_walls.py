"""The walls between a node's processes are contracts (`pyproject.toml`). Each must fail when it is breached, deep
inside too, so every breach is planted in a copy of the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from node.host.processes import ROLES

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("node", "mediator", "containers", "federation", "durable")
LINT = Path(sys.executable).with_name("lint-imports")

# contract: the module of that process it is planted in, and the import
BREACHES = {
    "core": [
        ("node/core/process.py", "import httpx"),
        ("node/core/datasets/publish.py", "import requests"),
        ("federation/client/objects.py", "import flwr.app"),
        ("node/core/store/engine.py", "from federation import tls"),
        ("containers/warm/pool.py", "from containers import engine"),
        ("mediator/permit.py", "import aiohttp"),
        ("node/core/records.py", "import node.deid.engine"),
    ],
    "broker": [
        ("node/broker/process.py", "import flwr"),
        ("containers/volumes.py", "import sqlalchemy"),
        ("node/ipc/broker.py", "from federation import tls"),
        ("containers/lines.py", "import node.core.store.store"),
        ("node/host/keys.py", "import mediator.admission"),
    ],
    "link": [
        ("node/link/process.py", "import docker"),
        ("federation/client/link.py", "import containers.engine"),
        ("federation/tree.py", "import node.deid.engine"),
        ("node/ipc/channel.py", "import sqlite3"),
        ("federation/client/control.py", "from mediator.release import decide"),
        ("federation/files.py", "import federation.hub.state"),
    ],
    "intake": [
        ("node/intake/process.py", "from federation.client import control"),
        ("node/deid/source_folder.py", "import aiohttp"),
        ("node/deid/stream.py", "import containers.broker"),
        ("node/deid/deidentify.py", "import node.core.store.store"),
        ("node/host/keys.py", "import flwr"),
    ],
    "mediator": [
        ("mediator/admission.py", "from mediator.release import decide"),
        ("mediator/release/decide.py", "import mediator.airlock.tables"),
        ("mediator/tensors.py", "import mediator.admission"),
    ],
    "hub": [
        ("federation/hub/conductor.py", "from mediator.release import decide"),
        ("federation/client/link.py", "import mediator.admission"),
        ("federation/control.py", "import mediator.deid.rules"),
    ],
    "house": [
        ("node/intake/run_import.py", "import node.core.context"),
        ("node/link/process.py", "from node.broker import process"),
        ("node/kit/trial.py", "import node.core.datasets.publish"),
        ("node/deid/engine.py", "import node.intake.run_import"),
        ("node/ipc/channel.py", "import node.core.records"),
        ("node/host/config.py", "import node.ipc.verb"),
        ("containers/broker.py", "import node.host.keys"),
        ("mediator/permit.py", "import containers.gpu"),
        ("mediator/permit.py", "import durable.files"),
        ("durable/files.py", "import mediator.errors"),
    ],
    "cycles": [
        ("node/host/paths.py", "import node.host.supervisor"),
        ("node/core/store/rows.py", "import node.core.store.store"),
        ("node/core/tasks/run_job.py", "from node.core.airlock.airlock import hold"),
        ("mediator/types.py", "import mediator.permit"),
    ],
}
# of every process one, two that hold the whole house, and two that keep gates where they are
CONTRACTS = {*ROLES, "house", "cycles", "mediator", "hub"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        shutil.copytree(REPO / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    shutil.copy(REPO / "pyproject.toml", folder)
    return folder


def lint(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--no-logo", "--no-cache", "--contract", contract]
    # what is checked is the copy, not the sources this interpreter finds by itself
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def name_of(contract: str) -> str:
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return str(next(each["name"] for each in contracts if each["id"] == contract))


def test_every_process_has_a_wall() -> None:
    assert BREACHES.keys() == CONTRACTS


@pytest.mark.parametrize("contract", BREACHES)
def test_the_wall_stands(copy: Path, contract: str) -> None:
    """Positive control: the copy is whole, and nothing is planted in it yet."""
    assert lint(copy, contract).returncode == 0


@pytest.mark.parametrize(
    ("contract", "place", "breach"),
    [(contract, *planted) for contract, plants in BREACHES.items() for planted in plants],
)
def test_a_breach_is_seen(copy: Path, contract: str, place: str, breach: str) -> None:
    module = copy / place
    before = module.read_text("utf-8")
    try:
        module.write_text(f"{before}\n\ndef _planted() -> None:\n    {breach}\n", "utf-8")
        done = lint(copy, contract)
    finally:
        module.write_text(before, "utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{name_of(contract)} BROKEN" in " ".join(done.stdout.split())
