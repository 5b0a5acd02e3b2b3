"""A hub and hospitals on this machine, on real parts: processes, sockets, engine, signed files.

Everything is done by the `cloister` command as its people would, and read from files as an auditor would. As root
each process of each node has a uid of its own, numbers without an entry in /etc/passwd. Sites carry a random name.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from deploy.demo import permits
from deploy.demo.images import archive, untrained_model
from deploy.driver import services
from deploy.driver.commands import Commands
from deploy.driver.signing import Signer
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.hospital import Hospital, uids
from tests.end_to_end.hub import Hub
from tests.end_to_end.machine import AS_ROOT, UID_BASE

JOB, ROGUE, TABLES = "cloister-job-torch", "cloister-job-rogue", "cloister-job-tables"
PATIENTS = 16
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
            "linger", "fail-in-words",
        ],
    }
]  # fmt: skip


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
            Hospital(root / f"n{number}", f"site{number}-{token}", uids(number)) for number in range(1, sites + 1)
        )
        house = cls(root, hub, hospitals)
        try:
            house._open()
        except BaseException:
            house.close()
            raise
        return house

    def _open(self) -> None:
        os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
        for signer in (self.committee, self.researcher):
            signer.make_key()
        self.hub.install(self.committee.public_key)
        with ThreadPoolExecutor() as pool:
            serving = pool.submit(self.hub.serve)
            installed = [pool.submit(each.install, self.hub, self.committee.public_key) for each in self.hospitals]
            for future in (serving, *installed):
                future.result()
            list(pool.map(Hospital.serve, self.hospitals))
            list(pool.map(lambda one: one.ingest(patients=PATIENTS, seed=1), self.hospitals))
            given = archive([image_id(JOB), image_id(ROGUE), image_id(TABLES)], self.root / "images.tar")
            list(pool.map(lambda one: one.add_images(given), self.hospitals))
            given.unlink()
            for image in (image_id(JOB), image_id(ROGUE)):
                list(pool.map(lambda one, image=image: one.approve_image(image), self.hospitals))
        self.publish_revocations()

    def close(self) -> None:
        services.stop([each.process for each in self.hospitals if each.process is not None])
        self.hub.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @cached_property
    def committee(self) -> Signer:
        return Signer(Commands(), self.root, "committee")

    @cached_property
    def researcher(self) -> Signer:
        return Signer(Commands(), self.root, "researcher")

    @cached_property
    def torch(self) -> Job:
        """The reference job, with its untrained model out of its own image."""
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
        self.hub.publish_revocations(self.committee.sign_revocations(self.revocations, *revoked))

    def draft(self, name: str, job: Job, **changes: Any) -> dict[str, Any]:
        """A permit draft for all hospitals."""
        made = permits.draft(
            name, image=job.image, versions={each.site: each.dataset_version for each in self.hospitals},
            tensors=job.tensors, config=job.config, issuer=self.committee.key_id, maximum_rounds=50,
            researchers=[self.researcher.public_key], byte_budget=100_000_000,
        )  # fmt: skip
        return made | {"minimum_studies": 3, "count_threshold": 2} | changes

    def grant(self, name: str, job: Job, *accepted_by: Hospital, **changes: Any) -> Permit:
        """A permit signed, published, and accepted by some hospitals."""
        signed = self.committee.sign_permit(self.draft(name, job, **changes))
        self.hub.publish_permit(signed)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda hospital: hospital.accept(name), accepted_by))
        return Permit(name, signed, job)

    def order(self, run: str, permit: Permit, *sites: Hospital, rounds: int = 1, **config: Any) -> Path:
        """A run order signed by the researcher."""
        named = [each.site for each in sites]
        return self.researcher.order(run, permit.file, permit.job.image, named, rounds, json.dumps(config))

    def submit(self, order: Path, job: Job) -> None:
        self.hub.submit(order, job.model)

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
