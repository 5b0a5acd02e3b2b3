"""What a command loads before it answers: counted in modules, for a clock says what else the machine does.

What it loads is nearly all of what a short command takes. A number that grew here is a second of somebody's day.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import federation.hub.database
import node.core.store.migrate
from federation.older_readers import newest
from node.host.state import prepare_state
from tests.node.host.test_state import config_in

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


@pytest.mark.parametrize("words", ["status", "job list", "permit list", "dataset imports"])
def test_a_question_to_a_node_loads_its_configuration_and_nothing_of_its_work(words: str, tmp_path: Path) -> None:
    config = config_in(tmp_path)
    prepare_state(config)
    _, modules = loaded("node", *words.split(), "--config", tmp_path / "node.toml")
    assert "node.host.config" in modules
    assert not tops(modules) & (HEAVY | {"cryptography", "joserfc", "sqlalchemy"})
    assert len(modules) <= 425


def test_a_question_to_the_hub_loads_its_database_and_neither_migrations_nor_arithmetic(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(HUB.format(state=tmp_path / "hub", key="ab" * 32))
    assert loaded("hub", "init", "--config", file)[0] == 0
    for words in ("status", "node list", "run list", "events"):
        code, modules = loaded("hub", *words.split(), "--config", file)
        assert code == 0 and "sqlalchemy" in modules
        assert not tops(modules) & HEAVY, words
        assert len(modules) <= 600, words


@pytest.mark.parametrize("folder", [federation.hub.database._MIGRATIONS, node.core.store.migrate.MIGRATIONS])
def test_a_migration_is_named_for_its_number_so_that_the_newest_is_known_without_loading_them(folder: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)
    assert newest(folder) == scripts.get_current_head()
    for script in scripts.walk_revisions():
        assert Path(script.path).name.removeprefix("m").startswith(f"{script.revision}_")
