"""A hub and hospitals on this machine, on real parts: processes, sockets, engine, signed files.

Everything is done by the `cloister` command as its people would, and read from files as an auditor would. As root
each process of each node has a uid of its own, numbers without an entry in /etc/passwd. Sites carry a random name:
several houses may share one engine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import docker
import numpy as np
from safetensors.numpy import save_file

from deploy.demo import evidence, permits
from deploy.demo.images import untrained_model
from mediator.signatures import VerifyKey
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.commands import ENVIRONMENT, Done, as_user, cloister, start
from tests.sim.cohort import write_cohort

T = TypeVar("T")
AS_ROOT = os.geteuid() == 0
# beside the demo's numbers; below those systemd gives away
UID_BASE = 61100
ROLES = ("core", "intake", "broker", "link")
JOB, ROGUE, SENTINEL = "cloister-job-torch", "cloister-job-rogue", "cloister-sentinel"
HOST = "127.0.0.1"
PATIENTS = 16

HUB_CONFIG = """\
version = 1
name = "hub"
state_dir = "state"
[ingress]
listen = "{host}"
port = {port}
hosts = ["{host}"]
[trust]
committee_keys = [{keys}]
"""
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
[limits]
idle_s = 60
"""


def eventually(look: Callable[[], T | None], *, within_s: float = 30.0, what: str = "it") -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class Hub:
    """The hub's folder and its process."""

    folder: Path
    uid: int | None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "hub.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "hub.log"

    def public_key(self, purpose: str) -> str:
        return (self.state / "keys" / f"{purpose}.pub").read_text().strip()

    def run(self, *words: object) -> Done:
        return cloister("hub", *words, "--config", self.config, uid=self.uid)

    def install(self, committee: str) -> None:
        """Make the hub's state. Its operator then lets it trust itself: what that is worth is what the tests ask."""
        self.folder.mkdir(mode=0o700)
        give(self.folder, self.uid)
        self._configure(committee)
        self.run("init")
        self._configure(committee, self.public_key("instruction"))

    def _configure(self, *keys: str) -> None:
        listed = ", ".join(f'"{key}"' for key in keys)
        self.config.write_text(HUB_CONFIG.format(host=HOST, port=self.port, keys=listed))

    def serve(self) -> None:
        said = self.log.stat().st_size if self.log.exists() else 0
        process = self.process = start(self.log, "hub", "serve", "--config", self.config, uid=self.uid)

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()[-2000:]
            return b"ready at" in self.log.read_bytes()[said:]

        eventually(ready, within_s=60, what="the hub's start")

    def kill(self) -> None:
        """SIGKILL to the hub and every process it started, all at once."""
        assert self.process is not None
        kill_whole(self.process)

    def stop(self) -> None:
        stop(self.process)

    def misbehave(self, *words: object) -> dict[str, Any]:
        """Run `tests.federation.rogue_hub` with everything that the hub's account can reach."""
        program = self.folder / "rogue_hub.py"
        shutil.copyfile(Path(__file__).parents[1] / "federation" / "rogue_hub.py", program)
        give(program, self.uid)
        ended = subprocess.run(
            [sys.executable, "-P", str(program), str(self.config), *map(str, words)],
            capture_output=True, text=True, cwd="/", env=dict(ENVIRONMENT), timeout=90, check=True, **as_user(self.uid),
        )  # fmt: skip
        found: dict[str, Any] = json.loads(ended.stdout or "{}")
        return found

    def show(self, run: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.run("run", "show", run, "--json").json()
        return answer

    def ended(self, run: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """The run's history once it is over, told by one command that follows it."""
        words = ("hub", "run", "show", run, "--follow", "--json", "--config", self.config)
        try:
            done = cloister(*words, uid=self.uid, within_s=within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError((self.show(run), self.log.read_text()[-2000:])) from None
        history: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        return history


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
        cloister("keys", "new", self.steward)
        users = "".join(f"{role} = {uid}\n" for role, uid in self.uids.items() if uid is not None)
        text = NODE_CONFIG.format(
            site=self.site, state=self.state, host=HOST, port=hub.port, committee=committee, engine=ENGINE_URL,
            steward=public(self.steward), instruction=hub.public_key("instruction"), source=self.source,
            witness=hub.public_key("witness"), users=f"[users]\n{users}" if users else "", sentinel=image_id(SENTINEL),
        )  # fmt: skip
        self.config.write_text(text)
        self.run("init")
        request, bundle = self.folder / "request.json", hub.folder / f"{self.site}.json"
        self.run("enrol", "request", "--out", request)
        hub.run("node", "approve", request, "--out", bundle)
        self.run("enrol", "install", bundle)

    def serve(self) -> None:
        said = self.log.stat().st_size if self.log.exists() else 0
        process = self.process = start(self.log, "node", "serve", "--config", self.config)

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


@dataclass
class House:
    """The hub, the hospitals, the committee and the researcher, in one folder."""

    root: Path
    hub: Hub
    hospitals: tuple[Hospital, ...]
    revocations: int = 0

    @classmethod
    def build(cls, sites: int) -> House:
        """Everything up to connected nodes with a published dataset version each."""
        # a short path: a Unix socket's name has at most 107 bytes; and one that other users may enter
        root = Path(tempfile.mkdtemp(prefix="cl-", dir="/var/tmp"))
        root.chmod(0o755)
        token = secrets.token_hex(2)
        hub = Hub(root / "hub", UID_BASE if AS_ROOT else None)
        hospitals = tuple(
            Hospital(root / f"n{number}", f"site{number}-{token}", _uids(number)) for number in range(1, sites + 1)
        )
        house = cls(root, hub, hospitals)
        try:
            house._open()
        except BaseException:
            house.close()
            raise
        return house

    def _open(self) -> None:
        for name in ("committee", "researcher"):
            cloister("keys", "new", self.root / f"{name}.key")
        self.hub.install(public(self.committee))
        with ThreadPoolExecutor() as pool:
            serving = pool.submit(self.hub.serve)
            installed = [pool.submit(each.install, self.hub, public(self.committee)) for each in self.hospitals]
            for future in (serving, *installed):
                future.result()
            list(pool.map(Hospital.serve, self.hospitals))
            list(pool.map(lambda one: one.ingest(patients=PATIENTS, seed=1), self.hospitals))
            for image in (image_id(JOB), image_id(ROGUE)):
                list(pool.map(lambda one, image=image: one.run("image", "approve", image), self.hospitals))
        self.publish_revocations()

    def close(self) -> None:
        for each in (*self.hospitals, self.hub):
            each.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def committee(self) -> Path:
        return self.root / "committee.key"

    @property
    def researcher(self) -> Path:
        return self.root / "researcher.key"

    @cached_property
    def torch(self) -> Job:
        """The reference job, with its untrained model out of its own image."""
        os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
        model = untrained_model(image_id(JOB), self.root)
        return Job(image_id(JOB), model, tuple(json.loads((self.root / "tensors.json").read_text())), TRAINING)

    @cached_property
    def rogue(self) -> Job:
        """The job that misbehaves where it is told to, with a model of two tensors."""
        arrays = {"bias": np.zeros(4, np.float32), "weight": np.arange(8, dtype=np.float32).reshape(2, 4)}
        save_file(arrays, self.root / "rogue.safetensors")
        (self.root / "rogue.safetensors").chmod(0o644)
        tensors = tuple({"name": name, "shape": list(a.shape), "dtype": "F32"} for name, a in arrays.items())
        return Job(image_id(ROGUE), self.root / "rogue.safetensors", tensors, MISBEHAVIOUR)

    def publish_revocations(self, *revoked: str) -> None:
        """The committee's next list, through the hub."""
        self.revocations += 1
        names = [word for permit in revoked for word in ("--permit", permit)]
        file = self.root / f"revocations-{self.revocations}.jws"
        cloister("permit", "revocations", "--number", self.revocations, *names, "--key", self.committee, "--out", file)
        self.hub.run("revocations", "publish", file)

    def draft(self, name: str, job: Job, **changes: Any) -> dict[str, Any]:
        """A permit draft for all hospitals."""
        made = permits.draft(
            name, image=job.image, versions={each.site: each.dataset_version for each in self.hospitals},
            tensors=job.tensors, config=job.config, issuer=key_id(self.committee), maximum_rounds=50,
            researchers=[public(self.researcher)], byte_budget=100_000_000,
        )  # fmt: skip
        return made | {"minimum_studies": 3, "count_threshold": 2} | changes

    def sign_permit(self, draft: Mapping[str, Any]) -> Path:
        asked, signed = self.root / f"{draft['permit']}.json", self.root / f"{draft['permit']}.jws"
        asked.write_text(json.dumps(draft))
        cloister("permit", "sign", asked, "--key", self.committee, "--out", signed)
        return signed

    def grant(self, name: str, job: Job, *accepted_by: Hospital, **changes: Any) -> Permit:
        """A permit signed, published, and accepted by some hospitals."""
        signed = self.sign_permit(self.draft(name, job, **changes))
        self.hub.run("permit", "publish", signed)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda hospital: hospital.accept(name), accepted_by))
        return Permit(name, signed, job)

    def order(self, run: str, permit: Permit, *sites: Hospital, rounds: int = 1, **config: Any) -> Path:
        """A run order signed by the researcher."""
        signed = self.root / f"order-{run}.jws"
        named = [word for each in sites for word in ("--site", each.site)]
        cloister(
            "job", "order", "--permit", permit.file, "--run", run, "--image", permit.job.image, *named,
            "--rounds", rounds, "--config", json.dumps(config), "--key", self.researcher, "--out", signed,
        )  # fmt: skip
        return signed

    def submit(self, order: Path, job: Job) -> None:
        self.hub.run("run", "submit", "--order", order, "--model", job.model)

    def begin(self, run: str, permit: Permit, *sites: Hospital, rounds: int = 1, **config: Any) -> str:
        """Order and submit a run; its name."""
        self.submit(self.order(run, permit, *sites, rounds=rounds, **config), permit.job)
        return run


@dataclass(frozen=True)
class Job:
    """An image by digest with what a permit says of it, and a model to begin with."""

    image: str
    model: Path
    tensors: tuple[Mapping[str, Any], ...]
    config: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Permit:
    """Version 1 of a permit, signed by the committee."""

    name: str
    file: Path
    job: Job


TRAINING = [
    permits.number("epochs", "int", 1, 100_000),
    permits.number("learning-rate", "float", 0.00001, 1.0),
    permits.number("batch-size", "int", 1, 256),
    permits.number("seed", "int", 0, 1_000_000),
]
# of containers/images/job-rogue; "none" behaves
MISBEHAVIOUR = [
    {
        "name": "misbehave", "type": "str", "minimum": None, "maximum": None,
        "choices": [
            "none", "slow", "over-time", "extra-tensor", "trailing-bytes", "not-a-number", "extra-metric", "symlink",
            "linger",
        ],
    }
]  # fmt: skip


def public(key: Path) -> str:
    return Path(f"{key}.pub").read_text().strip()


def key_id(key: Path) -> str:
    return VerifyKey.from_text(public(key)).key_id


def give(path: Path, uid: int | None) -> None:
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)


def matching(records: Iterable[dict[str, Any]], about: str, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        record
        for record in records
        if str(record["object"]).startswith(about) and all(record[name] == value for name, value in wanted.items())
    ]


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid` (proc_pid_task_children is not in every kernel, so by parent)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            child = int(entry.parent.name)
            yield child
            yield from descendants(child)


def kill_whole(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and everything below it."""
    for pid in (process.pid, *descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait(10)


def stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        kill_whole(process)


def _uids(number: int) -> dict[str, int | None]:
    return {role: UID_BASE + 10 * number + offset if AS_ROOT else None for offset, role in enumerate(ROLES)}
