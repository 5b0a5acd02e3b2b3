"""`cloister job test`, wired: a broker on the researcher's own engine, with keys that last as long as the trial."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from containers.broker import Broker
from containers.canary import CanaryResult, canary_spec, run_canary
from containers.kit_engine import KitEngine, KitRunner, Observed
from containers.sandbox import SandboxPolicy as Site
from containers.warm.pool import Sandboxes, SandboxKey
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.ports import Prepared
from mediator.signatures import KeyRing, SigningKey
from mediator.types import ContainerSpec, Kind, Manifest, Resources
from node.host.versions import job_view
from node.kit.synthetic import Shape, write_version
from node.kit.try_job import Step, Trial, try_job

SENTINEL = "cloister-sentinel"


@dataclass
class Seen:
    """What a trial shows beside its steps: the canary, and what was seen of each container by its name."""

    canary: CanaryResult | None = None
    observed: dict[str, Observed] = field(default_factory=dict)


@dataclass(frozen=True)
class Home:
    """A place for one trial: a folder, an engine, a broker, its containers."""

    root: Path
    runner: KitRunner
    sandboxes: Sandboxes
    seen: Seen


def now() -> datetime:
    """The one clock of a trial."""
    return datetime.now(UTC)


def digest_of(engine: KitEngine, image: str) -> str:
    """The digest of an image that is on this machine. Raises `UsageFault`."""
    found = engine.digest_of(image)
    if found is None:
        hint = "build it: cloister job build FOLDER"
        if image == SENTINEL:
            hint = "the canary's image is made without a registry: ./deploy/lib/images.sh cloister-sentinel"
        raise UsageFault(f"the engine holds no image {image}", hint=hint)
    return found


def home_limits(asked: Resources, gpus: int) -> Resources:
    """The permit's limits as far as this machine has them: its processors at most, and the GPUs that are given."""
    return replace(asked, cpus=min(asked.cpus, float(os.cpu_count() or 1)), gpus=gpus)


@contextmanager
def home(engine: KitEngine, limits: Resources, progress: Callable[[Kind, float], None]) -> Iterator[Home]:
    """Everything a trial needs, removed at its end: containers, volumes, folders, keys."""
    root = Path(tempfile.mkdtemp(prefix="cloister-trial-")).resolve()
    verdict = SigningKey(secrets.token_bytes(32))
    for name in ("work", "probe"):
        (root / name).mkdir(mode=0o700)  # whatever the umask: nobody else may write there (`containers.rooms`)
    site = Site(
        site=f"trial-{secrets.token_hex(4)}",
        sentinel=digest_of(engine, SENTINEL),
        ceiling=limits,
        work_root=root / "work",
        probe_root=root / "probe",
    )
    broker = Broker(engine, site, KeyRing([verdict.verify_key]), now, lambda *_: None)
    seen = Seen()
    runner = KitRunner(broker, engine, site.site, seen.observed)
    trusted = _Trust(broker, site, verdict, seen)
    sandboxes = Sandboxes(
        runner, root / "work", verdict.sign, trusted.require, _told(progress), on_destroyed=lambda _: None
    )
    trusted.sandboxes = sandboxes
    try:
        yield Home(root, runner, sandboxes, seen)
    finally:
        sandboxes.shut_down()
        broker.clean([])
        shutil.rmtree(root, ignore_errors=True)


def lay_out(place: Home, shape: Shape, project: str) -> Manifest:
    """Write the made-up dataset version into the trial's folder."""
    return write_version(place.root / "dataset", shape, project=project)


def run(place: Home, trial: Trial, begin: Callable[[int, Kind], None]) -> Iterator[Step]:
    """The steps of a trial as they end. Raises `Denied` where the permit or the sandbox does not hold."""

    def make_view(split: str, columns: tuple[str, ...], into: Path) -> None:
        job_view(place.root / "dataset", trial.manifest, split, columns, into)  # type: ignore[arg-type]

    yield from try_job(
        trial,
        sandboxes=place.sandboxes,
        make_view=make_view,
        clock=now,
        random_bytes=secrets.token_bytes,
        begin=begin,
    )


class _Trust:
    """The canary before the first container, as in a hospital; one for the whole trial."""

    def __init__(self, broker: Broker, site: Site, verdict: SigningKey, seen: Seen) -> None:
        self._broker, self._site, self._verdict, self._seen = broker, site, verdict, seen
        self.sandboxes: Sandboxes

    def require(self, spec: ContainerSpec, prepared: Prepared) -> None:
        held = self._seen.canary
        if held is None or held.fingerprint != prepared.fingerprint:
            held = self._seen.canary = self._probe(spec, prepared.fingerprint)
        if not held.passed:
            raise Denied(Reason(Code.CANARY_FAILED, ", ".join(held.failures)))

    def _probe(self, spec: ContainerSpec, fingerprint: str) -> CanaryResult:
        name = f"canary-{secrets.token_hex(8)}"
        probe = canary_spec(spec, name=name, sentinel=self._site.sentinel, probe_root=self._site.probe_root, now=now())
        with self.sandboxes.guest(name):
            result = run_canary(self._broker, self._verdict.sign(probe), fingerprint)
        self.sandboxes.sweep_guests()
        return result


def _told(progress: Callable[[Kind, float], None]) -> Callable[[SandboxKey, int, float], None]:
    return lambda key, _task, fraction: progress(key.task, fraction)
