"""The runner with 50 queued jobs: a node's core, its queue and its broker on the real engine, a job that does nothing.

    python -m tests.bench.job_queue [JOBS] [SLOTS]

Prints throughput, how long jobs waited and were at work, and what one job costs beside its own container: the same job
without queue, gates and store, prepared and run by the broker alone, one after the other.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from containers.broker import Broker
from containers.engine import ContainerEngine
from containers.sandbox import SandboxPolicy
from mediator.audit import Action, Verdict
from mediator.capacity import Capacity, SiteSchedule
from mediator.jobs import JobState
from mediator.signatures import KeyRing
from mediator.types import ConfigField, MetricSpec, SiteDatasets
from node.core.context import event
from tests.containers.bench import CEILING, ENGINE_URL, LIMITS, Bench, image_id, until, utc_now
from tests.mediator import samples
from tests.node.core.desk import VERDICT, Desk, manifest

PROJECTS = ("a", "b", "c", "d", "e")
CONFIG = (ConfigField("misbehave", "str", None, None, ("nothing-wrong",)),)
METRICS = {"train": (MetricSpec("loss", "value", 0, 100, 4), MetricSpec("num-examples", "count", 0, 1e6, 0))}


class Waited(Desk):
    """A core on the real engine that notes when each job's state changed, by the real clock."""

    def __init__(self, root: Path, jobs: int, slots: int) -> None:
        for name in ("work", "probe"):
            (root / name).mkdir()
        sentinel, self.image = image_id("cloister-sentinel"), image_id("cloister-attacker")
        site = SandboxPolicy(f"bench-{uuid.uuid4().hex[:8]}", sentinel, CEILING, root / "work", root / "probe")
        self.broker = Broker(ContainerEngine(ENGINE_URL), site, KeyRing([VERDICT.verify_key]), utc_now, lambda *_: None)
        super().__init__(root, schedule=SiteSchedule(Capacity(concurrent_jobs=slots)), runner=self.broker)
        object.__setattr__(self.core, "ceiling", CEILING)
        object.__setattr__(self.core, "clock", utc_now)
        with self.core.store.transaction(utc_now()) as tx:
            tx.approve_image(self.image, "", event=event(Action.IMAGE_APPROVE, self.image, Verdict.DONE))
        for name in PROJECTS:
            self._add(name, -(-jobs // len(PROJECTS)))

    def _add(self, name: str, runs: int) -> None:
        version = "sha256:" + f"{ord(name):064x}"
        granted = samples.permit(
            permit=f"permit-{name}", project=name, datasets=(SiteDatasets(samples.SITE, (version,)),), config=CONFIG,
            images=(self.image,), metrics=METRICS, resources=LIMITS, maximum_rounds=1000, byte_budget=1 << 30,
        )  # fmt: skip
        self.documents.receive(samples.COMMITTEE.sign(granted))
        self.documents.receive(samples.acceptance(samples.signed_permit(granted)).text, by="data_steward")
        for number in range(runs):
            run = f"{name}-{number}"
            # one round: its container ends with it, so that every job pays for its own
            order = samples.order(run=run, permit=granted.permit, nonce=run, image=self.image, config={}, rounds=1)
            self.documents.receive(samples.RESEARCHER.sign(order))
        published = replace(manifest(), dataset=name, project=name, dataset_version=version)
        with self.core.store.transaction(utc_now()) as tx:
            made = event(Action.DATASET_PUBLISH, version, Verdict.DONE)
            tx.add_dataset_version(published, "d" * 64, f"{name}/a", event=made)

    def give(self, number: int) -> None:
        name = PROJECTS[number % len(PROJECTS)]
        now = utc_now()
        self.ask(
            run=f"{name}-{number // len(PROJECTS)}", permit=f"permit-{name}", config={"misbehave": "nothing-wrong"},
            issued=now, expires=now + timedelta(hours=2),
        )  # fmt: skip

    def written(self) -> dict[str, dict[str, datetime]]:
        """instruction → action → when, from the audit log."""
        from mediator.audit import decode_line

        found: dict[str, dict[str, datetime]] = {}
        with self.core.store.read() as snapshot:
            for line in snapshot.audit_lines(0, 100_000):
                record = decode_line(line.encode())
                found.setdefault(record.object, {})[record.action.value] = record.time
        return found


@contextmanager
def core(jobs: int, slots: int) -> Iterator[Waited]:
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        made = Waited(Path(folder), jobs, slots)
        made.jobs.start()
        try:
            yield made
        finally:
            made.jobs.stop()
            made.boxes.shut_down()
            made.broker.clean([])
            made.core.store.close()


def queued(jobs: int, slots: int) -> tuple[float, list[float], list[float], list[float]]:
    """Seconds in all; and of each job: waiting for its turn, being prepared, from its start to its output."""
    with core(jobs, slots) as node:
        begun = time.monotonic()
        for number in range(jobs):
            node.give(number)
        while True:
            with node.core.store.read() as snapshot:
                rows = list(snapshot.jobs(10_000))
            ended = [row for row in rows if row.state is JobState.RELEASED]
            failed = [row for row in rows if row.code is not None]
            if failed:
                raise SystemExit(f"a job ended otherwise: {failed[0].code}")
            if len(ended) == jobs:
                break
            time.sleep(0.05)
        seconds = time.monotonic() - begun
        times = [each for each in node.written().values() if "job_produce" in each]
    return (
        seconds,
        [_between(each, "task_admit", "job_prepare") for each in times],
        [_between(each, "job_prepare", "job_start") for each in times],
        [_between(each, "job_start", "job_produce") for each in times],
    )


def alone(jobs: int) -> list[float]:
    """Seconds of each job by the broker alone: created, started, its output taken, removed."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        bench = Bench.make(Path(folder), image_id("cloister-attacker"))
        broker = bench.broker()
        seconds = []
        for number in range(jobs):
            begun = time.monotonic()
            events = bench.start(broker, f"job-{number}")
            until(events, "done")
            broker.finalise(f"job-{number}", 1)
            broker.terminate(f"job-{number}", 0)
            broker.clean([])
            seconds.append(time.monotonic() - begun)
        return seconds


def _between(times: dict[str, datetime], first: str, last: str) -> float:
    return (times[last] - times[first]).total_seconds()


def _row(values: Sequence[float]) -> tuple[str, str, str]:
    ordered = sorted(values)
    return tuple(
        f"{value:.2f}" for value in (statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1])
    )  # type: ignore[return-value]


def main(jobs: int, slots: int) -> None:
    samples.NOW = datetime.now(UTC).replace(microsecond=0)  # the engine lives by the real clock
    by_itself = alone(10)
    seconds, waited, prepared, worked = queued(jobs, slots)
    table = Table("seconds", "median", "95 %", "most", title=f"{jobs} jobs, {slots} at once")
    table.add_row("waiting for its turn", *_row(waited))
    table.add_row("container made and judged", *_row(prepared))
    table.add_row("started, done, output taken", *_row(worked))
    table.add_row("by the broker alone, one after the other", *_row(by_itself))
    Console().print(table)
    each = seconds / jobs
    print(f"{jobs} jobs in {seconds:.1f} s: {60 / each:.0f} a minute, {each:.2f} s each with {slots} at once")
    print(f"a job by the broker alone: {statistics.median(by_itself):.2f} s")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["50", "4"][len(sys.argv) - 1 :])))
