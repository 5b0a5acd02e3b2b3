"""The demo's hub, driven by `cloister hub` as its coordinator would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo.programs import Programs, free_port, port_answers
from deploy.demo.workplace import Account, Workplace

HOST = "127.0.0.1"
OVER = ("done", "stopped")

CONFIG = """\
# The demo's hub. A real one listens on its public address and keeps its state under /var/lib/cloister.
version = 1
name = "demo-hub"
state_dir = "state"

[ingress]
listen = "{host}"
port = {port}
hosts = ["{host}"]

[trust]
committee_keys = ["{committee}"]
"""


@dataclass
class Hub:
    """The hub's folder, account and port."""

    programs: Programs
    place: Workplace
    port: int = field(default_factory=free_port)

    @property
    def config(self) -> Path:
        return self.place.hub / "hub.toml"

    @property
    def state(self) -> Path:
        return self.place.hub / "state"

    @property
    def account(self) -> Account:
        return self.place.hub_account

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

    def prepare(self, committee_key: str) -> None:
        """Write `hub.toml`, make the state folder and the hub's keys."""
        text = CONFIG.format(host=HOST, port=self.port, committee=committee_key)
        self.config.write_text(text, encoding="utf-8")
        self.place.give(self.config, self.account)
        self._run("init")

    def serve(self) -> None:
        service = self.programs.serve("hub", "hub", "serve", "--config", self.config, account=self.account)
        self.programs.wait_until(lambda: port_answers(HOST, self.port), service)

    def approve(self, request: Path, read_out: str) -> Path:
        """Enrol a hospital that read out its request's id by telephone; returns the bundle in `post/`."""
        bundle = self.place.hub / f"{request.stem}-bundle.json"
        self._run("node", "approve", request, "--request-id", read_out, "--out", bundle)
        copy = self.place.post / bundle.name
        copy.write_bytes(bundle.read_bytes())
        return copy

    def publish_permit(self, permit: Path) -> None:
        self._run("permit", "publish", permit)

    def publish_revocations(self, revocations: Path) -> None:
        self._run("revocations", "publish", revocations)

    def submit(self, order: Path, model: Path) -> None:
        self._run("run", "submit", "--order", order, "--model", model)

    def follow(self, run: str) -> Iterator[dict[str, Any]]:
        """How a run stands (state, rounds, metrics, refusals), whenever that has changed, until the run is over."""
        words = ("hub", "run", "show", run, "--config", self.config, "--json", "--follow")
        for line in self.programs.lines(*words, account=self.account):
            if line.startswith("{"):
                yield json.loads(line)

    def model(self, run: str, number: int) -> bytes:
        """A round's model as `cloister hub run export --round` hands it out, read where the hub keeps it: the demo
        wants twenty of them."""
        return (self.state / "checkpoints" / run / f"round-{number:04d}.safetensors").read_bytes()

    def misbehave(self, program: Path, *words: object) -> dict[str, Any]:
        """Run a program of the hub operator's own making, with everything that the hub's account can reach.

        It works through the running hub's SuperLink and database, with the hub's keys; what it prints is JSON.
        """
        copy = self.place.hub / program.name
        copy.write_bytes(program.read_bytes())
        self.place.give(copy, self.account)
        answer = self.programs.run_python(copy, self.config, *words, account=self.account)
        found: dict[str, Any] = json.loads(answer.out or "{}")
        return found

    def _run(self, *words: object) -> None:
        group, *rest = words
        self.programs("hub", group, *rest, "--config", self.config, account=self.account)
