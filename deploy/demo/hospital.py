"""One hospital of the demo: the driver's node, with what this demo's hospitals have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.demo.data import CLINICAL, COLUMN, TEST_FRACTION
from deploy.demo.permits import PROJECT
from deploy.demo.workplace import Workplace
from deploy.driver import node
from deploy.driver.commands import Commands
from deploy.driver.hub import Hub
from deploy.driver.roles import ROLES
from deploy.driver.signing import Signer

PROFILE = "eucaim"
MORE = """\
# Reading text in pixels takes a second of processor time and more for each image: here such images are excluded.
read_pixel_text = false

[audit]
checkpoint_interval_s = 10
"""


class Hospital(node.Node):
    """A node in its place in the demo's folder, every process under its own user."""

    def __init__(self, commands: Commands, place: Workplace, site: str, steward: Signer) -> None:
        super().__init__(
            commands, place.node(site), site, place.source / site, steward.key,
            {role: place.node_account(site, role).uid for role in ROLES}, place.logs / f"node-{site}.log",
        )  # fmt: skip

    def install(self, hub: Hub, committee: str, *, engine: str, sentinel: str) -> None:
        """Configuration, state folder, keys, enrolment."""
        self.configure(hub, committee, engine=engine, sentinel=sentinel, more=MORE)
        self.enrol(hub)

    def ingest(self, on_stage: Callable[[str], None]) -> dict[str, Any]:
        """Take the source folder in and publish a dataset version; the command's own answer."""
        return self.take_in(
            "--project", PROJECT, "--profile", PROFILE, "--clinical", CLINICAL, "--column", COLUMN,
            "--test-fraction", TEST_FRACTION, on_stage=on_stage,
        )  # fmt: skip

    def quarantine_files(self) -> int:
        """How many originals are still held (encrypted) in quarantine."""
        return sum(1 for path in (self.state / "intake" / "quarantine").rglob("*") if path.is_file())

    def bytes_out(self) -> int:
        """What gate 2 let out, over all runs."""
        return sum(int(run["bytes_released"]) for run in self.json("run", "list"))

    def checkpoint(self) -> None:
        """Sign a checkpoint now and have the hub witness it."""
        self.run("audit", "checkpoint")

    def verify_audit(self) -> dict[str, Any]:
        """`cloister audit verify`, offline, with the node's key and the witness file: its own answer."""
        done = self.commands.attempt("audit", "verify", self.audit, *self.verify_words, "--json")
        found: dict[str, Any] = done.json() if done.out else {}
        return found | {"ok": done.code == 0 and bool(found.get("ok"))}
