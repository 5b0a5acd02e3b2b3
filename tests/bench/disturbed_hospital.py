"""A hospital of a house, whose processes, connection, clock and disk are in somebody's hand.

It lies on a small file system of its own, and its link reaches the hub by a wire that can be cut.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from deploy.demo import permits
from node.ipc.audit import LOG_STATE
from node.ipc.channel import Client
from node.ipc.messages import Empty
from tests.bench.wire import Wire
from tests.containers.bench import image_id
from tests.end_to_end.commands import ENVIRONMENT, attempt, start
from tests.end_to_end.hospital import Hospital, uids
from tests.end_to_end.house import ROGUE, House, Permit
from tests.end_to_end.machine import eventually, give, kill_role
from tests.end_to_end.test_bad_input import fill
from tests.end_to_end.test_pausing import add_image
from tests.sim.cohort import write_cohort

LAUNCHER = Path(__file__).with_name("disturbed.py")
PATIENTS = 16
SMALL = 3
ENDED = ("done", "stopped", "failed")
IMPORT_ENDED = ("published", "failed", "stopped")


class Sized(Protocol):
    @property
    def size(self) -> float: ...


@dataclass
class Disturbed:
    """`runs` and `imports`: each piece of work that was begun, with the state it ended in; `studies`: how many each
    dataset has that was ordered."""

    house: House
    node: Hospital
    wire: Wire
    hand: Path
    permit: Permit | None = None
    runs: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    studies: dict[str, int] = field(default_factory=dict)
    _filler: Path | None = None
    _ordered: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def build(cls, house: House, seed: int) -> Iterator[Disturbed]:
        """With a dataset, an image and a permit of its own."""
        folder = house.root / f"c{seed % 100_000}"
        folder.mkdir(mode=0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", str(folder)], check=True)
        site = house.hospitals[0].site.replace("site1", f"chaos{seed % 100_000}")
        with Wire(house.hub.port) as wire:
            node = Hospital(folder, site, uids(8))
            hand = folder / "hand"
            hand.mkdir(mode=0o755)
            made = cls(house, node, wire, hand)
            try:
                made._install()
                yield made
            finally:
                node.stop()
                subprocess.run(["umount", "-l", str(folder)], check=True)

    def _install(self) -> None:
        house, node = self.house, self.node
        node.install(house.hub, house.committee.public_key)
        # where the hub said it is when it let the node in: the link goes there
        bundle = node.state / "link" / "bundle.json"
        text = bundle.read_text()
        assert text.count(f":{house.hub.port}") == 1
        bundle.write_text(text.replace(f":{house.hub.port}", f":{self.wire.port}"))
        self.serve()
        node.ingest(patients=PATIENTS, seed=1)
        add_image(node, house.hospitals[0])
        node.run("image", "approve", image_id(ROGUE), "--by", "it.admin", "--yes")
        versions = [{"site": node.site, "versions": [node.dataset_version]}]
        self.permit = house.grant(f"for-{node.site}", house.rogue, node, datasets=versions)

    def serve(self) -> None:
        def launch(log: Path, *words: object) -> subprocess.Popen[bytes]:
            with log.open("ab") as out:
                return subprocess.Popen(
                    [sys.executable, "-P", str(LAUNCHER), str(self.hand), "serve",
                     str(self.node.config)],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", env=dict(ENVIRONMENT),
                    start_new_session=True,
                )  # fmt: skip

        self.node.serve(launch)

    # ---------------------------------------------------------------- work

    def begin(self, work: str, number: int) -> str:
        """A run of one round, or an import: its name."""
        if work == "round":
            assert self.permit is not None
            run = f"{self.node.site}-{number}"
            self.house.begin(run, self.permit, self.node, misbehave="slow" if number % 2 else "none")
            self.runs[run] = "begun"
            return run
        name = f"more-{number}"
        source = self.node.source / name
        self.studies[name] = write_cohort(source, self.node.site, SMALL, seed=number + 1, second_study=1)
        for each in (source, *source.rglob("*")):
            give(each, self.node.uids["intake"])
        # who ordered it may lose core: the import goes on by itself
        self._ordered = start(
            self.node.folder / "orders.log", "node", "ingest", source, "--project", permits.PROJECT, "--dataset",
            name, "--clinical", "clinical.csv", "--column", "lesion=0:1", "--config", self.node.config,
        )  # fmt: skip
        return name

    def ended(self, work: str) -> None:
        """Wait until a piece of work is over, however it ended."""
        if work in self.runs:
            self.runs[work] = self.house.hub.ended(work, within_s=180)["state"]
        if self._ordered is not None:
            self._ordered.wait(180)
            self._ordered = None

    def settle(self) -> None:
        """Every run and every import has ended, and no container is left."""
        self.mend()
        self.awake()
        for run in self.runs:
            self.ended(run)
        eventually(self._imports_ended, within_s=180, what="the end of every import")
        for line in self.json("dataset", "imports"):
            if line["dataset_version"] != self.node.dataset_version:  # its own, from before anything broke
                self.imports[line["order"]] = line["state"]
        self.node.run("pause")
        self.node.run("resume")
        eventually(lambda: not self.node.containers(), within_s=60, what="the end of every container")

    def _imports_ended(self) -> bool:
        return all(line["state"] in IMPORT_ENDED for line in self.json("dataset", "imports"))

    def json(self, *words: object) -> Any:
        return self.node.json(*words)

    # ---------------------------------------------------------------- faults

    def kill(self, what: str) -> None:
        """SIGKILL: to one process, to the whole node, to the hub; who has nobody to start him is started again."""
        if what == "hub":
            self.house.hub.kill()
            self.house.hub.serve()
        elif what == "node":
            self.node.kill()
            self.serve()
        else:
            assert self.node.process is not None
            kill_role(self.node.process, what)

    def cut(self, _: Sized) -> None:
        assert self.wire.cut() > 0, "there was a connection to cut"

    def fill(self, _: Sized) -> None:
        """Not a byte left: for the spool, the database and whatever else lies on the node's disk."""
        self._filler = fill(self.node.folder)
        assert shutil.disk_usage(self.node.folder).free == 0

    def set_clock(self, fault: Sized) -> None:
        (self.hand / "clock").write_text(str(fault.size))
        with Client(self.node.state / "run" / "auditor.sock") as client:
            assert client.call(LOG_STATE, Empty()).clock == "jumped", "core has noticed that its clock is wrong"

    def slow_down(self, fault: Sized) -> None:
        (self.hand / "disk").write_text(str(fault.size))

    def mend(self) -> None:
        self.wire.mend()
        if self._filler is not None:
            self._filler.unlink()
            self._filler = None
        for name in ("clock", "disk"):
            (self.hand / name).unlink(missing_ok=True)

    def awake(self) -> None:
        """The node answers and its link is connected."""

        def well() -> bool:
            asked = attempt("node", "status", "--json", "--config", self.node.config)
            return asked.code == 0 and bool(asked.json()["hub"]["connected"])

        eventually(well, within_s=120, what="the node's answer and its connection")
