"""`cloister node pause` when the node is at its worst: disk full, database held, core hung, everything dead."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from deploy.driver.services import Service
from node.ipc import images
from node.ipc.channel import Client
from tests.containers.bench import image_id
from tests.end_to_end.commands import CLOISTER, Done, attempt
from tests.end_to_end.hospital import Hospital, uids
from tests.end_to_end.house import PATIENTS, ROGUE, House, Permit
from tests.end_to_end.machine import AS_ROOT, descendants, eventually
from tests.end_to_end.test_bad_input import fill

pytestmark = pytest.mark.engine
WITHIN_S = 5.0


@pytest.fixture(scope="module")
def node(house: House) -> Iterator[Hospital]:
    """A hospital of its own on a small file system."""
    if not AS_ROOT:
        pytest.skip("only root can mount one")
    folder = house.root / "n9"
    folder.mkdir()
    folder.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", str(folder)], check=True)
    hospital = Hospital(folder, house.hospitals[0].site.replace("site1", "site9"), uids(9))
    try:
        hospital.install(house.hub, (house.root / "committee.key.pub").read_text().strip())
        hospital.serve()
        hospital.ingest(patients=PATIENTS, seed=1)
        add_image(hospital, house.hospitals[0])
        hospital.run("image", "approve", image_id(ROGUE), "--by", "it.admin", "--yes")
        yield hospital
    finally:
        hospital.stop()
        subprocess.run(["umount", "-l", str(folder)], check=True)


def add_image(hospital: Hospital, other: Hospital) -> None:
    """What is in the image, as another hospital has it; to look into it once more takes half a minute."""
    with closing(sqlite3.connect(other.state / "core" / "node.db")) as database:
        (facts,) = database.execute("SELECT text FROM image_facts WHERE image = ?", (image_id(ROGUE),)).fetchone()
    with Client(hospital.state / "run" / "it_admin.sock") as client:
        client.call(images.IMAGE_ADD, images.AddImage(facts=facts))


@pytest.fixture(scope="module")
def permit(house: House, node: Hospital) -> Permit:
    versions = [{"site": node.site, "versions": [node.dataset_version]}]
    return house.grant("pausing", house.rogue, node, datasets=versions)


@pytest.fixture
def at_work(house: House, node: Hospital, permit: Permit, request: pytest.FixtureRequest) -> Iterator[str]:
    """A run whose container computes; unpaused and ended afterwards."""
    before = node.last()
    run = house.begin(f"pausing-{abs(hash(request.node.name)) % 10_000}", permit, node, misbehave="over-time")
    node.recorded(before, about=f"{run}/1/train", action="job_start")
    assert node.containers()
    yield run
    if node.process is None or node.process.poll() is not None:
        node.serve()
    answers = lambda: attempt("node", "status", "--config", node.config).code == 0  # noqa: E731
    eventually(answers, within_s=60, what="the node's answer")
    attempt("hub", "run", "stop", run, "--config", house.hub.config, uid=house.hub.uid)  # some have ended
    node.run("pause")  # a job that was begun again after a restart goes on whatever becomes of its run
    node.run("resume")
    eventually(lambda: not node.containers(), what="the end of every container")


def pause(node: Hospital) -> tuple[Done, float]:
    """The command's end, and after how many seconds no container was left; its own start not counted."""
    begun = time.monotonic()
    attempt("node", "pause", "--help")
    started_s = time.monotonic() - begun
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(attempt, "node", "pause", "--config", node.config)
        eventually(lambda: not node.containers(), within_s=30, what="the end of every container")
        gone_s = time.monotonic() - begun
        return asked.result(), gone_s - started_s


@contextmanager
def full(node: Hospital) -> Iterator[None]:
    """Not a byte left on the node's disk, and no room in the write-ahead log that it was given before."""
    with closing(sqlite3.connect(node.state / "core" / "node.db", isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    filler = fill(node.folder)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def locked(node: Hospital) -> Iterator[None]:
    with closing(sqlite3.connect(node.state / "core" / "node.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("fault", [full, locked])
def test_a_pause_on_a_full_disk_or_a_held_database_stops_first_and_is_recorded_once_that_is_mended(
    house: House, node: Hospital, permit: Permit, at_work: str, fault: type
) -> None:
    before = node.last()
    with fault(node):
        done, gone_s = pause(node)
        assert gone_s < WITHIN_S, gone_s
        # on the full disk the ended job's own folders may have made room for the record
        room = fault is full and done.code == 0
        if not room:
            done.fault(5, "not written down yet")
            assert "forget" not in done.err, "the mark keeps it over a restart"
        status, seen = node.json("status"), node.last()
        assert status["paused"] and (room or status["unrecorded"] > 0)
        other = house.begin(f"{at_work}-other", permit, node, misbehave="none")
        time.sleep(3)
        assert node.containers() == [], "nothing is admitted"
        assert room or node.last() == seen, "nothing is written"
        if not room:
            attempt("node", "resume", "--config", node.config).fault(5)
        assert node.json("status")["paused"]
    node.recorded(before, action="pause", verdict="done")
    node.recorded(before, about=f"{at_work}/1/train", action="job_end", code="hospital_paused")
    node.recorded(before, action="work_delete", permit="pausing@1")
    if fault is locked:  # on a full disk the link cannot even note what it was given
        # what the link could not hand over it hands over again, after a pause that grows to 15 s
        refused = {"action": "task_admit", "verdict": "refused", "code": "hospital_paused"}
        node.recorded(before, within_s=90, about=f"{other}/", **refused)
    assert node.count(before, action="pause") == 1 and node.count(before, action="job_prepare") == 0
    assert node.json("status")["unrecorded"] == 0 and node.containers() == []
    attempt("hub", "run", "stop", at_work, "--config", house.hub.config, uid=house.hub.uid)
    node.run("resume")
    if fault is locked:
        assert house.hub.ended(other, within_s=60)["state"] == "done"
    else:
        attempt("hub", "run", "stop", other, "--config", house.hub.config, uid=house.hub.uid)


def test_a_pause_that_could_not_be_recorded_survives_the_nodes_death(node: Hospital, at_work: str) -> None:
    before = node.last()
    with locked(node):
        pause(node)[0].fault(5, "not written down yet")
        node.kill()
    node.serve()
    assert node.json("status")["paused"]
    assert node.recorded(before, action="pause")["actor"] == "it_admin.unknown"
    assert node.containers() == [] and node.count(before, action="job_prepare") == 0


def test_a_core_that_hangs_keeps_no_container_running(node: Hospital, at_work: str) -> None:
    assert node.process is not None
    before = node.last()
    core = next(pid for pid in descendants(node.process.pid) if b"process\0core" in command_line(pid))
    os.kill(core, signal.SIGSTOP)
    try:
        done, gone_s = pause(node)
        assert gone_s < WITHIN_S + 0.5, gone_s
        done.fault(5, "the node does not answer: it finds itself paused")
    finally:
        os.kill(core, signal.SIGCONT)
    assert node.recorded(before, action="pause")["actor"] == "it_admin.unknown"
    assert node.json("status")["paused"] and node.containers() == []
    assert node.count(before, action="job_prepare") == 0


def test_a_dead_nodes_containers_are_ended_and_it_starts_paused(node: Hospital, at_work: str) -> None:
    before = node.last()
    node.kill()
    assert node.containers()
    done, gone_s = pause(node)
    assert gone_s < WITHIN_S, gone_s
    done.fault(5, "finds itself paused")
    node.serve()
    assert node.recorded(before, action="pause")["actor"] == "it_admin.unknown"
    assert node.json("status")["paused"] and node.count(before, action="job_prepare") == 0


def test_a_core_that_cannot_start_on_a_full_disk_leaves_nothing_running(node: Hospital, at_work: str) -> None:
    """What its forerunner left computes no further, though the new one gets no farther than that."""
    with full(node):
        node.kill()
        assert node.containers()
        again = subprocess.Popen(
            [str(CLOISTER), "node", "serve", "--config", str(node.config)], cwd="/", start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        node.service = Service("node", again, node.log)
        eventually(lambda: not node.containers(), within_s=30, what="the end of the dead core's containers")


def test_what_a_terminated_node_was_computing_ends_though_its_database_is_held(node: Hospital, at_work: str) -> None:
    with locked(node):
        node.stop()
        assert node.containers() == []


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
