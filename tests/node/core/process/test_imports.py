"""Imports with both processes real: core with its sockets here, intake in a process of its own that is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mediator.errors import NotNow, UsageFault
from mediator.imports import ImportState
from mediator.roles import Role
from node.core import staff
from node.core.core import CoreProcess
from node.core.imports import intake_handlers
from node.core.records import ImportRow
from node.host.config import NodeConfig
from node.host.keys import read_verify_key
from node.ipc import imports as words
from node.ipc import intake as intake_words
from node.ipc.caller import Caller
from node.ipc.channel import Client
from node.ipc.messages import Empty
from node.ipc.server import Server
from node.ipc.verb import verbs_in
from tests.sim.cohort import write_cohort
from tests.sim.runner import FakeRunner

PATIENTS = 3
INTAKE = """
import sys
from pathlib import Path
from node.host.config import load_config
from node.intake.process import run
run(load_config(Path(sys.argv[1])))
"""


@dataclass
class House:
    """A core in this process, and an intake beside it; both may be ended at any time."""

    config: NodeConfig
    file: Path
    core: CoreProcess | None = None
    intake: subprocess.Popen[bytes] | None = None

    def start_core(self) -> CoreProcess:
        paths = self.config.paths
        core = self.core = CoreProcess(self.config, FakeRunner(read_verify_key(paths.verdict_public_key), {}))
        core.start()
        self._servers = [
            Server(
                paths.intake_socket,
                verbs_in(intake_words),
                intake_handlers.HANDLERS.of(core.imports),
                caller=Caller("intake", person=""),
            ),
            *staff.servers(self.config, core),
        ]
        for server in self._servers:
            server.start()
        return core

    def kill_core(self) -> None:
        """Whatever it was about: nothing is said to anybody, and its database is closed as it is."""
        assert self.core is not None
        for server in self._servers:
            server.stop()
        self.core.stop()
        self.core = None

    def start_intake(self) -> None:
        self.intake = subprocess.Popen([sys.executable, "-c", INTAKE, str(self.file)])

    def kill_intake(self) -> None:
        assert self.intake is not None
        self.intake.kill()
        self.intake.wait()
        self.intake = None

    @contextmanager
    def steward(self) -> Iterator[Client]:
        with Client(self.config.paths.staff_socket(Role.DATA_STEWARD.value)) as client:
            yield client

    def order(self, source: Path) -> str:
        """Give an order and go away; its name."""
        request = words.Ingest(
            project="liver", dataset="cohort", source=str(source), profile="eucaim", clinical="clinical.csv",
            columns=(words.IngestColumn("lesion", 0, 1),), test_fraction=0.4,
        )  # fmt: skip
        with self.steward() as client:
            before = {line.order for line in client.call(words.IMPORTS, Empty())}
            news = client.stream(words.INGEST, request)

            def listen() -> None:
                with suppress(NotNow):  # the steward goes away
                    next(news, None)

            threading.Thread(target=listen, daemon=True).start()
            while True:
                fresh = [line.order for line in client.call(words.IMPORTS, Empty()) if line.order not in before]
                if fresh:
                    return fresh[0]
                time.sleep(0.02)

    def row(self, name: str) -> ImportRow:
        assert self.core is not None
        with self.core.core.store.read() as snapshot:
            found = snapshot.find_import(name)
        assert found is not None
        return found

    def until(self, there: Callable[[], bool], within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not there():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def published(self, name: str) -> str:
        """The version that came of an import, once nothing of it is left anywhere."""
        self.until(lambda: self.row(name).state in (ImportState.PUBLISHED, ImportState.FAILED))
        row, paths = self.row(name), self.config.paths
        assert row.state is ImportState.PUBLISHED and row.dataset_version is not None, row
        self.until(lambda: not any(paths.handover.iterdir()))
        assert not any(paths.quarantine.iterdir())
        return row.dataset_version

    def trail(self, name: str) -> list[str]:
        """Every record of an import."""
        assert self.core is not None
        with self.core.core.store.read() as snapshot:
            lines = snapshot.audit_lines(0, 10_000)
        return [line for line in lines if f"ingest/{name}" in line]


@pytest.fixture
def house(config: NodeConfig) -> Iterator[House]:
    made = House(config, config.state_dir.parent / "node.toml")
    yield made
    if made.intake is not None:
        made.kill_intake()
    if made.core is not None:
        made.kill_core()


@pytest.fixture
def source(config: NodeConfig) -> Path:
    path = config.state_dir.parent / "source"
    path.mkdir()
    write_cohort(path, "alpha", PATIENTS, seed=2, second_study=1)
    return path


def test_intake_and_core_are_killed_again_and_again_and_every_version_is_the_same(house: House, source: Path) -> None:
    """One import after another, each disturbed in another state; a study is taken by core once."""
    house.start_core()
    house.start_intake()
    wanted, states = house.published(house.order(source)), (ImportState.TAKING_IN, ImportState.DEIDENTIFYING)
    for state in states:
        name = house.order(source)
        house.until(lambda name=name, state=state: house.row(name).state is state)  # type: ignore[misc]
        house.kill_intake()
        house.start_intake()
        assert house.published(name) == wanted
        assert sum('"study_take"' in line for line in house.trail(name)) == house.row(name).studies_done > 0
    for state in (ImportState.ORDERED, *states):
        if state is ImportState.ORDERED:
            house.kill_intake()
        name = house.order(source)
        house.until(lambda name=name, state=state: house.row(name).state is state)  # type: ignore[misc]
        house.kill_core()
        house.start_core()
        if state is ImportState.ORDERED:
            house.start_intake()
        assert house.published(name) == wanted
        actions = [line.split('"action":"')[1].split('"')[0] for line in house.trail(name)]
        for once in ("ingest_order", "quarantine_destroy", "ingest_report"):
            assert actions.count(once) == 1, (state, once, actions)


def test_an_import_without_a_record_is_swept_and_told(house: House, source: Path) -> None:
    """As after a core that lost its database, or one from before imports were rows."""
    paths = house.config.paths
    for name, files in (("ingest-0123456789ab", 3), ("Hartog, Anna", 1)):
        (paths.quarantine / name / "files").mkdir(parents=True)
        for number in range(files):
            (paths.quarantine / name / "files" / f"{number:032x}").write_bytes(b"sealed")
    (paths.handover / ".ingest-0123456789ab.partial" / "study").mkdir(parents=True)
    (paths.handover / "ingest-aaaaaaaaaaaa").mkdir()
    core = house.start_core()
    house.start_intake()
    house.until(lambda: not any(paths.quarantine.iterdir()) and not any(paths.handover.iterdir()))
    house.until(lambda: len(house.trail("ingest-0123456789ab")) == 1 and len(house.trail("unknown")) == 1)
    assert "ingest/ingest-0123456789ab/3" in house.trail("ingest-0123456789ab")[0]
    with core.core.store.read() as snapshot:
        assert not any("Hartog" in line for line in snapshot.audit_lines(0, 100))


def test_a_stopped_import_leaves_nothing_and_the_next_one_goes_on(house: House, source: Path) -> None:
    house.start_core()
    name = house.order(source)
    second = house.order(source)
    house.start_intake()
    house.until(lambda: house.row(name).state is not ImportState.ORDERED)
    with house.steward() as client:
        client.call(words.IMPORT_STOP, words.ImportId(name))
        last = list(client.stream(words.IMPORT_FOLLOW, words.ImportId(name)))[-1]
        assert last.kind == "stopped"
        with pytest.raises(UsageFault):
            client.call(words.IMPORT_RETRY, words.ImportId(name))
    assert not (house.config.paths.quarantine / name).exists()
    assert house.published(second)
