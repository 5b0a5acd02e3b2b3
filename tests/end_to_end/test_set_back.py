"""A hospital whose whole state was restored from a backup, on real processes: only the hub knows what is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.commands import attempt
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import eventually

pytestmark = pytest.mark.engine
KEPT = ("core/node.db", "audit", "witness")


def back_up(node: Hospital, folder: Path) -> None:
    folder.mkdir()
    for name in KEPT:
        subprocess.run(["cp", "-a", node.state / name, folder], check=True)


def restore(node: Hospital, folder: Path) -> None:
    for name in (*KEPT, "core/node.db-wal", "core/node.db-shm"):
        path = node.state / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name in KEPT:
        subprocess.run(["cp", "-a", folder / Path(name).name, node.state / name], check=True)


def state(node: Hospital) -> int:
    return attempt("node", "audit", "state", "--config", node.config).code


def test_a_restored_hospital_serves_nothing_until_a_person_opens_an_epoch(
    house: House, rogue: Permit, tmp_path: Path
) -> None:
    node = house.hospitals[1]
    node.run("audit", "checkpoint")
    node.stop()
    back_up(node, tmp_path / "backup")
    node.serve()
    house.hub.ended(house.begin("forgotten", rogue, node, misbehave="none"))
    node.run("audit", "checkpoint")
    node.stop()
    restore(node, tmp_path / "backup")
    node.serve()
    # the link connects, the hub says what it signed last, and core compares
    eventually(lambda: state(node) == 4, within_s=60, what="the node's notice that it was set back")
    node.recorded(action="log_set_back")
    seen = eventually(lambda: refused_since(house, node), within_s=30, what="the hub's note")
    assert seen
    checked = attempt("check", "--config", node.config, "--json")
    assert any("set back" in each["detail"] for each in checked.json()), checked
    before = node.last()
    house.begin("refused", rogue, node, misbehave="none")
    assert node.recorded(before, action="task_admit")["code"] == "log_set_back"
    house.hub.run("run", "stop", "refused")  # it would wait for a site that is not ready
    assert node.count(before, action="job_start") == 0

    node.run("audit", "open-epoch")
    assert state(node) == 0
    opened = node.recorded(action="epoch_open")
    assert opened["actor"].startswith("it_admin")
    assert not any(line["accepted"] for line in node.json("permit", "list"))
    node.accept(rogue.name)
    house.hub.ended(house.begin("afterwards", rogue, node, misbehave="none"))
    node.recorded(opened["sequence"], action="release", verdict="done")

    # an auditor takes the lines from the hub, and the files from the hospital
    node.run("audit", "checkpoint")
    lines = tmp_path / "from-the-hub.jsonl"
    lines.write_text(house.hub.run("witness", "export", node.site).out)
    words = (*node.verify_words[:2], "--witness", lines, "--json")
    done = attempt("audit", "verify", node.audit, *words)
    assert done.code == 0, done
    (seam,) = done.json()["seams"]
    assert seam["witnessed"] and seam["record"] == opened["sequence"] and seam["kept"] < seam["witnessed_before"]
    assert refused_since(house, node) is None


def refused_since(house: House, node: Hospital) -> str | None:
    rows = house.hub.run("node", "list", "--json").json()
    since: str | None = next(row for row in rows if row["site"] == node.site)["witness_refused"]
    return since
