"""What grows in a house that works all day: rounds, imports and questions without a pause.

    python -m tests.bench.soak [--minutes N | --laps N] [--json]

A lap is a round, a few questions, and every third time an import and its withdrawal. It ends when its containers are
gone, so that every lap is looked at in the same state: a resting container has open files in the broker, and how many
rest depends on how fast the machine is. Then memory (PSS), open files and threads of every process of hub and node are
read, and what lies on the disk; of a database the pages in use, for the write-ahead log beside it is written over and
over again. Growth per lap is the median over all pairs of laps (Theil–Sen), the first laps left out; it fails where
that is beyond the stated line.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo import permits
from deploy.driver.roles import ROLES
from tests.bench import figures
from tests.containers.bench import ENGINE_URL
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import descendants, eventually, give
from tests.sim.cohort import write_cohort

COLUMNS = ("what", "at_first", "at_last", "per_lap", "line")
IMPORT_EVERY = 3
QUESTIONS = (("status",), ("job", "list"), ("ledger",))
WARM_UP = 3  # laps in which everything has been loaded once
REST_S = 1  # how long a container waits for a next round; the tests' houses say 120
# Per lap. Memory and files that are kept for nothing; a record of every decision is kept for good, and costs this much.
LINES: Mapping[str, float] = {
    "memory_kb": 400.0, "descriptors": 0.5, "threads": 0.5,
    "database_kb": 100.0, "audit_kb": 40.0, "logs_kb": 20.0, "checkpoints_kb": 10.0,
}  # fmt: skip
# A few laps, while pools of threads and caches still fill, see only what is gross.
FEW_LAPS = 20
SHORT_LINES: Mapping[str, float] = {**LINES, "memory_kb": 3000.0, "descriptors": 1.0, "threads": 2.0}


def processes(house: House, hospital: Hospital) -> Iterator[tuple[str, int]]:
    """Name and id of every lasting process of the hub and of the node."""
    hub, node = house.hub.process, hospital.process
    assert hub is not None and node is not None
    yield "hub", hub.pid
    for pid in descendants(hub.pid):
        yield "superlink", pid
    yield "supervisor", node.pid
    for pid in descendants(node.pid):
        words = _words(pid)
        if words[-4:-3] == [b"process"] or b"process" in words:
            yield next((role for role in ROLES if role.encode() in words), "other"), pid


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def kilobytes(*paths: Path) -> float:
    """Files, and whatever lies in folders; what goes away meanwhile counts as gone."""
    found = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    return sum(_size(each) for each in found) / 1000


def stored_kb(database: Path) -> float:
    """The pages of a database that hold something, those included that lie in its write-ahead log still."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        pages, free, size = (
            opened.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return float((pages - free) * size / 1000)


@contextmanager
def short_rest(hospital: Hospital) -> Iterator[None]:
    """A node whose containers rest `REST_S`; afterwards they rest as long as before."""
    before = hospital.config.read_text()
    shorter, count = re.subn(r"(?m)^idle_s = \d+$", f"idle_s = {REST_S}", before)
    assert count == 1, before
    _start_again(hospital, shorter)
    try:
        yield
    finally:
        _start_again(hospital, before)


def _start_again(hospital: Hospital, config: str) -> None:
    hospital.stop()
    hospital.config.write_text(config)
    hospital.serve()
    eventually(lambda: hospital.json("status")["hub"]["connected"], what="the link's connection")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


@dataclass
class Soak:
    """One hospital of a house, and what was read after each lap: name → values."""

    house: House
    hospital: Hospital
    permit: Permit
    read: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    laps: int = 0

    def lap(self) -> None:
        house, hospital = self.house, self.hospital
        self.laps += 1
        run = f"soak-{os.getpid()}-{self.laps}"
        history = house.hub.ended(house.begin(run, self.permit, hospital, misbehave="none"), within_s=120)
        assert history["state"] == "done", history
        with ThreadPoolExecutor() as pool:  # four people, at once
            asked: list[Future[Any]] = [pool.submit(hospital.json, *words) for words in QUESTIONS]
            asked.append(pool.submit(house.hub.run, "node", "list", "--json"))
            for each in asked:
                each.result()
        if self.laps % IMPORT_EVERY == 0:
            self._import()
        eventually(lambda: not hospital.containers(), what="the end of the lap's containers")
        self._look()

    def _import(self) -> None:
        """A cohort that is always the same, so that what it leaves is too."""
        hospital, source = self.hospital, self.hospital.source / "soak"
        write_cohort(source, hospital.site, 3, seed=self.laps)
        for each in (source, *source.rglob("*")):
            give(each, hospital.uids["intake"])
        done = hospital.run(
            "ingest", source, "--project", permits.PROJECT, "--dataset", "soak", "--clinical", "clinical.csv",
            "--column", "lesion=0:1", "--json",
        )  # fmt: skip
        hospital.run("dataset", "withdraw", done.json()["dataset_version"])
        shutil.rmtree(source)

    def _look(self) -> None:
        found: dict[str, list[int]] = defaultdict(list)
        for name, pid in processes(self.house, self.hospital):
            found[name].append(pid)
        for name, pids in found.items():
            self.read[f"{name} memory_kb"].append(sum(map(figures.pss_kb, pids)))
            self.read[f"{name} descriptors"].append(sum(map(figures.descriptors, pids)))
            self.read[f"{name} threads"].append(sum(map(figures.threads, pids)))
        state, core, hub = self.hospital.state, self.hospital.state / "core", self.house.hub.state
        self.read["node database_kb"].append(stored_kb(core / "node.db"))
        self.read["node audit_kb"].append(kilobytes(self.hospital.audit, state / "witness"))
        self.read["node logs_kb"].append(kilobytes(self.hospital.log, *state.rglob("*.log")))
        self.read["hub database_kb"].append(stored_kb(hub / "hub.db"))
        self.read["hub checkpoints_kb"].append(kilobytes(hub / "checkpoints"))

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for what, values in self.read.items():
            steady = values[min(WARM_UP, len(values) - 3) :]
            line = (LINES if len(values) >= FEW_LAPS else SHORT_LINES)[what.rpartition(" ")[2]]
            row = (what, round(steady[0], 1), round(steady[-1], 1), round(figures.slope(steady), 2), line)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return rows


def grown(rows: list[dict[str, Any]]) -> list[str]:
    """What grows faster than its line, in words."""
    return [
        f"{row['what']}: {row['per_lap']} more with every lap, at most {row['line']}"
        for row in rows
        if row["per_lap"] > row["line"]
    ]


def soak(house: House, hospital: Hospital, permit: Permit, *, laps: int = 0, minutes: float = 0.0) -> Soak:
    """So many laps, or as many as go into these minutes."""
    soaked, until = Soak(house, hospital, permit), time.monotonic() + 60 * minutes
    with short_rest(hospital):
        while soaked.laps < max(laps, WARM_UP + 3) or (minutes and time.monotonic() < until):
            soaked.lap()
    return soaked


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.bench.soak", allow_abbrev=False)
    made.add_argument("--minutes", type=float, default=0.0)
    made.add_argument("--laps", type=int, default=0)
    made.add_argument("--json", action="store_true")
    return made


def main() -> int:
    given = parser().parse_args()
    os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
    minutes = given.minutes or (0.0 if given.laps else 60.0)
    house = House.build(1)
    try:
        permit = house.grant("soak", house.rogue, *house.hospitals, maximum_rounds=100_000)
        begun = time.monotonic()
        soaked = soak(house, house.hospitals[0], permit, laps=given.laps, minutes=minutes)
        seconds = round(time.monotonic() - begun)
    finally:
        house.close()
    rows = soaked.rows()
    figures.show("soak", COLUMNS, rows, as_json=given.json, laps=soaked.laps, seconds=seconds)
    for line in grown(rows):
        print(f"error: {line}", file=sys.stderr)
    return 1 if grown(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
