"""What a command loads before it answers: counted in modules, for a clock says what else the machine does.

What it loads is nearly all of what a short command takes. A number that grew here is a second of somebody's day.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import typer
from alembic.config import Config
from alembic.script import ScriptDirectory

import federation.hub.database
import node.core.store.migrate
from federation.revisions import newest
from mediator.errors import NotNow
from node.cli.app import _GROUPS, application
from tests.node.host.test_state import config_in
from tests.sim.asleep import asleep

HEAVY = {
    "aiohttp", "alembic", "cv2", "docker", "fastapi", "flwr", "mako", "numpy", "onnxruntime", "pyarrow", "pydicom",
    "requests", "rich", "torch",
}  # fmt: skip
HUB = """
version = 1
name = "hub"
state_dir = "{state}"
[ingress]
port = 8443
hosts = ["localhost"]
[trust]
committee_keys = ["{key}"]
"""


def loaded(*words: object) -> tuple[int, set[str]]:
    """A command's exit code, and the modules it had loaded by its end."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\nLOADED', *sys.modules))\n"
        f"sys.argv = ['cloister', *{[str(word) for word in words]!r}]\n"
        "from node.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "internal error" not in done.stderr, done.stderr
    return done.returncode, set(done.stdout.rpartition("\nLOADED ")[2].split())


def tops(modules: set[str]) -> set[str]:
    return {each.partition(".")[0] for each in modules}


@pytest.mark.parametrize(("words", "most"), [("--help", 190), ("node --help", 260), ("hub --help", 260)])
def test_help_loads_the_commands_alone(words: str, most: int) -> None:
    code, modules = loaded(*words.split())
    assert code == 0
    assert not tops(modules) & (HEAVY | {"asyncio", "cryptography", "grpc", "joserfc", "pydantic", "sqlalchemy"})
    assert len(modules) <= most


def readings(group: str) -> list[str]:
    """Every command of a group that only looks: it can print JSON, and needs no word but the configuration."""
    found: list[str] = []

    def walk(at: click.Command, path: str) -> None:
        if isinstance(at, click.Group):
            for name, below in at.commands.items():
                walk(below, f"{path} {name}".strip())
        elif not at.hidden and not any(each.required for each in at.params):
            options = {word for each in at.params for word in each.opts}
            found.extend([path] if {"--json", "--config"} <= options else [])

    walk(typer.main.get_command(application(group)).commands[group], "")  # type: ignore[attr-defined]
    return found


# they look at the machine or at the hub's whole desk, or make something
NODE_OTHERS = {"enrol", "enrol request", "image add", "units"}
HUB_OTHERS = {"check", "keys", "units"}


def test_a_question_to_a_node_loads_what_asks_it_and_nothing_else(tmp_path: Path) -> None:
    asked = set(readings("node")) - NODE_OTHERS
    assert {"status", "job list", "permit list", "dataset list", "image list", "run list"} <= asked
    with asleep(tmp_path) as config:
        for words in sorted(asked):
            code, modules = loaded("node", *words.split(), "--config", config)
            assert code == NotNow.exit_code and "grpc" in modules, words
            heavy = tops(modules) & (HEAVY | {"joserfc", "pydantic", "sqlalchemy", "sqlite3"})
            assert not heavy and "node.host.config" not in modules, words
            assert len(modules) <= 310, words


def test_who_finds_no_node_is_told_what_is_wrong_with_the_file_first(tmp_path: Path) -> None:
    config_in(tmp_path)
    file = tmp_path / "node.toml"
    file.write_text(f"{file.read_text()}\n[loging]\n")
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "node", "status", "--config", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "loging" in done.stderr


def test_a_question_to_the_hub_loads_its_database_by_sqlite_alone(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(HUB.format(state=tmp_path / "hub", key="ab" * 32))
    assert loaded("hub", "init", "--config", file)[0] == 0
    asked = set(readings("hub")) - HUB_OTHERS
    assert {"status", "node list", "run list", "events"} <= asked
    for words in sorted(asked):
        code, modules = loaded("hub", *words.split(), "--config", file)
        assert code == 0 and "sqlite3" in modules, words
        heavy = tops(modules) & (HEAVY | {"asyncio", "cryptography", "grpc", "joserfc", "pydantic", "sqlalchemy"})
        assert not heavy and "federation.hub.state" not in modules, words
        assert len(modules) <= 250, words


@pytest.mark.parametrize("group", ["node", "audit", "job"])
def test_one_command_of_a_group_is_imported_without_the_others(group: str) -> None:
    parts = import_module(f"node.cli.{_GROUPS[group][0]}").PARTS
    for name in (next(iter(parts)), list(parts)[-1]):
        _, modules = loaded(group, name, "--help")
        others = {part.module for part in parts.values()} - {parts[name].module}
        assert f"node.cli.{parts[name].module}" in modules
        # what another command's module lends to this one is no command that was loaded for nothing
        assert len({f"node.cli.{module}" for module in others} & modules) <= 1


def test_signing_an_order_loads_no_arithmetic() -> None:
    _, modules = loaded("job", "order", "--help")
    assert not tops(modules) & (HEAVY | {"grpc", "pydantic", "sqlalchemy"})


def test_reading_a_log_loads_neither_configuration_nor_node() -> None:
    code, modules = loaded("audit", "tail", "/nowhere")
    assert code == 2 and not tops(modules) & (HEAVY | {"grpc", "pydantic", "sqlalchemy"})


@pytest.mark.parametrize("folder", [federation.hub.database._MIGRATIONS, node.core.store.migrate.MIGRATIONS])
def test_a_migration_is_named_for_its_number_so_that_the_newest_is_known_without_loading_them(folder: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)
    assert newest(folder) == scripts.get_current_head()
    for script in scripts.walk_revisions():
        assert Path(script.path).name.removeprefix("m").startswith(f"{script.revision}_")
