"""`cloister check --fix` mends what is harmless, asks before each, and touches nothing else."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli.it import fixes
from node.cli.it.enrol import write_audit_keys
from node.host.config import NodeConfig, load_config
from node.host.state import check_state, prepare_state
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.node.core.process.test_process import configured as written


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Path, NodeConfig]]:
    """A node with three things wrong that nobody has to decide about."""
    written(tmp_path)
    file = tmp_path / "node.toml"
    config = load_config(file)
    prepare_state(config)
    write_audit_keys(config)
    assert check_state(config) == []
    config.paths.intake.chmod(0o755)
    config.paths.audit_keys.unlink()
    file.chmod(0o664)
    yield file, config


def mend(file: Path, *words: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(CLOISTER), "check", "--config", str(file), *words]
    return subprocess.run(
        command, input=answers, capture_output=True, text=True, timeout=120, env=dict(ENVIRONMENT), check=False
    )


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_what_is_harmless_is_mended_and_nothing_else_is_touched(node: tuple[Path, NodeConfig]) -> None:
    file, config = node
    before = contents(file.parent)
    done = mend(file, "--fix", "--yes")
    assert "3 mended" in done.stderr and check_state(config) == [] and file.stat().st_mode & 0o777 == 0o644, done
    after = contents(file.parent)
    assert after.keys() - before.keys() == {str(config.paths.audit_keys)}
    assert {key: after[key] for key in before} == before
    assert "nothing was mended" in mend(file, "--fix", "--yes").stderr


def test_without_a_person_to_ask_nothing_is_mended(node: tuple[Path, NodeConfig]) -> None:
    file, config = node
    for words, code in (((), 5), (("--fix",), 2), (("--yes",), 2)):
        assert mend(file, *words).returncode == code
    assert check_state(config) and not config.paths.audit_keys.exists() and file.stat().st_mode & 0o777 == 0o664


def test_each_fix_is_asked_for_and_may_be_declined(
    node: tuple[Path, NodeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.cli.it import check

    file, config = node
    asked: list[str] = []
    monkeypatch.setattr(check.sys.stdin, "isatty", lambda: True, raising=False)

    def answer(text: str, **_: object) -> bool:
        asked.append(text)
        return "audit-keys" in text

    monkeypatch.setattr(check.typer, "confirm", answer)
    check._mend(file, yes=False)
    assert len(asked) == 3 and config.paths.audit_keys.exists()
    assert check_state(config) and file.stat().st_mode & 0o777 == 0o664


def test_audit_keys_that_are_no_text_are_written_anew(node: tuple[Path, NodeConfig]) -> None:
    _, config = node
    config.paths.audit_keys.write_bytes(b"audit \xff\n")
    (fix,) = fixes._audit_keys(config)
    fix.apply()
    assert config.paths.audit_keys.read_text().startswith("audit ") and not list(fixes._audit_keys(config))
