"""A broker on the real engine, with a site of its own, so that tests do not see each other's containers."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import docker
import numpy as np
from safetensors.numpy import save

from containers import sandbox
from containers.broker import Broker
from containers.engine import ContainerEngine
from containers.sandbox import SandboxPolicy
from mediator.ports import JobEvent
from mediator.signatures import KeyRing, SigningKey
from mediator.types import ContainerSpec, OutputFile, Resources

REPO = Path(__file__).resolve().parents[2]
ENGINE_URL = os.environ.get("DOCKER_HOST", "unix:///run/docker.sock")
LIMITS = Resources(
    cpus=1.0, memory_bytes=256 << 20, pids=48, wall_time_s=30, tmp_bytes=8 << 20, out_bytes=4 << 20, out_files=24,
    gpus=0,
)  # fmt: skip
CEILING = replace(LIMITS, memory_bytes=2 << 30, pids=512, wall_time_s=120, out_bytes=64 << 20, out_files=4000)
VERDICT_KEY = SigningKey(b"verdict key of the tests".ljust(32))
MODEL = save({"head.bias": np.zeros(4, np.float32), "head.weight": np.arange(8, dtype=np.float32).reshape(2, 4)})


@cache
def image_id(name: str, url: str = ENGINE_URL) -> str:
    """The digest of an image that `deploy/lib/images.sh` built."""
    return str(docker.APIClient(url).inspect_image(name)["Id"])


def forget_images(*names: str, url: str = ENGINE_URL) -> None:
    """Remove what a test built, where it got so far."""
    with contextlib.suppress(docker.errors.DockerException):
        client = docker.APIClient(url)
        for name in names:
            with contextlib.suppress(docker.errors.ImageNotFound):
                client.remove_image(name, force=True)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Bench:
    root: Path
    image: str
    site: SandboxPolicy
    url: str = ENGINE_URL
    records: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        root: Path,
        image: str,
        name: str | None = None,
        *,
        url: str = ENGINE_URL,
        runtime: str = "",
        sentinel: str = "",
    ) -> Bench:
        for folder in ("work", "probe"):
            (root / folder).mkdir(exist_ok=True)
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        sentinel = sentinel or image_id("cloister-sentinel", url)
        site = SandboxPolicy(name, sentinel, CEILING, root / "work", root / "probe", runtime=runtime)
        return cls(root, image, site, url)

    def broker(self, build: Callable[..., dict[str, Any]] = sandbox.create_arguments, **more: Any) -> Broker:
        """A broker process's worth: two of them share nothing but the engine."""
        keys = KeyRing([VERDICT_KEY.verify_key])
        clock = more.pop("clock", utc_now)
        engine = more.pop("engine", None) or ContainerEngine(self.url)
        return Broker(engine, self.site, keys, clock, lambda *entry: self.records.append(entry), build)

    def spec(self, job: str = "job", **changes: Any) -> ContainerSpec:
        folder = self.root / "work" / job
        for part in ("data", "in/tasks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "data" / "study.txt").write_text("pixels")
        for at in (self.root, *self.root.rglob("*")):
            at.chmod(0o755 if at.is_dir() else 0o644)
        now = utc_now()
        spec = ContainerSpec(
            job=job,
            purpose="job",
            image=self.image,
            data_dir=str(folder / "data"),
            in_dir=str(folder / "in"),
            resources=LIMITS,
            issued=now,
            expires=now + timedelta(minutes=5),
        )
        return replace(spec, **changes)

    def sign(self, spec: ContainerSpec) -> str:
        return VERDICT_KEY.sign(spec)

    def give(self, job: str, number: int, kind: str = "train", model: bytes = MODEL, **config: Any) -> None:
        """Put task `number` into the job's `/in`, by rename."""
        tasks = self.root / "work" / job / "in" / "tasks"
        part = tasks / f".{number}.part"
        part.mkdir(mode=0o755)
        order = {"contract": 1, "task": number, "kind": kind, "round": number, "config": config}
        (part / "task.json").write_text(json.dumps(order))
        (part / "model.safetensors").write_bytes(model)
        for file in part.iterdir():
            file.chmod(0o644)
        part.rename(tasks / str(number))

    def start(self, broker: Broker, job: str = "job", **config: Any) -> Iterator[JobEvent]:
        """Prepare and execute a job with one task; its events."""
        broker.prepare(self.sign(self.spec(job)))
        self.give(job, 1, **config)
        return broker.execute(job)

    def containers(self) -> list[tuple[str, str]]:
        return sorted((one.job, one.role) for one in ContainerEngine(self.url).containers(self.site.site))


def until(events: Iterator[JobEvent], *kinds: str) -> JobEvent:
    """The next event of one of `kinds`."""
    for event in events:
        if event.kind in kinds:
            return event
    raise AssertionError(f"the stream ended without {kinds}")


def by_name(files: Any) -> dict[str, bytes]:
    return {file.name: file.content for file in files if isinstance(file, OutputFile)}
