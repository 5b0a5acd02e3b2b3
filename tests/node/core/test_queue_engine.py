"""The queue on the real engine: a task makes room, another has its turn, and the first goes on from what it left."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from containers.broker import Broker
from containers.engine import ContainerEngine
from containers.job_log import job_log
from containers.sandbox import SandboxPolicy
from mediator.audit import Action, Verdict
from mediator.capacity import Capacity, SiteSchedule
from mediator.errors import NotNow
from mediator.jobs import JobState
from mediator.signatures import KeyRing
from mediator.types import ConfigField, MetricSpec, OutputFile, SiteDatasets
from node.core.context import event
from tests.containers.bench import CEILING, ENGINE_URL, LIMITS, image_id, utc_now
from tests.mediator import samples
from tests.node.core.desk import VERDICT, Desk, eventually, manifest
from tests.node.core.test_queue import row, until

pytestmark = pytest.mark.engine
QUANTUM = timedelta(seconds=5)
ONE_SLOT = SiteSchedule(Capacity(concurrent_jobs=1), quantum=QUANTUM, grace=timedelta(seconds=20))


class Seen(Broker):
    """The broker, and what came out through it."""

    outputs: list[tuple[str, tuple[str, ...], bytes]]

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        files = super().finalise(job, task)
        metrics = b"".join(file.content for file in files if file.name == "metrics.json")
        self.outputs.append((job, tuple(file.name for file in files), metrics))
        return files


class OnEngine(Desk):
    """A desk whose jobs are the attacker's image on the real engine; two projects, `a` and `b`."""

    def __init__(self, root: Path) -> None:
        (root / "work").mkdir()
        (root / "probe").mkdir()
        site = SandboxPolicy(
            f"queue-{uuid.uuid4().hex[:8]}", image_id("cloister-sentinel"), CEILING, root / "work", root / "probe"
        )
        self.site, self.image, self.progress = site.site, image_id("cloister-attacker"), 0.0
        self.broker = Seen(ContainerEngine(ENGINE_URL), site, KeyRing([VERDICT.verify_key]), utc_now, lambda *_: None)
        self.broker.outputs = []
        super().__init__(root, schedule=ONE_SLOT, runner=self.broker)
        object.__setattr__(self.core, "ceiling", CEILING)
        self.boxes._on_progress = self._progressed
        with self.core.store.transaction(self.now) as tx:
            tx.approve_image(self.image, "", **self._approval())
        for name in ("a", "b"):
            self._add(name)

    def _approval(self) -> dict[str, Any]:
        return {"event": event(Action.IMAGE_APPROVE, self.image, Verdict.DONE)}

    def _progressed(self, _key: object, _task: int, fraction: float) -> None:
        self.progress = max(self.progress, fraction)

    def _add(self, name: str) -> None:
        version = "sha256:" + f"{ord(name):064x}"
        metrics = (MetricSpec("loss", "value", 0.0, 100.0, 4), MetricSpec("num-examples", "count", 0, 1e6, 0))
        granted = samples.permit(
            permit=f"permit-{name}", project=name, datasets=(SiteDatasets(samples.SITE, (version,)),),
            images=(self.image,), metrics={"train": metrics}, resources=replace(LIMITS, wall_time_s=60),
            config=(ConfigField("misbehave", "str", None, None, ("long-task", "nothing-wrong", "keep-a-checkpoint")),),
        )  # fmt: skip
        self.documents.receive(samples.COMMITTEE.sign(granted))
        self.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
        order = samples.order(run=f"{name}-0", permit=granted.permit, nonce=name, image=self.image, config={})
        self.documents.receive(samples.RESEARCHER.sign(order))
        published = replace(manifest(), dataset=name, project=name, dataset_version=version)
        with self.core.store.transaction(self.now) as tx:
            made = event(Action.DATASET_PUBLISH, version, Verdict.DONE)
            tx.add_dataset_version(published, "d" * 64, f"{name}/a", event=made)

    def give(self, name: str, behave: str, round_: int = 1) -> None:
        self.ask(
            run=f"{name}-0", permit=f"permit-{name}", round=round_, config={"misbehave": behave}, issued=self.now,
            expires=self.now + timedelta(hours=5),
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnEngine]:
    # the engine lives by the real clock
    monkeypatch.setattr(samples, "NOW", datetime.now(UTC).replace(microsecond=0))
    made = OnEngine(tmp_path)
    made.jobs.start()
    yield made
    made.jobs.stop()
    made.boxes.shut_down()
    made.broker.clean([])
    made.core.store.close()


def within(look: Callable[[], Any], within_s: float = 60.0) -> Any:
    return eventually(look, within_s)


def test_a_task_makes_room_on_the_engine_and_goes_on_from_its_checkpoint(desk: OnEngine) -> None:
    desk.give("a", "long-task")
    within(lambda: desk.progress > 0.03)
    desk.give("b", "nothing-wrong")
    desk.now += QUANTUM
    within(lambda: row(desk, "b-0").state is JobState.RELEASED)
    first = row(desk, "a-0")
    assert first.preempted == 1
    within(lambda: row(desk, "a-0").state is JobState.RELEASED)
    [left, _, went_on] = desk.broker.outputs
    assert left[1] == ("checkpoint",) and went_on[1] == ("metrics.json", "model.safetensors")
    begun = int(went_on[2].split(b'"num-examples": ')[1].rstrip(b"}")) - 1000
    assert begun > 5, "from where it was, not from the beginning"
    assert left[0] != went_on[0], "in another container"
    within(lambda: not list((desk.root / "jobs").iterdir()))


def test_a_checkpoint_beside_a_result_is_nobodys(desk: OnEngine) -> None:
    desk.give("a", "keep-a-checkpoint")
    within(lambda: row(desk, "a-0").state is JobState.RELEASED)
    assert desk.broker.outputs[0][1] == ("checkpoint", "metrics.json", "model.safetensors")
    files = [path for path in desk.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"PATIENTPATIENT" in path.read_bytes()]


def test_what_a_job_printed_can_be_read_while_its_container_is_there(desk: OnEngine) -> None:
    desk.give("a", "long-task")
    within(lambda: desk.progress > 0)
    sandbox = str(row(desk, "a-0").sandbox)
    engine = ContainerEngine(ENGINE_URL)
    assert b"made room" not in b"".join(job_log(engine, desk.site, sandbox, follow=False))
    with pytest.raises(NotNow, match="gone"):
        list(job_log(engine, "another-site", sandbox, follow=False))
    desk.jobs.end(row(desk, "a-0").job, "it_admin")
    until(desk, "a-0", JobState.STOPPED)
    with pytest.raises(NotNow, match="gone"):
        list(job_log(engine, desk.site, sandbox, follow=True))
