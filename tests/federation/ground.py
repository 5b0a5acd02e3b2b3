"""The ground the federation's tests stand on: a real hub process, enrolled sites with real keys, signed documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from federation import control
from federation.client import enrolment
from federation.client.enrolment import LinkConfig
from federation.client.link import run_link
from federation.hub.config import HubConfig, load_config
from federation.hub.state import HubState
from federation.protocol import PROTOCOL
from mediator import tensors
from mediator.permit import schema_sha256
from mediator.signatures import KeyRing, SigningKey
from mediator.types import (
    ConfigField,
    DataPermit,
    Dtype,
    Kind,
    MetricSpec,
    Person,
    Resources,
    RevocationList,
    RunOrder,
    SiteDatasets,
    TensorSpec,
)
from tests.sim.core import FakeCore
from tests.sim.users import as_user

ROOT = Path(__file__).parents[2]
IMAGE = "sha256:" + "ab" * 32
SPECS = (
    TensorSpec("layer.bias", (), Dtype.F64),
    TensorSpec("layer.steps", (2,), Dtype.I64),
    TensorSpec("layer.weight", (100, 100), Dtype.F32),
)
SITES = ("aachen", "bergen", "coimbra")


def key(letter: str) -> SigningKey:
    return SigningKey(letter.encode() * 32)


COMMITTEE, RESEARCHER = key("c"), key("r")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def model(fill: float = 0.0) -> dict[str, np.ndarray]:
    return {
        "layer.bias": np.array(fill, dtype=np.float64),
        "layer.steps": np.array([3, 4], dtype=np.int64),
        "layer.weight": np.full((100, 100), fill, dtype=np.float32),
    }


def permit(**changes: Any) -> DataPermit:
    now = datetime.now(UTC).replace(microsecond=0)
    count = MetricSpec("num-examples", "count", 0, 1e6, 0)
    loss = MetricSpec("loss", "value", 0, 1e6, 6)
    values: dict[str, Any] = {
        "permit": "p1",
        "permit_version": 1,
        "supersedes": None,
        "issuer": COMMITTEE.key_id,
        "purpose": "test",
        "legal_basis": "test",
        "project": "demo",
        "not_before": now - timedelta(days=1),
        "expires": now + timedelta(days=1),
        "persons": (Person("r", "o", RESEARCHER.verify_key.text),),
        "tools": (),
        "conditions": (),
        "kinds": (Kind.TRAIN, Kind.EVALUATE),
        "images": (IMAGE,),
        "datasets": tuple(SiteDatasets(site, ("sha256:" + "cd" * 32,)) for site in SITES),
        "columns": (),
        "tensors": SPECS,
        "config": (ConfigField("rate", "float", 0.0, 1.0, ()),),
        "metrics": {"train": (loss, count), "evaluate": (loss, MetricSpec("auc", "value", 0, 1, 4), count)},
        "clip_norm": 10.0,
        "count_threshold": 1,
        "privacy": None,
        "maximum_rounds": 100,
        "byte_budget": 1 << 40,
        "minimum_studies": 1,
        "resources": Resources(1.0, 1 << 30, 100, 600, 1 << 20, 1 << 26, 10, 0),
    }
    return DataPermit(**(values | changes))


def order(run: str, *, rounds: int = 3, sites: Sequence[str] = SITES, **changes: Any) -> RunOrder:
    values: dict[str, Any] = {
        "run": run,
        "permit": "p1",
        "permit_version": 1,
        "image": IMAGE,
        "sites": tuple(sites),
        "schema_sha256": schema_sha256(SPECS),
        "config": {"rate": 0.1},
        "strategy": "fedavg",
        "rounds": rounds,
        "nonce": run,
        "expires": datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1),
    }
    return RunOrder(**(values | changes))


@dataclass
class Town:
    """A hub's folder with its desk, and the hub process when it runs."""

    folder: Path
    config: HubConfig
    hub: HubState
    process: subprocess.Popen[bytes] | None = None
    keys: dict[str, SigningKey] = field(default_factory=dict)
    # which protocol each side is of
    hub_speaks: int = PROTOCOL
    nodes_speak: int = PROTOCOL

    def start(self, uid: int | None = None, files: int | None = None) -> None:
        """Start the hub, as another user or with fewer open files than it would like."""
        command = [sys.executable, "-m", "tests.sim.hub", str(self.folder / "hub.toml"), f"--speaks={self.hub_speaks}"]
        if files is not None:
            command = ["/usr/bin/prlimit", f"--nofile={files}:{files}", "--", *command]
        self.process = subprocess.Popen(
            command if uid is None else as_user(command, uid),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "hub.log").open("ab"),
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else b""
        assert line == b"ready\n", (self.folder / "hub.log").read_text()[-3000:]

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            os.kill(self.process.pid, number)
            self.process.wait(30)
            self.process = None

    def enrol(self, site: str, age: timedelta = timedelta(0)) -> None:
        """Enrol a site, as it was done `age` ago."""
        desk = HubState(self.config, lambda: datetime.now(UTC) - age) if age else self.hub
        self.keys[site], self.keys[f"{site}/audit"] = site_keys(site)
        request = enrolment.make_request(
            self.link_folder(site),
            site,
            release_key=self.keys[site].verify_key,
            audit_key=self.keys[f"{site}/audit"].verify_key,
        )
        enrolment.install(self.link_folder(site), self.opened(desk.approve(request, told(request)), desk.clock()))

    def opened(self, answer: bytes, now: datetime | None = None) -> control.EnrolmentBundle:
        """The bundle in the hub's answer, as a node that trusts this hub opens it."""
        ring = KeyRing([self.hub.instruction_key.verify_key])
        return enrolment.open_answer(answer, ring, now or datetime.now(UTC))

    def link_folder(self, site: str) -> Path:
        return self.folder / site / "link"

    def core(self, site: str, **manners: Any) -> FakeCore:
        ring = KeyRing([self.hub.instruction_key.verify_key])
        spool = self.folder / site / "spool"
        return FakeCore(site, self.keys[site], ring, SPECS, spool, **manners)

    def link_config(self, site: str) -> LinkConfig:
        return LinkConfig(self.link_folder(site), self.folder / site / "spool", "test", self.nodes_speak)

    def node_process(self, site: str, *flags: str) -> subprocess.Popen[bytes]:
        """A link with a played core in a process of its own, which may be killed."""
        command = [sys.executable, "-m", "tests.sim.node", str(self.folder / "hub.toml"), site, *flags]
        log = (self.folder / f"{site}.log").open("ab")
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    @contextlib.asynccontextmanager
    async def links(self, *cores: FakeCore) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(run_link(self.link_config(core.site), core)) for core in cores]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, run: str, *, minimum_sites: int = 0, **changes: Any) -> None:
        self.hub.runs.submit(RESEARCHER.sign(order(run, **changes)), tensors.encode(model()), minimum_sites, "test")
        self.hub.notify()

    async def settled(self, run: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The history of `run` once it is done or stopped."""
        return await self.until(run, lambda history: history["state"] in ("done", "stopped"), timeout_s)

    async def until(self, run: str, holds: Any, timeout_s: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not holds(history := self.hub.run_history(run)):
            assert time.monotonic() < deadline, (history, (self.folder / "hub.log").read_text()[-4000:])
            await asyncio.sleep(0.05)
        return history


def told(request: bytes) -> str:
    """What a site reads out of its request by telephone."""
    return control.request_id(control.decode(control.EnrolmentRequest, request))


def reopened(config: Path) -> Town:
    """The town that `found` made in another process."""
    loaded = load_config(config)
    town = Town(config.parent, loaded, HubState(loaded))
    for site in SITES:
        town.keys[site], town.keys[f"{site}/audit"] = site_keys(site)
    return town


def site_keys(site: str) -> tuple[SigningKey, SigningKey]:
    number = bytes([sum(site.encode()) % 251])
    return SigningKey(number * 32), SigningKey(number * 31 + b"a")


def found(folder: Path, *, ingress: str = "", **runs: Any) -> Town:
    """A new hub with the three sites enrolled and the permit submitted; not started."""
    port = free_port()
    lines = [
        'version = 1\nname = "hub"\nstate_dir = "hub"',
        f'[ingress]\nlisten = "127.0.0.1"\nport = {port}\nhosts = ["127.0.0.1"]\n{ingress}',
        f'[trust]\ncommittee_keys = ["{COMMITTEE.verify_key.text}"]',
        "[runs]",
        *(f"{name} = {value}" for name, value in runs.items()),
    ]
    (folder / "hub.toml").write_text("\n".join(lines) + "\n")
    config = load_config(folder / "hub.toml")
    town = Town(folder, config, HubState.create(config))
    for site in SITES:
        town.enrol(site)
    town.hub.submit_revocations(COMMITTEE.sign(RevocationList(1, datetime.now(UTC).replace(microsecond=0), ())))
    town.hub.submit_permit(COMMITTEE.sign(permit()))
    return town
