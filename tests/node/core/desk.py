"""A core of real parts but for the engine: store, gates, keys, documents, jobs, outbox. The clock is the test's."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from containers.warm.pool import Sandboxes
from federation.client.objects import FlowerCodec
from mediator.audit import Action, Verdict, decode_line
from mediator.capacity import Capacity, SiteSchedule
from mediator.errors import HubCode
from mediator.jobs import JobState
from mediator.ports import Runner
from mediator.types import Kind, Manifest, Study
from node.core.airlock.airlock import hold
from node.core.context import AirlockSettings, Core, CoreKeys, Folders, Trust, event
from node.core.deferred_records import DeferredRecords
from node.core.documents.documents import Documents
from node.core.records import JobRow
from node.core.reserve import Reserve
from node.core.store.store import open_store
from node.core.switch import Switch
from node.core.tasks import admit_task
from node.core.tasks.outbox import Outbox, take_back
from node.core.tasks.run_job import JobThreads
from node.core.tasks.watch import Watch
from tests.mediator import samples
from tests.sim.runner import Behaviour, FakeRunner

T = TypeVar("T")
FOUR_SLOTS = SiteSchedule(Capacity(concurrent_jobs=4))
AUDIT, RELEASE, VERDICT = map(samples.key, ("audit", "release", "verdict"))
METRICS = {
    Kind.TRAIN.value: b'{"loss": 0.5, "num-examples": 40}',
    Kind.EVALUATE.value: b'{"auc": 0.5, "num-examples": 20}',
}


def learn(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
    """A job that gives the model back."""
    files = {"metrics.json": METRICS[task["kind"]]}
    return files | {"model.safetensors": model} if task["kind"] == "train" else files


def manifest() -> Manifest:
    """The dataset version that the sample permit names: 40 studies to train on, 20 to evaluate on."""
    studies = tuple(Study(f"s{n}", f"pat-{n}", "train" if n < 40 else "test", f"studies/s{n}", 1) for n in range(60))
    return Manifest(
        dataset="images", project="lesions", site=samples.SITE, dataset_version=samples.VERSION,
        created=samples.NOW - samples.DAY, supersedes=None, profile="base", profile_fingerprint="c" * 64,
        engine_version="1", counts={"train": 40, "test": 20}, excluded={}, columns={}, studies=studies, files=(),
    )  # fmt: skip


@dataclass(frozen=True)
class Written:
    """An audit record in short."""

    action: str
    about: str
    verdict: str
    code: str


class Desk:
    """One node's core in a folder, which has the sample permit, acceptance, order, revocation list and dataset."""

    airlock = AirlockSettings()

    def __init__(
        self,
        root: Path,
        behave: Behaviour = learn,
        *,
        documents: bool = True,
        schedule: SiteSchedule = FOUR_SLOTS,
        runner: Runner | None = None,
        **changes: Any,
    ) -> None:
        """`runner` is an engine's; without one the engine is played. `changes` are fields of `Core`."""
        self.root, self.now, self.schedule, self.changes = root, samples.NOW, schedule, changes
        for name in ("jobs", "releases", "spool", "datasets", "handover", "work"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.engine = runner
        self.runner = FakeRunner(VERDICT.verify_key, {samples.IMAGE: behave})
        self.deleted: list[str] = []
        self._open()
        if documents:
            self._fill()

    def _open(self) -> None:
        reserve = self.changes.get("reserve", Reserve())
        reserve.free_if_full()
        store = open_store(f"sqlite:///{self.root}/node.db", samples.NOW - samples.DAY)
        folders = [self.root / name for name in ("jobs", "releases", "spool", "datasets", "handover", "work")]
        self.core = replace(Core(
            site=samples.SITE, store=store, clock=lambda: self.now,
            keys=CoreKeys(audit=AUDIT, release=RELEASE, verdict=VERDICT),
            trust=Trust(samples.COMMITTEE_RING, samples.STEWARD_RING, samples.HUB_RING, samples.HUB_RING),
            folders=Folders(*folders), ceiling=samples.POLICY.resources, schedule=self.schedule,
            max_revocation_age=samples.DAY, codec=FlowerCodec(), random_bytes=bytes, airlock=self.airlock,
            deferred=DeferredRecords(store, lambda: self.now, retry_s=0.1, make_room=reserve.free_if_full),
            switch=Switch(self.root / "paused"),
        ), **self.changes)  # fmt: skip
        self.boxes = Sandboxes(
            self.engine or self.runner, folders[-1], VERDICT.sign, lambda *_: None, lambda *_: None,
            lambda box: self.deleted.append(box.name),
        )  # fmt: skip
        self.outbox = Outbox(self.core)
        self.jobs = JobThreads(
            self.core, self.boxes, lambda version, split, columns, into: into.mkdir(exist_ok=True), hold
        )
        self.watch = Watch(self.core, self.boxes, self.outbox, lambda: None, idle_s=900, checkpoint_every_s=900)
        self.documents = Documents(self.core, self._changed)

    def _changed(self) -> None:
        self.watch.look()
        self.jobs.queue.recheck()
        self.core.deferred.add(lambda tx: take_back(self.core, tx))

    def _fill(self) -> None:
        self.documents.receive(samples.COMMITTEE.sign(samples.permit()))
        self.documents.receive(samples.acceptance().text, by="data_steward")
        self.documents.receive(samples.RESEARCHER.sign(samples.order()))
        self.documents.receive(samples.COMMITTEE.sign(samples.revocations()))
        with self.core.store.transaction(self.now) as tx:
            tx.approve_image(samples.IMAGE, "", event=event(Action.IMAGE_APPROVE, samples.IMAGE, Verdict.DONE))
            published = event(Action.DATASET_PUBLISH, samples.VERSION, Verdict.DONE)
            tx.add_dataset_version(manifest(), "d" * 64, "lesions/a", event=published)

    def ask(self, model: bytes = samples.MODEL, context: bytes = b"context", **changes: Any) -> HubCode | None:
        """An instruction by the hub, with its model."""
        changes = {"model_sha256": hashlib.sha256(model).hexdigest()} | changes
        text = samples.HUB.sign(samples.instruction(**changes))
        code = admit_task.receive(self.core, text, context, [model])
        self.jobs.submit_unfinished()
        return code

    # ---- what can be seen

    def log(self, after: int = 0) -> list[Written]:
        with self.core.store.read() as snapshot:
            lines = [decode_line(line.encode()) for line in snapshot.audit_lines(after, 10_000)]
        return [Written(each.action.value, each.object, each.verdict.value, each.code) for each in lines]

    def size(self) -> int:
        with self.core.store.read() as snapshot:
            return snapshot.audit_size()

    def job(self, attempt: int = 1, round_: int = 1, task: Kind = Kind.TRAIN) -> JobRow:
        with self.core.store.read() as snapshot:
            found = [row for row in snapshot.jobs() if row.instruction == f"run-1/{round_}/{task.value}/{attempt}"]
        assert len(found) == 1
        return found[0]

    def until(self, *states: JobState, attempt: int = 1, round_: int = 1) -> JobRow:
        return eventually(lambda: row if (row := self.job(attempt, round_)).state in states else None)

    def charges(self) -> Sequence[Any]:
        with self.core.store.read() as snapshot:
            return snapshot.charges("lesions-2026")

    def charges_of(self, project: str) -> Sequence[Any]:
        with self.core.store.read() as snapshot:
            return snapshot.charges(f"permit-{project}")

    def releases(self) -> list[str]:
        return [each.about for each in self.log() if (each.action, each.verdict) == ("release", "done")]


def eventually(look: Callable[[], T | None], within_s: float = 10.0) -> T:
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def later(**span: float) -> datetime:
    return samples.NOW + timedelta(**span)


class Gate:
    """A job that waits until it is let go, and counts how often it was asked."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = 0

    def __call__(self, task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        self.asked += 1
        assert self.open.wait(10)
        return learn(task, model)
