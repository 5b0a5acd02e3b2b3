"""How cost grows with size: studies, records of the audit log, jobs that wait, sites at a hub.

    python -m tests.bench.scale [--short] [--json]

Each is measured at a quarter, at half and at the whole of its size, in processor time, which other work on the machine
changes little, and again where it took less than a second: the least counts. The exponent says as which power of the
size the cost grows. It fails where that is more than `LINE`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mediator import canonical
from mediator.audit import Action
from mediator.audit_check import verify_log
from mediator.datasets import decode_manifest, manifest_of
from mediator.types import SiteDatasets
from node.core.store.audit_log import AuditLog
from node.core.store.store import Store, open_store
from tests.bench import figures
from tests.bench.datasets import TABLE, invented
from tests.end_to_end.machine import descendants
from tests.federation.ground import COMMITTEE, Town, found, permit
from tests.mediator.samples import NOW
from tests.node.core.desk import Desk, eventually, learn
from tests.node.core.handover import ACCOUNT
from tests.node.core.store.samples import KEY, RING, event
from tests.node.core.test_queue import ONE_SLOT, add_project, ask

COLUMNS = ("what", "units", "cpu_s", "us_each", "us_each_at_a_quarter", "memory_mb", "exponent")
# between linear (1) and quadratic (2); a cost that is mostly fixed has less than 1
LINE = 1.4
PROJECTS = 10
TIMES, SHORT_S = 3, 1.0


class Used:
    """Processor seconds that a block took here and in a process beside."""

    def __init__(self, beside: Callable[[], float] = lambda: 0.0) -> None:
        self._beside, self.seconds = beside, 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        begun = time.process_time() + self._beside()
        yield
        self.seconds += time.process_time() + self._beside() - begun


def studies_made(_: Path, count: int, used: Used) -> None:
    studies = list(map(invented, range(count)))
    with used():
        canonical.encode(manifest_of(ACCOUNT, studies, [TABLE], created=NOW, supersedes=None))


def studies_read(_: Path, count: int, used: Used) -> None:
    raw = canonical.encode(manifest_of(ACCOUNT, map(invented, range(count)), [TABLE], created=NOW, supersedes=None))
    with used():
        decode_manifest(raw)


def _logged(folder: Path, count: int) -> Store:
    """A log of so many records, ten to a transaction, with its folder and a checkpoint."""
    (folder / "audit").mkdir(parents=True)
    store = open_store(f"sqlite:///{folder}/node.db", NOW)
    log = AuditLog(store, folder / "audit", folder / "witness.jsonl")
    store.after_commit(log.export)
    for _ in range(count // 10):
        with store.transaction(NOW) as tx:
            for _ in range(10):
                tx.record(event=event())
    with store.transaction(NOW) as tx:
        tx.add_checkpoint("north", KEY, event=event(Action.CHECKPOINT, "checkpoint"))
    return store


def records_written(folder: Path, count: int, used: Used) -> None:
    with used():
        _logged(folder, count).close()


def records_verified(folder: Path, count: int, used: Used) -> None:
    _logged(folder, count).close()
    files = [(path.name, path.read_bytes()) for path in sorted((folder / "audit").iterdir())]
    with used():
        report = verify_log(files, RING)
    assert report.ok and report.records == count // 10 * 10 + 1


def jobs_queued(folder: Path, count: int, used: Used) -> None:
    """They come in, one by one, from ten projects, while one runs and all others wait."""
    enough = threading.Event()

    def lasting(task: Mapping[str, Any], model: bytes) -> Mapping[str, bytes]:
        enough.wait()
        return learn(task, model)

    desk = Desk(folder, lasting, schedule=ONE_SLOT)
    desk.jobs.start()
    try:
        for number in range(PROJECTS):
            add_project(desk, f"p{number}", -(-count // PROJECTS))
        with used():
            for number in range(count):
                ask(desk, f"p{number % PROJECTS}-{number // PROJECTS}")
            eventually(lambda: len(desk.jobs.queue.places()) == count, 3600)
            desk.jobs.queue.look()
        assert sum(place.wait is not None for place in desk.jobs.queue.places().values()) == count - 1
    finally:
        enough.set()
        desk.jobs.stop()
        desk.boxes.shut_down()
        desk.core.store.close()


def sites_in_a_round(folder: Path, count: int, used: Used) -> None:
    """One round with every site, each with a link of its own over TLS: the hub's processes and all links together."""
    folder.mkdir()
    town = found(folder, patience_s=600.0)
    sites = tuple(f"site-{number:03d}" for number in range(count))
    for site in sites:
        town.enrol(site)
    town.start()
    pids = [town.process.pid, *descendants(town.process.pid)] if town.process else []
    used._beside = lambda: sum(map(figures.cpu_s, pids))
    try:
        with used():
            asyncio.run(_round(town, sites))
    finally:
        town.stop()


async def _round(town: Town, sites: tuple[str, ...]) -> None:
    # links that share a process share its threads; at a hospital each has its own
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4 * len(sites)))
    datasets = tuple(SiteDatasets(site, ("sha256:" + "cd" * 32,)) for site in sites)
    async with town.links(*(town.core(site) for site in sites)):
        town.hub.submit_permit(COMMITTEE.sign(permit(permit="many", datasets=datasets)))
        town.submit("many", permit="many", sites=sites, rounds=1)
        history = await town.settled("many", 1800)
    assert history["state"] == "done", history
    assert set(history["rounds"][-1]["evaluate"]) == set(sites)


@dataclass(frozen=True)
class Subject:
    """Something that there may be many of: how many in the long form, and in the short one."""

    measure: Callable[[Path, int, Used], None]
    long: int
    short: int


SUBJECTS: Mapping[str, Subject] = {
    "studies in a manifest, made": Subject(studies_made, 12_484, 12_484),
    "studies in a manifest, read": Subject(studies_read, 12_484, 12_484),
    "audit records, written": Subject(records_written, 100_000, 2_000),
    "audit records, verified": Subject(records_verified, 100_000, 2_000),
    "jobs in the queue": Subject(jobs_queued, 1_000, 60),
    "sites in a round": Subject(sites_in_a_round, 50, 8),
}


def _folder() -> tempfile.TemporaryDirectory[str]:
    # threads of a queue that was shut down may still write their last lines
    return tempfile.TemporaryDirectory(prefix="cl-scale-", dir="/var/tmp", ignore_cleanup_errors=True)


def _least(subject: Subject, count: int) -> tuple[float, float]:
    """Processor seconds, the least of `TIMES` where one takes less than `SHORT_S`, and MB of memory at most."""
    costs: list[float] = []
    memory = 0.0
    while len(costs) < TIMES and (not costs or min(costs) < SHORT_S):
        with _folder() as folder, figures.Peak() as peak:
            used = Used()
            subject.measure(Path(folder) / "work", count, used)
        costs.append(used.seconds)
        memory = max(memory, peak.mb)
    return min(costs), memory


def measured(what: str, subject: Subject, size: int) -> dict[str, Any]:
    sizes, costs, memory = [size // 4, size // 2, size], [], 0.0
    for count in sizes:
        cost, memory = _least(subject, count)
        costs.append(cost)
    each = [round(1e6 * cost / count, 1) for cost, count in zip(costs, sizes, strict=True)]
    values = (what, size, round(costs[-1], 3), each[-1], each[0], round(memory, 1),
              round(figures.exponent(sizes, costs), 2))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def run(*, short: bool, only: str = "") -> list[dict[str, Any]]:
    chosen = {what: each for what, each in SUBJECTS.items() if only in what}
    return [measured(what, each, each.short if short else each.long) for what, each in chosen.items()]


def too_steep(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['what']}: n^{row['exponent']}, at most n^{LINE}" for row in rows if row["exponent"] > LINE]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.bench.scale", allow_abbrev=False)
    made.add_argument("--short", action="store_true", help="sizes of the tests' runs")
    made.add_argument("--only", default="", help="subjects with this in their name")
    made.add_argument("--json", action="store_true")
    return made


def main() -> int:
    given = parser().parse_args()
    rows = run(short=given.short, only=given.only)
    figures.show("scale", COLUMNS, rows, as_json=given.json)
    for line in too_steep(rows):
        print(f"error: {line}", file=sys.stderr)
    return 1 if too_steep(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
