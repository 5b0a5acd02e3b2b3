"""What the operating system keeps from each of a node's users, asked as that user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.containers.bench import ENGINE_URL
from tests.end_to_end.commands import as_user
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import AS_ROOT

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not AS_ROOT, reason="only root can give each process a user of its own"),
]
JOB_UID = 65532
TRY = """
import errno, json, os, socket, sys

def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

DO = {"read": lambda path: open(path, "rb").read(1), "list": os.listdir, "connect": connect}
said = {}
for how, path in json.load(sys.stdin):
    try:
        DO[how](path)
        said[path] = "opened"
    except OSError as error:
        said[path] = errno.errorcode[error.errno]
print(json.dumps(said))
"""


def tried(uid: int, attempts: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """What a process of user `uid` gets: `opened`, or the name of an errno."""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", TRY], input=json.dumps([(how, str(path)) for how, path in attempts]),
        capture_output=True, text=True, cwd="/", check=True, **as_user(uid),
    )  # fmt: skip
    said: dict[str, str] = json.loads(ended.stdout)
    return said


def core_and_intake(node: Hospital) -> list[tuple[str, Path]]:
    """What only core and intake may open: data, database, keys, log, and the sockets of everybody but the link."""
    state = node.state
    files = [
        next((state / "datasets").rglob("*.dcm")), next((state / "datasets").rglob("manifest.json")),
        state / "core" / "node.db",
        state / "keys" / "audit.key", state / "keys" / "release.key", state / "keys" / "verdict.key",
        state / "intake" / "keys" / "site.key", state / "intake" / "keys" / "quarantine.key",
        state / "audit" / "segment-00000001.jsonl", state / "logs" / "core.log",
    ]  # fmt: skip
    folders = [state / name for name in ("intake/quarantine", "handover", "datasets", "jobs", "releases", "work")]
    sockets = [state / "run" / name for name in ("broker/broker.sock", "intake.sock")]
    sockets += [state / "run" / f"{role}.sock" for role in ("it_admin", "data_steward", "auditor")]
    return [
        *(("read", path) for path in files),
        *(("list", path) for path in folders),
        *(("connect", path) for path in sockets),
        ("connect", Path(ENGINE_URL.removeprefix("unix://"))),
    ]


def link_alone(node: Hospital) -> list[tuple[str, Path]]:
    state = node.state
    keys = [("read", state / "link" / name) for name in ("tls.key", "flower.key", "bundle.json")]
    return [*keys, ("list", state / "spool"), ("connect", state / "run" / "link.sock")]


def test_the_attempts_are_at_things_that_are_there(house: House) -> None:
    """Positive control: root opens every one of them."""
    for node in house.hospitals:
        said = tried(0, [*core_and_intake(node), *link_alone(node)])
        assert set(said.values()) == {"opened"}, said


def test_the_link_opens_its_own_and_nothing_of_core_intake_broker_or_engine(house: House) -> None:
    node = house.hospitals[0]
    link = node.uids["link"]
    assert set(tried(link, link_alone(node)).values()) == {"opened"}
    said = tried(link, core_and_intake(node))
    assert set(said.values()) == {"EACCES"}, said


@pytest.mark.parametrize("who", ["job", "hub", "the other hospital's core", "the other hospital's link"])
def test_a_stranger_opens_nothing_of_a_node(house: House, who: str) -> None:
    node, other = house.hospitals
    uids = {
        "job": JOB_UID, "hub": house.hub.uid, "the other hospital's core": other.uids["core"],
        "the other hospital's link": other.uids["link"],
    }  # fmt: skip
    said = tried(uids[who], [*core_and_intake(node), *link_alone(node)])
    assert set(said.values()) == {"EACCES"}, said


def test_no_process_of_a_node_opens_the_hubs_keys_or_the_committees(house: House) -> None:
    attempts = [("read", house.hub.state / "keys" / "instruction.key"), ("read", house.committee.key)]
    for uid in house.hospitals[0].uids.values():
        assert set(tried(uid, attempts).values()) == {"EACCES"}
    assert set(tried(house.hub.uid, attempts[1:]).values()) == {"EACCES"}


def test_core_and_broker_reach_neither_quarantine_nor_the_keys_to_it(house: House) -> None:
    state = house.hospitals[0].state
    attempts = [("list", state / "intake" / "quarantine"), ("read", state / "intake" / "keys" / "quarantine.key")]
    for role in ("core", "broker", "link"):
        said = tried(house.hospitals[0].uids[role], attempts)
        assert set(said.values()) == {"EACCES"}, (role, said)


def test_only_the_broker_reaches_the_engine(house: House) -> None:
    engine = [("connect", Path(ENGINE_URL.removeprefix("unix://")))]
    for role in ("core", "intake", "link"):
        assert set(tried(house.hospitals[0].uids[role], engine).values()) == {"EACCES"}


def test_nobody_opens_a_running_jobs_data_though_its_folders_name_is_told(house: House, rogue: Permit) -> None:
    """The job reads it (its container has trained on it before it hangs); the machine's other users do not."""
    node, before = house.hospitals[1], house.hospitals[1].last()
    run = house.begin("looked-at", rogue, node, misbehave="slow")
    node.recorded(before, about=f"{run}/1/train", action="job_start")
    try:
        areas = [node.state / "work" / name for name in node.work_areas()]
        files = [("read", path) for area in areas for path in area.rglob("*") if path.is_file()]
        assert any(path.suffix == ".dcm" for _, path in files) and set(tried(0, files).values()) == {"opened"}
        for who, uid in {**node.uids, "job": JOB_UID, "nobody": 65534}.items():
            said = set(tried(uid, files).values())
            assert said == {"opened"} if who == "core" else said == {"EACCES"}, (who, said)
        assert {path.stat().st_gid for _, path in files if path.suffix == ".dcm"} == {JOB_UID}
    finally:
        node.run("pause")
        node.run("resume")
    assert node.work_areas() == []
