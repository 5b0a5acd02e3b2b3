"""`cloister node units` and `cloister hub units`: what they write, print and say."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli.it.units import resolvers
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.node.host.test_config import MINIMAL
from tests.node.host.test_units import USERS

PYTHON = "/opt/cloister/current/venv/bin/python"
EXAMPLE_HUB = Path(__file__).parents[3] / "deploy" / "hub.example.toml"


@pytest.fixture
def visible() -> Iterator[Path]:
    """A folder where a service would see a configuration: nothing below /tmp is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "node.toml").write_text(MINIMAL.replace("hub.example", "hub.invalid") + USERS)
        (Path(folder) / "hub.toml").write_bytes(EXAMPLE_HUB.read_bytes())
        yield Path(folder)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(CLOISTER), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env=dict(ENVIRONMENT), check=False)


def test_units_are_written_where_they_belong_below_a_folder(visible: Path, tmp_path: Path) -> None:
    words = ("--config", visible / "node.toml", "--python", PYTHON, "--out", tmp_path, "--hub-address", "192.0.2.7")
    done = run("node", "units", *words, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    written = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert set(written) == {file["path"].removeprefix("/") for file in said["files"]}
    assert all(written[file["path"].removeprefix("/")].read_text() == file["text"] for file in said["files"])
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written.values())
    assert said["target"] == "cloister-node.target" and len(said["units"]) == 5
    assert {row["user"] for row in said["users"]} >= {"cloister-core", "cloister-link"}
    assert (
        f"ExecStart={PYTHON} -P -m node.cli node process core"
        in written["etc/systemd/system/cloister-core.service"].read_text()
    )
    assert "warning" not in done.stderr


def test_a_hub_that_cannot_be_found_is_said_and_the_rest_is_printed(visible: Path) -> None:
    done = run("node", "units", "--config", visible / "node.toml", "--python", PYTHON)
    assert done.returncode == 0 and "is not known here now" in done.stderr
    assert "# /etc/systemd/system/cloister-guard.service\n[Unit]\n" in done.stdout


def test_a_hub_has_its_own(visible: Path, tmp_path: Path) -> None:
    words = ("--config", visible / "hub.toml", "--python", PYTHON, "--out", tmp_path, "--user", "hub-user")
    done = run("hub", "units", *words, "--json")
    said = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}
    assert said.get("units") == ["cloister-hub.service"], said
    assert "User=hub-user" in (tmp_path / "etc/systemd/system/cloister-hub.service").read_text()
    assert said["firewall"][0]["direction"] == "in"


def test_a_configuration_that_no_service_would_see_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(MINIMAL + USERS)
    done = run("node", "units", "--config", tmp_path / "node.toml", "--python", PYTHON)
    if str(tmp_path).startswith("/tmp/"):
        assert done.returncode == 2 and "sees nothing of this machine" in done.stderr, done


def test_what_a_resolver_file_names_is_who_may_be_asked(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# by hand\nsearch example\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions a\nnameserver\n")
    assert resolvers(file) == ["192.0.2.1", "fe80::1"]
    assert resolvers(tmp_path / "none") == []
