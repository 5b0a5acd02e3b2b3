"""Another version and back: what is switched, what is tried, and that whatever fails leaves the old one at work."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from deploy.install import layout
from deploy.install.databases import fit_for_before, standing
from deploy.install.journal import Installed, read_installed, recover
from deploy.install.machine import Machine
from deploy.install.talk import Fault
from deploy.install.upgrade import rollback, upgrade
from tests.installer.ground import calls, put, running, snapshot, version_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an installer is root's")

# what a version that came and went may leave: the records that the database itself made of it, and the copy before it
RECORDED = ("var/lib/cloister/node/core", "var/lib/cloister/before-upgrade")


@pytest.fixture
def standing_node(machine: Machine) -> Machine:
    put(machine, "0.2.0")
    return machine


def installed(machine: Machine) -> Installed:
    found = read_installed(machine)
    assert found is not None
    return found


def to(machine: Machine, version: str, wait_s: float = 0.0, *, dry: bool = False) -> None:
    upgrade(machine, installed(machine), version_of(machine.root, version), wait_s=wait_s, dry=dry)


def records(machine: Machine) -> list[str]:
    with closing(sqlite3.connect(machine.at(layout.database("node")))) as database:
        return [row[0] for row in database.execute("SELECT what FROM audit_record")]


def changed(machine: Machine, before: dict[str, str]) -> set[str]:
    after = snapshot(machine.root)
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return {name for name in names if not name.startswith(RECORDED)}


def test_an_upgrade_switches_units_and_database_and_keeps_the_version_before(standing_node: Machine) -> None:
    machine = standing_node
    to(machine, "0.3.0")
    assert os.readlink(machine.at(layout.CURRENT)) == "0.3.0" and machine.at(layout.program("0.2.0")).exists()
    assert "cloister-web.service" in running(machine)
    assert standing(machine.at(layout.database("node")), "node").revision == "0013"
    assert records(machine) == ["start 0.2.0", "start 0.3.0"]
    now = installed(machine)
    assert (now.version, now.previous) == ("0.3.0", "0.2.0") and now.copy is not None
    kept = machine.at(now.copy)
    assert kept.stat().st_mode & 0o7777 == 0o700 and {each.name for each in kept.iterdir()} == {"node.db", "node.toml"}
    assert standing(kept / "node.db", "node").revision == "0012"


def test_a_node_is_paused_for_it_and_goes_on_and_what_it_did_before_is_tried(standing_node: Machine) -> None:
    to(standing_node, "0.3.0")
    words = ("pause", "started", "canary", "self-test", "resume")
    asked = [line for line in calls(standing_node) if line.split()[-1] in words]
    tried = ["0.3.0 node canary", "0.3.0 node self-test"]
    assert asked[1:] == ["0.2.0 node pause", "0.3.0 node started", *tried, "0.3.0 node resume"]
    assert not standing_node.at("/fake/paused").exists()


def test_a_node_that_was_paused_by_somebody_stays_paused(standing_node: Machine) -> None:
    standing_node.at("/fake/paused").touch()
    to(standing_node, "0.3.0")
    assert standing_node.at("/fake/paused").exists()


def test_jobs_that_compute_are_waited_for(standing_node: Machine) -> None:
    standing_node.at("/fake/jobs").write_text("3")
    to(standing_node, "0.3.0", wait_s=60)
    asked = calls(standing_node)
    assert standing_node.at("/fake/jobs").read_text() == "0"
    assert max(i for i, line in enumerate(asked) if line.endswith("job")) < asked.index("0.2.0 node pause")


@pytest.mark.parametrize(
    "what", ["fails-migrating", "fails-starting", "silent", "leaks", "jobless", "older-than-the-word", "without-hub"]
)  # fmt: skip
def test_a_version_that_does_not_do_its_work_is_given_up_for_the_one_before(standing_node: Machine, what: str) -> None:
    machine = standing_node
    machine.patience_s = 5.0
    machine.at(f"/fake/0.3.0-{what}").touch()
    before = snapshot(machine.root)
    with pytest.raises(Fault):
        to(machine, "0.3.0")
    assert changed(machine, before) == set()
    assert running(machine) == {"cloister-node.target", "cloister-core.service", "cloister-link.service"}
    assert not machine.at("/fake/paused").exists() and not machine.at("/opt/cloister/0.3.0").exists()
    assert records(machine)[0] == "start 0.2.0" and records(machine)[-1] == "start 0.2.0"


def test_a_broken_version_whose_database_nobody_else_reads_gives_the_copy_back(standing_node: Machine) -> None:
    machine = standing_node
    machine.at("/fake/0.4.0-fails-starting").touch()  # after it migrated, before it recorded anything
    with pytest.raises(Fault):
        to(machine, "0.4.0")
    assert standing(machine.at(layout.database("node")), "node").revision == "0012"
    assert records(machine) == ["start 0.2.0", "start 0.2.0"] and "cloister-core.service" in running(machine)


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_version_that_cannot_be_given_up_any_more_stays_at_work(standing_node: Machine, cut_off: bool) -> None:
    machine = standing_node
    machine.at("/fake/0.4.0-leaks").touch()  # it recorded its start, which the version before cannot read
    if cut_off:
        cut = machine.at("/fake/kill")
        cut.write_text("systemctl start\nsystemctl is-active cloister-link.service")
        if (pid := os.fork()) == 0:
            try:
                to(machine, "0.4.0")
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 9 and recover(machine)
    else:
        with pytest.raises(Fault, match="did not hold"):
            to(machine, "0.4.0")
    now = installed(machine)
    assert (now.version, now.previous) == ("0.4.0", "0.2.0") and now.copy is not None
    assert os.readlink(machine.at(layout.CURRENT)) == "0.4.0" and machine.at(layout.program("0.4.0")).exists()
    assert running(machine) == {"cloister-node.target", "cloister-core.service", "cloister-link.service"}
    assert standing(machine.at(layout.database("node")), "node").revision == "0014"
    assert machine.at("/fake/paused").exists() and not machine.at(layout.JOURNAL).exists()


def test_rolling_back_keeps_everything_that_was_recorded_since(standing_node: Machine) -> None:
    machine = standing_node
    to(machine, "0.3.0")
    rollback(machine, installed(machine), wait_s=0)
    assert records(machine) == ["start 0.2.0", "start 0.3.0", "start 0.2.0"]
    assert standing(machine.at(layout.database("node")), "node").revision == "0013"
    assert os.readlink(machine.at(layout.CURRENT)) == "0.2.0"
    assert running(machine) == {"cloister-node.target", "cloister-core.service", "cloister-link.service"}
    assert not machine.at("/etc/systemd/system/cloister-web.service").exists()
    to(machine, "0.3.0")  # and forward again, with nothing to be put in place anew
    assert "cloister-web.service" in running(machine) and installed(machine).previous == "0.2.0"


def test_a_version_before_that_knows_no_self_test_is_gone_back_to_all_the_same(standing_node: Machine) -> None:
    to(standing_node, "0.3.0")
    standing_node.at("/fake/0.2.0-older-than-the-word").touch()
    rollback(standing_node, installed(standing_node), wait_s=0)
    assert os.readlink(standing_node.at(layout.CURRENT)) == "0.2.0" and "0.2.0 node self-test" in calls(standing_node)


def test_going_back_is_refused_where_it_would_forget_what_was_served(standing_node: Machine) -> None:
    machine = standing_node
    to(machine, "0.4.0")
    before = snapshot(machine.root)
    with pytest.raises(Fault, match="1 records were made since") as raised:
        rollback(machine, installed(machine), wait_s=0)
    assert raised.value.code == 3
    assert changed(machine, before) == set() and os.readlink(machine.at(layout.CURRENT)) == "0.4.0"
    assert "cloister-core.service" in running(machine) and not machine.at("/fake/paused").exists()


def test_there_is_no_going_back_twice(standing_node: Machine) -> None:
    machine = standing_node
    with pytest.raises(Fault, match="no version before"):
        rollback(machine, installed(machine), wait_s=0)
    to(machine, "0.3.0")
    rollback(machine, installed(machine), wait_s=0)
    with pytest.raises(Fault, match="no version before"):
        rollback(machine, installed(machine), wait_s=0)


def test_a_downgrade_is_refused_and_the_same_version_is_nothing_to_do(standing_node: Machine) -> None:
    machine = standing_node
    to(machine, "0.3.0")
    before = snapshot(machine.root)
    with pytest.raises(Fault, match="older than") as raised:
        to(machine, "0.2.0")
    assert raised.value.code == 3
    to(machine, "0.3.0")
    assert snapshot(machine.root) == before


def test_a_dry_upgrade_tells_what_it_would_do(standing_node: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(standing_node.root)
    capsys.readouterr()
    to(standing_node, "0.3.0", dry=True)
    told = capsys.readouterr().err
    assert snapshot(standing_node.root) == before
    assert "would write /etc/systemd/system/cloister-web.service" in told and "would stop cloister-node.target" in told
    assert "would link /opt/cloister/current to 0.3.0" in told and "would copy" in told


def test_two_versions_stay_and_no_more(standing_node: Machine) -> None:
    machine = standing_node
    to(machine, "0.3.0")
    to(machine, "0.4.0")
    assert {each.name for each in machine.at(layout.HOME).iterdir() if each.is_dir() and not each.is_symlink()} == {
        "0.3.0", "0.4.0",
    }  # fmt: skip


def test_a_hub_is_upgraded_and_rolled_back_too(machine: Machine) -> None:
    put(machine, "0.2.0", role="hub")
    to(machine, "0.3.0")
    assert running(machine) == {"cloister-hub.target", "cloister-hub.service"}
    rollback(machine, installed(machine), wait_s=0)
    assert os.readlink(machine.at(layout.CURRENT)) == "0.2.0"
    assert standing(machine.at(layout.database("hub")), "hub").tables["events"] == (3, 3)


@pytest.fixture
def migrated_hub(machine: Machine) -> tuple[Machine, str]:
    """A hub's database that a version migrated which nobody before it reads; and the copy from before."""
    database, copy = machine.at(layout.database("hub")), f"{layout.COPIES}/0.2.0"
    database.parent.mkdir(parents=True)
    with closing(sqlite3.connect(database)) as db, db:
        db.executescript(
            "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('0004');"
            "CREATE TABLE events (what TEXT); INSERT INTO events VALUES ('init'), ('admitted');"
            "CREATE TABLE instructions (what TEXT); CREATE TABLE checkpoints (what TEXT PRIMARY KEY);"
            "INSERT INTO checkpoints VALUES ('one'); CREATE TABLE nodes (name TEXT, state TEXT, budget REAL);"
            "INSERT INTO nodes VALUES ('st-anna', 'active', 0.5), ('st-marien', 'active', NULL)"
        )
    machine.at(copy).mkdir(parents=True)
    shutil.copy2(database, machine.at(copy))
    with closing(sqlite3.connect(database)) as db, db:
        db.executescript(
            "UPDATE alembic_version SET version_num = '0005'; CREATE TABLE invitations (what TEXT);"
            "ALTER TABLE nodes ADD COLUMN region TEXT DEFAULT 'north'; DROP TABLE IF EXISTS schema_reader"
        )
    return machine, copy


@pytest.mark.parametrize("table", ["events", "instructions", "checkpoints", "invitations"])
def test_a_hub_does_not_forget_what_it_signed_and_recorded_in_any_table(
    migrated_hub: tuple[Machine, str], table: str
) -> None:
    machine, copy = migrated_hub
    database = machine.at(layout.database("hub"))
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(f"INSERT INTO {table} VALUES ('since')")
    with pytest.raises(Fault, match="1 records were made since"):
        fit_for_before(machine, "hub", copy)
    with closing(sqlite3.connect(database)) as db, db:
        assert standing(database, "hub").revision == "0005"
        db.execute(f"DELETE FROM {table} WHERE what = 'since'")
    fit_for_before(machine, "hub", copy)
    assert standing(database, "hub").revision == "0004"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE nodes SET state = 'revoked' WHERE name = 'st-anna'",
        "UPDATE nodes SET budget = 0.25 WHERE name = 'st-anna'",
        "UPDATE nodes SET budget = 0 WHERE name = 'st-marien'",
        "UPDATE nodes SET name = CASE name WHEN 'st-anna' THEN 'st-marien' ELSE 'st-anna' END",
        "UPDATE checkpoints SET what = 'two'",
        "ALTER TABLE nodes DROP COLUMN budget",
        "DELETE FROM events WHERE what = 'init'; INSERT INTO events VALUES ('init')",
    ],
)
def test_a_hub_does_not_forget_what_it_changed_in_its_place(migrated_hub: tuple[Machine, str], change: str) -> None:
    """A node that was revoked since would be active again: no table has a row more for it."""
    machine, copy = migrated_hub
    database = machine.at(layout.database("hub"))
    with closing(sqlite3.connect(database)) as db, db:
        db.executescript(change)
    before = database.read_bytes()
    with pytest.raises(Fault, match="records were changed since") as raised:
        fit_for_before(machine, "hub", copy)
    assert raised.value.code == 3 and database.read_bytes() == before


def test_a_hub_whose_database_was_migrated_alone_goes_back(migrated_hub: tuple[Machine, str]) -> None:
    machine, copy = migrated_hub
    database = machine.at(layout.database("hub"))
    with closing(sqlite3.connect(database)) as db, db:
        # as a migration does that cannot add in place: the same rows in another table, numbered anew
        db.executescript(
            "CREATE TABLE made (name TEXT, state TEXT, budget REAL, region TEXT);"
            "INSERT INTO made SELECT * FROM nodes ORDER BY name DESC;"
            "DROP TABLE nodes; ALTER TABLE made RENAME TO nodes"
        )
    fit_for_before(machine, "hub", copy)
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0004",)
        assert db.execute("SELECT * FROM nodes ORDER BY name").fetchall() == [
            ("st-anna", "active", 0.5), ("st-marien", "active", None),
        ]  # fmt: skip
