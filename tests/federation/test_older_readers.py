"""A version before reads the database of a newer one that only added to it, and no other: node's and hub's alike."""

from __future__ import annotations

import ast
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.hub import database as hub_database
from federation.hub.database import Database
from mediator.errors import UnsupportedVersion, UsageFault
from node.core.store import migrate as node_migrate
from node.core.store.engine import make_engine
from node.core.store.migrate import migrate

NOW = datetime(2026, 11, 1, 8, tzinfo=UTC)
NODE, HUB = node_migrate.MIGRATIONS, Path(hub_database.__file__).parent / "migrations"
# the newest revision of the last version that could not be gone back to
BEFORE = {NODE: "0012", HUB: "0003"}

Opens = Callable[[Path, Path], None]

A_MIGRATION = '''"""A later version's."""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {before!r}
branch_labels = None
depends_on = None
ONLY_ADDS = {only_adds}


def upgrade() -> None:
    op.create_table("later_{revision}", sa.Column("name", sa.String(20), primary_key=True))
'''


def open_node(database: Path, migrations: Path) -> None:
    url = f"sqlite:///{database}"
    engine = make_engine(url)
    try:
        migrate(engine, url, NOW, migrations)
    finally:
        engine.dispose()


def open_hub(database: Path, migrations: Path) -> None:
    hub = Database(database, migrations)
    try:
        hub.upgrade()
    finally:
        hub.close()


def newest(folder: Path) -> str:
    return sorted(each.stem.lstrip("m")[:4] for each in (folder / "versions").glob("*0*.py"))[-1]


def later(folder: Path, into: Path, *only_adds: bool) -> Path:
    """The migrations of a later version: ours, and one more for each of `only_adds`."""
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns("__pycache__"))
    before = newest(folder)
    for each in only_adds:
        revision = f"{int(before) + 1:04}"
        text = A_MIGRATION.format(revision=revision, before=before, only_adds=each)
        (into / "versions" / f"m{revision}_later.py").write_text(text)
        before = revision
    return into


def seen(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


BOTH = pytest.mark.parametrize(("folder", "opens"), [(NODE, open_node), (HUB, open_hub)], ids=["node", "hub"])


@BOTH
def test_the_version_before_opens_what_a_newer_one_only_added_to(folder: Path, opens: Opens, tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    newer = later(folder, tmp_path / "newer", True, True)
    opens(database, folder)
    opens(database, newer)
    before = seen(database)
    assert any("later_" in line for line in before)
    opens(database, folder)  # back, without losing what the newer one wrote
    assert seen(database) == before
    opens(database, newer)  # and forward again
    assert seen(database) == before


@BOTH
@pytest.mark.parametrize("steps", [(False,), (False, True), (True, False)])
def test_a_database_that_was_changed_otherwise_is_refused_and_untouched(
    folder: Path, opens: Opens, steps: tuple[bool, ...], tmp_path: Path
) -> None:
    database = tmp_path / "x.db"
    opens(database, folder)
    opens(database, later(folder, tmp_path / "newer", *steps))
    before = seen(database)
    with pytest.raises((UnsupportedVersion, UsageFault), match="newer version"):
        opens(database, folder)
    assert seen(database) == before


@BOTH
def test_only_the_steps_after_the_last_breach_can_be_gone_back(folder: Path, opens: Opens, tmp_path: Path) -> None:
    database, between = tmp_path / "x.db", later(folder, tmp_path / "between", False)
    opens(database, later(folder, tmp_path / "newest", False, True))
    opens(database, between)
    with pytest.raises((UnsupportedVersion, UsageFault), match="newer version"):
        opens(database, folder)


@pytest.mark.parametrize("folder", [NODE, HUB], ids=["node", "hub"])
def test_every_migration_from_here_on_only_adds(folder: Path) -> None:
    for path in sorted((folder / "versions").glob("*0*.py")):
        if path.stem.lstrip("m")[:4] > BEFORE[folder]:
            assert breaches(path.read_text("utf-8")) == [], path.name


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ('op.create_table("x", sa.Column("y", sa.String(20), nullable=False))', []),
        ('op.create_index("x_y", "x", ["y"], unique=False)', []), ('op.create_index("x_y", "x", ["y"])', []),
        ('op.add_column("x", sa.Column("y", sa.String(20), nullable=True))', []),
        ('op.add_column("x", sa.Column("y", sa.Integer(), nullable=False, server_default="0"))', []),
        ('op.add_column("x", sa.Column("y", sa.String(20), nullable=False))', ["add_column"]),
        ('op.create_index("x_y", "x", ["y"], unique=True)', ["create_index"]),
        ('op.drop_table("x")', ["drop_table"]), ('op.drop_column("x", "y")', ["drop_column"]),
        ('op.execute("UPDATE x SET y = 1")', ["execute"]), ('op.alter_column("x", "y")', ["alter_column"]),
    ],
)  # fmt: skip
def test_what_counts_as_an_addition(step: str, found: list[str]) -> None:
    text = f"from alembic import op\nimport sqlalchemy as sa\nONLY_ADDS = True\ndef upgrade():\n    {step}\n"
    assert breaches(text) == found
    assert breaches(text.replace("ONLY_ADDS = True", "")) == ["ONLY_ADDS", *found]


def breaches(source: str) -> list[str]:
    """What of a migration a version before could not live with."""
    tree = ast.parse(source)
    assigned = {
        ast.unparse(target): ast.unparse(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    found = [] if assigned.get("ONLY_ADDS") == "True" else ["ONLY_ADDS"]
    upgrade = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    for node in ast.walk(upgrade):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("op.", "batch_op.")):
            name = ast.unparse(node.func).split(".")[1]
            if not _adds(name, node):
                found.append(name)
    return found


def _adds(name: str, call: ast.Call) -> bool:
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "create_index":
        return words.get("unique", "False") == "False"
    if name == "add_column":
        column = next(each for each in call.args if isinstance(each, ast.Call))
        told = {word.arg: ast.unparse(word.value) for word in column.keywords}
        return told.get("nullable", "True") == "True" or "server_default" in told
    return name in ("create_table", "f", "get_bind")
