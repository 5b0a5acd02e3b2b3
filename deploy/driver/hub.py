"""A hub on this machine, driven by `cloister hub` as its coordinator would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.driver.commands import Commands, Done
from deploy.driver.services import HOST, Served, Service, free_port, give, size_of, start

CONFIG = """\
# A hub for trying. A real one listens on its public address and keeps its state under /var/lib/cloister.
version = 1
name = "{name}"
state_dir = "state"

[ingress]
listen = "{host}"
port = {port}
hosts = ["{host}"]

[trust]
committee_keys = [{keys}]
"""


@dataclass
class Hub(Served):
    """The hub's folder, user, port and process."""

    commands: Commands
    folder: Path
    uid: int | None
    log: Path
    port: int = field(default_factory=free_port)
    service: Service | None = None

    @property
    def config(self) -> Path:
        return self.folder / "hub.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def ca(self) -> Path:
        return self.state / "pki" / "ca.crt"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def instruction_key(self) -> Path:
        return self.state / "keys" / "instruction.key"

    def public_key(self, purpose: str) -> str:
        """What the hub hands out: its `instruction` or its `witness` key (hex)."""
        return (self.state / "keys" / f"{purpose}.pub").read_text(encoding="ascii").strip()

    def run(self, *words: object) -> Done:
        return self.commands("hub", *words, "--config", self.config, uid=self.uid)

    # ---- installing and serving

    def configure(self, *committee_keys: str, name: str = "hub") -> None:
        """Write `hub.toml`."""
        listed = ", ".join(f'"{key}"' for key in committee_keys)
        text = CONFIG.format(name=name, host=HOST, port=self.port, keys=listed)
        self.config.write_text(text, encoding="utf-8")
        give(self.config, self.uid)

    def init(self) -> None:
        """Make the state folder and the hub's keys."""
        self.run("init")

    def serve(self) -> None:
        """Start the hub; returns when it is ready."""
        said = size_of(self.log)
        process = start(self.commands, self.log, "hub", "serve", "--config", self.config, uid=self.uid)
        self.service = Service("hub", process, self.log)
        self.service.wait_until_said(b"ready at", said)

    # ---- what its coordinator does

    def approve(self, request: Path, read_out: str, bundle: Path) -> None:
        """Enrol a hospital that read out its request's id by telephone; the bundle is the hub's user's."""
        self.run("node", "approve", request, "--request-id", read_out, "--out", bundle)

    def publish_permit(self, permit: Path) -> None:
        self.run("permit", "publish", permit)

    def publish_revocations(self, revocations: Path) -> None:
        self.run("revocations", "publish", revocations)

    def submit(self, order: Path, model: Path) -> None:
        self.run("run", "submit", "--order", order, "--model", model)

    def show(self, run: str) -> dict[str, Any]:
        """How a run stands: state, rounds, metrics, refusals."""
        answer: dict[str, Any] = self.run("run", "show", run, "--json").json()
        return answer

    def follow(self, run: str) -> Iterator[dict[str, Any]]:
        """What `show` says, whenever that has changed, until the run is over: told by one command."""
        words = ("hub", "run", "show", run, "--config", self.config, "--json", "--follow")
        for line in self.commands.lines(*words, uid=self.uid):
            if line.startswith("{"):
                yield json.loads(line)

    # ---- what it must not do

    def misbehave(self, program: Path, *words: object) -> dict[str, Any]:
        """Run a program of the hub operator's own making, with everything that the hub's user can reach.

        It works through the running hub's SuperLink and database, with the hub's keys; what it prints is JSON.
        """
        copy = self.folder / program.name
        copy.write_bytes(program.read_bytes())
        give(copy, self.uid)
        found: dict[str, Any] = json.loads(self.commands.python(copy, self.config, *words, uid=self.uid).out or "{}")
        return found
