"""A hospital: its node's folder and processes, the commands its staff give, and what an auditor may see."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import docker

from deploy.demo import evidence, permits
from deploy.driver import node
from deploy.driver.commands import Commands
from deploy.driver.roles import ROLES
from deploy.driver.services import eventually, give
from deploy.driver.signing import public
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.commands import cloister
from tests.end_to_end.hub import Hub
from tests.end_to_end.machine import AS_ROOT, UID_BASE
from tests.sim.cohort import write_cohort

SENTINEL = "cloister-sentinel"
MORE = """
[audit]
checkpoint_interval_s = 2
[airlock]
threshold = 2
persons = [{{ subject = "anna", public_key = "{anna}" }}, {{ subject = "bert", public_key = "{bert}" }}]
[limits]
idle_s = 120
keep_log_s = 0
"""


class Hospital(node.Node):
    """One node: its folder, its steward's key, its process."""

    def __init__(self, folder: Path, site: str, uids: Mapping[str, int | None]) -> None:
        super().__init__(
            Commands(), folder, site, folder / "source", folder / "steward.key", uids, folder / "node.log"
        )  # fmt: skip
        self.dataset_version = ""

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return None if self.service is None else self.service.process

    def reviewer(self, name: str) -> Path:
        """The key of a person who reviews files."""
        return self.folder / f"{name}.key"

    def install(self, hub: Hub, committee: str) -> None:
        """Configuration, state folder, keys, enrolment by two files."""
        self.source.mkdir(parents=True)
        for key in (self.steward, *map(self.reviewer, ("anna", "bert"))):
            cloister("keys", "new", key)
        more = MORE.format(anna=public(self.reviewer("anna")), bert=public(self.reviewer("bert")))
        self.configure(hub, committee, engine=ENGINE_URL, sentinel=image_id(SENTINEL), more=more)
        self.enrol(hub)

    def ingest(self, *, patients: int, seed: int) -> dict[str, Any]:
        """Generate a cohort and take it in."""
        write_cohort(self.source, self.site, patients, seed)
        for path in (self.source, *self.source.rglob("*")):
            give(path, self.uids["intake"])
        answer = self.take_in(
            "--project", permits.PROJECT, "--clinical", "clinical.csv", "--column", "lesion=0:1",
            "--test-fraction", "0.4",
        )  # fmt: skip
        self.dataset_version = answer["dataset_version"]
        return answer

    # ---- what can be seen

    def records(self, after: int = 0) -> list[dict[str, Any]]:
        """The audit folder's records beyond number `after`."""
        return list(evidence.records(self.audit, after))

    def last(self) -> int:
        return max((record["sequence"] for record in self.records()), default=0)

    def recorded(self, after: int = 0, *, within_s: float = 30.0, about: str = "", **wanted: str) -> dict[str, Any]:
        """The first record beyond `after` with these members, whose object begins with `about`."""

        def look() -> dict[str, Any] | None:
            return next(iter(matching(self.records(after), about, wanted)), None)

        return eventually(look, within_s=within_s, what=f"{self.site}: a record {wanted} about {about}")

    def count(self, after: int = 0, about: str = "", **wanted: str) -> int:
        return len(matching(self.records(after), about, wanted))

    def ledger(self, run: str) -> dict[str, Any] | None:
        return next((line for line in self.json("ledger") if line["run"] == run), None)

    def jobs(self, run: str) -> list[dict[str, Any]]:
        return [line for line in self.json("job", "list") if line["run"] == run]

    def containers(self) -> list[str]:
        """Names of this node's containers, running or not."""
        found = docker.APIClient(ENGINE_URL).containers(all=True, filters={"label": "cloister.site"})
        ours = [each for each in found if each["Labels"]["cloister.site"].startswith(f"{self.site}.")]
        return sorted(name.lstrip("/") for each in ours for name in each["Names"])

    def work_areas(self) -> list[str]:
        return sorted(entry.name for entry in (self.state / "work").iterdir())


def matching(records: Iterable[dict[str, Any]], about: str, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        record
        for record in records
        if str(record["object"]).startswith(about) and all(record[name] == value for name, value in wanted.items())
    ]


def uids(number: int) -> dict[str, int | None]:
    return {role: UID_BASE + 10 * number + offset if AS_ROOT else None for offset, role in enumerate(ROLES)}
