"""A migration on a disk that has no more room: it did not happen, and no copy is left that fills the disk further."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from node.core.store.engine import make_engine
from node.core.store.migrate import migrate
from node.core.store.store import open_store
from tests.node.core.store.samples import NOW
from tests.node.core.store.test_store import head, later_migrations, tables

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
SIZE = 4 << 20


@pytest.fixture
def small() -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    shutil.rmtree(folder)


def fill(folder: Path, but: int) -> None:
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - but)


@pytest.mark.parametrize(
    ("room", "grows"),
    [
        pytest.param(64 << 10, "pass", id="in the copy"),
        pytest.param(
            2 << 20,
            "op.execute('CREATE TABLE big (what BLOB)'); op.execute('INSERT INTO big VALUES (randomblob(4000000))')",
            id="in the migration",
        ),
    ],
)
def test_a_full_disk_leaves_the_database_and_no_copy(small: Path, tmp_path: Path, room: int, grows: str) -> None:
    path = small / "node.db"
    url = f"sqlite:///{path}"
    open_store(url, NOW).close()
    was = tables(path)
    fill(small, room)
    for _ in range(2):  # as often as its services are started again
        engine = make_engine(url)
        with pytest.raises((OperationalError, sqlite3.OperationalError, OSError), match=r"full|No space"):
            migrate(engine, url, NOW, later_migrations(Path(tempfile.mkdtemp(dir=tmp_path)), grows))
        engine.dispose()
        assert list(small.glob("*.backup*")) == []
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (head(),)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert tables(path) == was
    (small / "filler").unlink()
    engine = make_engine(url)
    migrate(engine, url, NOW, later_migrations(tmp_path, "pass"))
    engine.dispose()
    assert "later" in tables(path) and len(list(small.glob("*.backup"))) == 1
