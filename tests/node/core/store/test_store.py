"""Opening, migrating and losing power: what was committed stays, what is from the future is left alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from federation.older_readers import READERS_TABLE
from mediator.errors import IntegrityBroken, NotNow, UnsupportedVersion, UsageFault
from node.core.store.engine import make_engine
from node.core.store.migrate import MIGRATIONS, migrate
from node.core.store.models import NodeBase
from node.core.store.store import Store, open_store
from tests.node.core.store.samples import IMAGE, NOW, event
from tests.sim.users import as_user


def database(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


def test_the_migrations_make_exactly_the_models(store: Store, url: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection:
        # whose database it is stands beside the models, as Alembic's own table does
        context = MigrationContext.configure(connection, opts={"include_name": lambda name, *_: name != READERS_TABLE})
        assert compare_metadata(context, NodeBase.metadata) == []
    engine.dispose()


def test_the_database_is_its_owners_alone(store: Store, tmp_path: Path) -> None:
    with store.transaction(NOW) as tx:
        tx.record(event=event())
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["node.db"] == 0o600 and set(modes.values()) == {0o600}


def test_sqlite_is_set_up_to_keep_what_it_committed(store: Store, url: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_reopening_finds_everything_and_changes_nothing(url: str, tmp_path: Path) -> None:
    first = open_store(url, NOW)
    with first.transaction(NOW) as tx:
        tx.approve_image(IMAGE, "", event=event())
    first.close()
    again = open_store(url, NOW + timedelta(days=1))
    with again.read() as reads:
        assert reads.approved_images() == {IMAGE} and reads.images()[0].approved == NOW
    again.close()
    assert not list(tmp_path.glob("*.backup"))


def test_a_database_of_a_newer_version_is_refused_and_untouched(url: str, tmp_path: Path) -> None:
    open_store(url, NOW).close()
    with closing(sqlite3.connect(database(tmp_path))) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = database(tmp_path).read_bytes()
    with pytest.raises(UnsupportedVersion, match="newer version"):
        open_store(url, NOW)
    assert database(tmp_path).read_bytes() == before


_NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9000", "{head}", None, None
def upgrade():
    op.create_table("later", sa.Column("later", sa.Integer(), primary_key=True))
    {more}
"""


def head() -> str:
    """The newest revision there is."""
    return max(path.name[1:5] for path in (MIGRATIONS / "versions").glob("m*.py"))


def later_migrations(tmp_path: Path, more: str) -> Path:
    """The migrations of a later version: ours and one more."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "m9000_later.py").write_text(_NEXT.format(head=head(), more=more))
    return folder


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as raw:
        return {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_backup_precedes_a_migration(url: str, tmp_path: Path) -> None:
    store = open_store(url, NOW)
    with store.transaction(NOW) as tx:
        tx.approve_image(IMAGE, "", event=event())
    store.close()
    engine = make_engine(url)
    migrate(engine, url, NOW, later_migrations(tmp_path, "pass"))
    engine.dispose()
    assert "later" in tables(database(tmp_path))
    backup = tmp_path / f"node.db.{head()}-20260301T120000Z.backup"
    assert backup.stat().st_mode & 0o777 == 0o600 and "later" not in tables(backup)
    with closing(sqlite3.connect(backup)) as raw:
        assert raw.execute("SELECT image FROM image").fetchall() == [(IMAGE,)]
    with pytest.raises(UnsupportedVersion):
        open_store(url, NOW)


def test_a_migration_that_fails_changes_nothing(url: str, tmp_path: Path) -> None:
    open_store(url, NOW).close()
    engine = make_engine(url)
    with pytest.raises(RuntimeError, match="halfway"):
        migrate(engine, url, NOW, later_migrations(tmp_path, "raise RuntimeError('halfway')"))
    engine.dispose()
    assert "later" not in tables(database(tmp_path))
    open_store(url, NOW).close()


def test_a_damaged_file_is_integrity_broken(url: str, tmp_path: Path) -> None:
    database(tmp_path).write_bytes(b"this is not a database, whatever its name says" * 100)
    database(tmp_path).chmod(0o600)
    with pytest.raises(IntegrityBroken):
        open_store(url, NOW)


@pytest.mark.parametrize("url", ["sqlite://", "nonsense", "mystery://host/db", "sqlite:////no/such/folder/node.db"])
def test_a_url_that_cannot_be_used_is_a_usage_fault(url: str) -> None:
    with pytest.raises(UsageFault):
        open_store(url, NOW)


def test_a_database_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.db").touch()
    (tmp_path / "node.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(UsageFault):
        open_store(f"sqlite:///{tmp_path / 'node.db'}", NOW)


def test_a_full_disk_is_not_now_and_leaves_nothing_half_done(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotNow), store.transaction(NOW) as tx:
        pages = tx._session.connection().exec_driver_sql("PRAGMA page_count").scalar()
        tx._session.connection().exec_driver_sql(f"PRAGMA max_page_count={pages}")
        for number in range(2000):
            tx.approve_image(f"sha256:{number:064x}", "x" * 1000, event=event())
    with store.read() as reads:
        assert reads.images() == () and reads.audit_size() == 0


def test_many_threads_write_one_gapless_log(store: Store) -> None:
    def work(number: int) -> None:
        for count in range(10):
            with store.transaction(NOW) as tx:
                tx.record(event=event(object_=f"thread-{number}-{count}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as reads:
        lines = reads.audit_lines(0, 100)
        assert reads.audit_size() == len(lines) == 40
        assert [f'"sequence":{number},' in line for number, line in enumerate(lines, 1)] == [True] * 40


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: Store) -> None:
    with store.read() as reads:
        assert reads.audit_size() == 0
        with store.transaction(NOW) as tx:
            tx.record(event=event())
        assert reads.audit_lines(0, 10) == ()
    with store.read() as reads:
        assert reads.audit_size() == 1


def test_those_who_wait_for_commits_are_told_after_them(store: Store) -> None:
    told: list[int] = []

    def look() -> None:
        with store.read() as reads:
            told.append(reads.audit_size())

    store.after_commit(look)
    with store.transaction(NOW) as tx:
        tx.record(event=event())
        assert told == []
    assert told == [1]
    with pytest.raises(RuntimeError), store.transaction(NOW) as tx:
        raise RuntimeError
    assert told == [1]


_WRITER = """
import sys
from node.core.store.store import open_store
from tests.node.core.store.samples import NOW, event
store = open_store(sys.argv[1], NOW)
number = 0
while True:
    with store.transaction(NOW) as tx:
        tx.approve_image(f"sha256:{number:064x}", "", event=event(object_=f"image-{number}"))
        if number == 20:
            print("in the middle", flush=True)
            sys.stdin.read()
    number += 1
    print(number, flush=True)
"""


def test_sigkill_in_the_middle_of_a_transaction_loses_nothing(url: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdin is not None
    said = 0
    for line in child.stdout:
        if line.startswith("in the middle"):
            break
        said = int(line)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    child.stdin.close()
    again = open_store(url, NOW)
    with again.read() as reads:
        assert said == 20 and len(reads.images()) == 20 and reads.audit_size() == 20
        assert reads.audit_tree().size == 20
    with again.transaction(NOW) as tx:
        tx.approve_image(IMAGE, "", event=event())
    again.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_another_user_may_not_read_the_database(store: Store, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    run = subprocess.run(as_user(["cat", str(database(tmp_path))]), capture_output=True)
    assert run.returncode != 0 and b"ermission denied" in run.stderr


def earlier_migrations(tmp_path: Path, last: int) -> Path:
    """The migrations of an earlier version: ours up to that number."""
    folder = tmp_path / "earlier"
    shutil.copytree(MIGRATIONS, folder)
    for path in (folder / "versions").glob("m*.py"):
        if int(path.name[1:5]) > last:
            path.unlink()
    return folder


def test_of_a_refused_instruction_of_before_the_hash_stays_and_what_still_waits_is_left_alone(
    url: str, tmp_path: Path
) -> None:
    engine = make_engine(url)
    migrate(engine, url, NOW, earlier_migrations(tmp_path, 6))
    columns = "instruction, run, permit, permit_version, round, task, attempt, model_sha256, text, reply_context, "
    columns += "received, expires, state, hub_code, delivered"
    moment = "2026-03-01 12:00:00.000000"
    kept = [
        ("run-1/1/train/1", "refused", moment),
        ("run-1/1/train/2", "refused", None),
        ("run-1/1/train/3", "open", None),
    ]
    with closing(sqlite3.connect(database(tmp_path))) as raw, raw:
        for attempt, (name, state, delivered) in enumerate(kept, 1):
            values = (name, "run-1", "p-1", 1, 1, "train", attempt, "0" * 64, "signed", b"context", moment, moment)
            row = (*values, state, "paused" if state == "refused" else None, delivered)
            raw.execute(f"INSERT INTO instruction ({columns}) VALUES ({', '.join('?' * 15)})", row)
    engine.dispose()
    store = open_store(url, NOW)
    with store.read() as reads:
        rows = [reads.instruction(name) for name, _, _ in kept]
    assert [(row.text, row.reply_context) for row in rows if row is not None] == [
        ("", b""), ("signed", b"context"), ("signed", b"context"),
    ]  # fmt: skip
    digests = {(row.text_sha256, row.context_sha256) for row in rows if row is not None}
    assert digests == {(hashlib.sha256(b"signed").hexdigest(), hashlib.sha256(b"context").hexdigest())}
    store.close()
