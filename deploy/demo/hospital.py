"""One hospital of the demo, driven by `cloister node` as its IT department and its steward would."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.data import CLINICAL, COLUMN, TEST_FRACTION
from deploy.demo.hub import HOST, Hub
from deploy.demo.people import Person
from deploy.demo.permits import PROJECT
from deploy.demo.programs import Programs
from deploy.demo.workplace import ROLES, Workplace

PROFILE = "eucaim"
# a permit reaches a connected node within a second; a node that has just started connects first
PERMIT_WITHIN_S = 30.0

CONFIG = """\
# A hospital of the demo. What every key means: deploy/node.example.toml
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
# Reading text in pixels takes a second of processor time and more for each image: here such images are excluded.
read_pixel_text = false

[audit]
checkpoint_interval_s = 10
"""


@dataclass
class Hospital:
    """One node: its folder, its steward, and the commands its staff give."""

    programs: Programs
    place: Workplace
    site: str
    steward: Person

    @property
    def config(self) -> Path:
        return self.place.node(self.site) / "node.toml"

    @property
    def state(self) -> Path:
        return self.place.node(self.site) / "state"

    @property
    def source(self) -> Path:
        return self.place.source / self.site

    @property
    def audit_dir(self) -> Path:
        return self.state / "audit"

    @property
    def audit_key(self) -> Path:
        return self.state / "audit-keys.txt"

    @property
    def witness_file(self) -> Path:
        return self.state / "witness" / "witness.jsonl"

    # ---- installing

    def configure(self, hub: Hub, committee_key: str, *, engine: str, sentinel: str) -> None:
        """Write `node.toml`: whom this hospital trusts is its own list."""
        accounts = {role: self.place.node_account(self.site, role).uid for role in ROLES}
        users = "".join(f"{role} = {uid}\n" for role, uid in accounts.items() if uid is not None)
        text = CONFIG.format(
            site=self.site, state=self.state, host=HOST, port=hub.port, committee=committee_key,
            steward=self.steward.public_key, instruction=hub.public_key("instruction"),
            witness=hub.public_key("witness"), users=f"[users]\n{users}" if users else "", engine=engine,
            sentinel=sentinel, source=self.source,
        )  # fmt: skip
        self.config.write_text(text, encoding="utf-8")

    def enrol(self, hub: Hub) -> None:
        """Make the state folder and keys; then enrolment, by two files."""
        self._run("init")
        request = self.place.post / f"{self.site}-request.json"
        read_out = self._json("enrol", "request", "--out", request)["request_id"]
        self._run("enrol", "install", hub.approve(request, read_out))

    def serve(self) -> None:
        """Start the node; returns when it answers its staff."""
        service = self.programs.serve(f"node-{self.site}", "node", "serve", "--config", self.config)
        self.programs.wait_until((self.state / "run" / "it_admin.sock").exists, service)

    def status(self) -> dict[str, Any]:
        """`cloister node status`."""
        answer: dict[str, Any] = self._json("status")
        return answer

    # ---- data

    def ingest(self, on_stage: Callable[[str], None]) -> dict[str, Any]:
        """Take the source folder in and publish a dataset version; the command's own answer."""
        answer = self.programs.attempt(
            "node", "ingest", "--config", self.config, self.source, "--project", PROJECT, "--profile", PROFILE,
            "--clinical", CLINICAL, "--column", COLUMN, "--test-fraction", TEST_FRACTION, "--json",
            on_error_line=on_stage,
        )  # fmt: skip
        result: dict[str, Any] = self.programs.checked(answer, "node", "ingest", self.site).json()
        return result

    def quarantine_files(self) -> int:
        """How many originals are still held (encrypted) in quarantine."""
        return sum(1 for path in (self.state / "intake" / "quarantine").rglob("*") if path.is_file())

    # ---- saying yes

    def add_images(self, archive: Path) -> None:
        """Take the researcher's images in: every digest verified, what is in them kept for whoever approves them."""
        self._run("image", "add", archive)

    def approve_image(self, digest: str) -> None:
        self._run("image", "approve", digest, "--by", f"it.{self.site}", "--yes")

    def accept(self, permit: str) -> None:
        """The steward's signature under version 1 of a permit, as soon as the hub has brought it."""
        words = ("node", "permit", "accept", permit, 1, "--key", self.steward.key, "--config", self.config)
        deadline = time.monotonic() + PERMIT_WITHIN_S
        while (answer := self.programs.attempt(*words)).code and time.monotonic() < deadline:
            time.sleep(0.3)
        self.programs.checked(answer, *words)

    # ---- reading

    def bytes_out(self) -> int:
        """What gate 2 let out, over all runs."""
        return sum(int(run["bytes_released"]) for run in self._json("run", "list"))

    def checkpoint(self) -> None:
        """Sign a checkpoint now and have the hub witness it."""
        self._run("audit", "checkpoint")

    def verify_audit(self) -> dict[str, Any]:
        """`cloister audit verify`, offline, with the node's key and the witness file: its own answer."""
        answer = self.programs.attempt(
            "audit", "verify", self.audit_dir, "--key", self.audit_key, "--witness", self.witness_file, "--json"
        )
        found: dict[str, Any] = answer.json() if answer.out else {}
        return found | {"ok": answer.code == 0 and bool(found.get("ok"))}

    def _run(self, *words: object) -> None:
        self.programs("node", *words, "--config", self.config)

    def _json(self, *words: object) -> Any:
        return self.programs.json("node", *words, "--config", self.config)
