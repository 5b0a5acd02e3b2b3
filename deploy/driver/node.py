"""A hospital's node on this machine, driven by `cloister node` as its IT department and its steward would."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.driver.commands import Commands, Done
from deploy.driver.failures import DriverFailed
from deploy.driver.hub import Hub
from deploy.driver.services import HOST, Launch, Served, Service, size_of, start
from deploy.driver.signing import public

# a permit reaches a connected node within a second; a node that has just started connects first
PERMIT_WITHIN_S = 30.0

CONFIG = """\
# A hospital for trying. What every key means: deploy/node.example.toml
site = "{site}"
state_dir = "{state}"

[hub]
host = "{host}"
port = {port}

[trust]
committee = ["{committee}"]
stewards = ["{steward}"]
hub = ["{instruction}"]
witnesses = ["{witness}"]

{users}
[engine]
socket = "{engine}"
sentinel = "{sentinel}"

[intake]
source_roots = ["{source}"]
{more}"""


@dataclass
class Node(Served):
    """One node: its folder, its originals, its steward's key, its users by process (None: ours), its process."""

    commands: Commands
    folder: Path
    site: str
    source: Path
    steward: Path
    uids: Mapping[str, int | None]
    log: Path
    service: Service | None = None

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def audit(self) -> Path:
        return self.state / "audit"

    @property
    def audit_key(self) -> Path:
        return self.state / "audit-keys.txt"

    @property
    def witness_file(self) -> Path:
        return self.state / "witness" / "witness.jsonl"

    @property
    def verify_words(self) -> tuple[object, ...]:
        """`--key FILE --witness FILE` of `cloister audit verify`."""
        return "--key", self.audit_key, "--witness", self.witness_file

    def run(self, *words: object) -> Done:
        return self.commands("node", *words, "--config", self.config)

    def json(self, *words: object) -> Any:
        return self.run(*words, "--json").json()

    # ---- installing and serving

    def configure(self, hub: Hub, committee: str, *, engine: str, sentinel: str, more: str = "") -> None:
        """Write `node.toml`: whom this hospital trusts is its own list. `more` goes on in `[intake]`."""
        users = "".join(f"{role} = {uid}\n" for role, uid in self.uids.items() if uid is not None)
        text = CONFIG.format(
            site=self.site, state=self.state, host=HOST, port=hub.port, committee=committee,
            steward=public(self.steward), instruction=hub.public_key("instruction"),
            witness=hub.public_key("witness"), users=f"[users]\n{users}" if users else "", engine=engine,
            sentinel=sentinel, source=self.source, more=more,
        )  # fmt: skip
        self.config.write_text(text, encoding="utf-8")

    def enrol(self, hub: Hub) -> None:
        """Make the state folder and keys; then enrolment, by two files."""
        self.run("init")
        request, bundle = self.folder / "request.json", hub.folder / f"{self.site}-bundle.json"
        read_out = self.json("enrol", "request", "--out", request)["request_id"]
        hub.approve(request, read_out, bundle)
        brought = self.folder / "bundle.json"
        brought.write_bytes(bundle.read_bytes())
        self.run("enrol", "install", brought)

    def serve(self, launch: Launch | None = None) -> None:
        """Start the node; returns when it is ready. `launch` starts what `cloister node serve` starts."""
        said, words = size_of(self.log), ("node", "serve", "--config", self.config)
        process = launch(self.log, *words) if launch else start(self.commands, self.log, *words)
        self.service = Service(f"node-{self.site}", process, self.log)
        self.service.wait_until_said(b"the node is ready", said)

    # ---- what its staff do

    def take_in(
        self, *words: object, on_stage: Callable[[str], None] | None = None, source: Path | None = None
    ) -> dict[str, Any]:
        """Take a source folder in and publish a dataset version; the command's own answer."""
        asked = ("node", "ingest", source or self.source, *words, "--json", "--config", self.config)
        done = self.commands.checked(self.commands.attempt(*asked, on_error_line=on_stage))
        answer: dict[str, Any] = done.json()
        return answer

    def add_images(self, archive: Path) -> None:
        """Take the researcher's images in: every digest verified, what is in them kept for whoever approves them."""
        self.run("image", "add", archive)

    def approve_image(self, digest: str) -> None:
        self.run("image", "approve", digest, "--by", "it.admin", "--yes")

    def accept(self, permit: str, *narrower: object) -> None:
        """The steward's signature under version 1 of a permit, as soon as the hub has brought it."""
        words = ("node", "permit", "accept", permit, 1, "--key", self.steward, *narrower, "--config", self.config)
        deadline = time.monotonic() + PERMIT_WITHIN_S
        while (done := self.commands.attempt(*words)).code:
            if any(line["permit"] == permit for line in self.json("permit", "list")):
                done = self.commands.attempt(*words)  # it may have come in between
                break
            if time.monotonic() > deadline:
                raise DriverFailed(f"{self.site}: the permit {permit} did not come", self.commands.hint, 5)
            time.sleep(0.1)
        self.commands.checked(done)
