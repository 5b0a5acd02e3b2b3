"""A hospital: its node's folder and processes, the commands its staff give, and what an auditor may see."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from deploy.demo import evidence, permits
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.commands import Done, cloister, start
from tests.end_to_end.hub import Hub
from tests.end_to_end.machine import AS_ROOT, HOST, UID_BASE, eventually, give, kill_whole, public, stop
from tests.sim.cohort import write_cohort

Launch = Callable[..., "subprocess.Popen[bytes]"]
ROLES = ("core", "intake", "broker", "link")
SENTINEL = "cloister-sentinel"

NODE_CONFIG = """\
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
[audit]
checkpoint_interval_s = 2
[airlock]
threshold = 2
persons = [{{ subject = "anna", public_key = "{anna}" }}, {{ subject = "bert", public_key = "{bert}" }}]
[limits]
idle_s = 120
keep_log_s = 0
"""


@dataclass
class Hospital:
    """One node: its folder, its steward's key, its process."""

    folder: Path
    site: str
    uids: Mapping[str, int | None]
    process: subprocess.Popen[bytes] | None = None
    dataset_version: str = ""

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def steward(self) -> Path:
        return self.folder / "steward.key"

    def reviewer(self, name: str) -> Path:
        """The key of a person who reviews files."""
        return self.folder / f"{name}.key"

    @property
    def audit(self) -> Path:
        return self.state / "audit"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    @property
    def verify_words(self) -> tuple[object, ...]:
        """`--key FILE --witness FILE` of `cloister audit verify`."""
        return "--key", self.state / "audit-keys.txt", "--witness", self.state / "witness" / "witness.jsonl"

    def run(self, *words: object) -> Done:
        return cloister("node", *words, "--config", self.config)

    def json(self, *words: object) -> Any:
        return self.run(*words, "--json").json()

    def install(self, hub: Hub, committee: str) -> None:
        """Configuration, state folder, keys, enrolment by two files."""
        (self.folder / "source").mkdir(parents=True)
        for key in (self.steward, *map(self.reviewer, ("anna", "bert"))):
            cloister("keys", "new", key)
        users = "".join(f"{role} = {uid}\n" for role, uid in self.uids.items() if uid is not None)
        text = NODE_CONFIG.format(
            site=self.site, state=self.state, host=HOST, port=hub.port, committee=committee, engine=ENGINE_URL,
            steward=public(self.steward), instruction=hub.public_key("instruction"), source=self.source,
            witness=hub.public_key("witness"), anna=public(self.reviewer("anna")), bert=public(self.reviewer("bert")),
            users=f"[users]\n{users}" if users else "", sentinel=image_id(SENTINEL),
        )  # fmt: skip
        self.config.write_text(text)
        self.run("init")
        request, bundle = self.folder / "request.json", hub.folder / f"{self.site}.json"
        read_out = self.json("enrol", "request", "--out", request)["request_id"]
        hub.run("node", "approve", request, "--request-id", read_out, "--out", bundle)
        self.run("enrol", "install", bundle)

    def serve(self, launch: Launch = start) -> None:
        """Serve, and come back when the node is ready. `launch` starts what `cloister node serve` starts."""
        said = self.log.stat().st_size if self.log.exists() else 0
        process = self.process = launch(self.log, "node", "serve", "--config", self.config)

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()[-2000:]
            return b"the node is ready" in self.log.read_bytes()[said:]

        eventually(ready, within_s=60, what="the node's start")

    def kill(self) -> None:
        """SIGKILL to the supervisor, core, broker, intake and link, all at once. Their containers run on."""
        assert self.process is not None
        kill_whole(self.process)

    def stop(self) -> None:
        stop(self.process)

    def ingest(self, *, patients: int, seed: int) -> dict[str, Any]:
        """Generate a cohort and take it in."""
        write_cohort(self.source, self.site, patients, seed)
        for path in (self.source, *self.source.rglob("*")):
            give(path, self.uids["intake"])
        answer: dict[str, Any] = self.run(
            "ingest", self.source, "--project", permits.PROJECT, "--clinical", "clinical.csv",
            "--column", "lesion=0:1", "--test-fraction", "0.4", "--json",
        ).json()  # fmt: skip
        self.dataset_version = answer["dataset_version"]
        return answer

    def accept(self, permit: str, *narrower: object) -> None:
        """The steward's yes to version 1 of a permit, once the hub has brought it."""
        eventually(lambda: any(line["permit"] == permit for line in self.json("permit", "list")), what="the permit")
        self.run("permit", "accept", permit, 1, "--key", self.steward, *narrower)

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
