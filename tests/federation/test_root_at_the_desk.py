"""What root does at a hub that is another user's: done as that user, so that the hub can go on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.federation.ground import found
from tests.sim.users import NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root's own mistakes")


@pytest.fixture
def hub() -> Iterator[Path]:
    """The configuration of a hub of another user's, which does not run."""
    with tempfile.TemporaryDirectory(prefix="desk-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        town = found(folder)
        town.hub.close()
        config = town.folder / "hub.toml"
        state = town.hub.config.state_dir
        for each in (state, *state.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
        yield config


def cloister(config: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "node.cli", "hub", *words, "--config", config], capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def test_nothing_in_the_hubs_folder_becomes_roots(hub: Path, tmp_path: Path) -> None:
    """Its keys are shown, a site is revoked, a paper is taken that root alone may read."""
    tmp_path.chmod(0o700)
    paper = tmp_path / "permit.jws"
    paper.write_text("no permit\n")
    paper.chmod(0o600)
    shown = cloister(hub, "keys")
    assert shown.returncode == 0 and "witnesses" in shown.stdout, shown
    assert cloister(hub, "node", "revoke", "aachen").returncode == 0
    read = cloister(hub, "permit", "publish", paper)
    assert read.returncode != 0 and "cannot read" not in read.stderr, "what root is handed, root reads"
    state = hub.parent / "hub"
    owners = {str(each): each.lstat().st_uid for each in (state, *state.rglob("*"))}
    assert set(owners.values()) == {NOBODY}, owners


def test_a_database_that_became_roots_is_said_to_be_closed_and_not_that_the_disk_is_full(hub: Path) -> None:
    database = hub.parent / "hub" / "hub.db"
    os.chown(database, 0, 0)
    database.chmod(0o600)
    asked = cloister(hub, "status")
    assert asked.returncode == 2 and "not open to this user" in asked.stderr, asked


def test_root_does_not_serve_another_users_hub(hub: Path) -> None:
    done = cloister(hub, "serve")
    assert done.returncode == 2 and "systemctl start cloister-hub.target" in done.stderr, done
