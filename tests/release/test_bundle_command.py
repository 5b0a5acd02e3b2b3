"""`deploy/bundle.sh` with an image, by its whole command: made, verified, and what comes out of it is the engine's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import docker
import pytest

from deploy.install.engine import image_of
from deploy.release import keys
from tests.containers.bench import ENGINE_URL

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def bundle(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "deploy/bundle.sh"), *map(str, words)]
    environment = {**os.environ, "DOCKER_HOST": ENGINE_URL}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.timeout(900)
def test_a_bundle_holds_the_image_that_the_engine_has(tmp_path: Path) -> None:
    """Without Debian packages, which the release's own tests bring."""
    key = tmp_path / "release.key"
    keys.keygen(key, "A publisher")
    public = key.with_name("release.key.pub")
    done = bundle("--key", key, "--no-debs", "--image", "cloister-sentinel", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (made,) = done.stdout.splitlines()
    assert [made] == [str(path) for path in (tmp_path / "out").iterdir()]
    said = bundle("check", made, "--release-key", public, "--unpack", tmp_path / "opened")
    assert said.returncode == 0 and "A publisher" in said.stdout + said.stderr, said
    archive = tmp_path / "opened/images/cloister-sentinel.tar"
    held = docker.APIClient(ENGINE_URL).inspect_image("cloister-sentinel")["Id"]
    assert image_of(archive) == held, "the installer gives the engine this, and knows it by this id"
    bill = next((tmp_path / "opened").rglob("*.cdx.json")).read_text()
    assert held.removeprefix("sha256:") in bill
    raw = bytearray(Path(made).read_bytes())
    raw[len(raw) // 2] ^= 1  # in the middle, where the image lies
    Path(made).write_bytes(raw)
    refused = bundle("check", made, "--release-key", public)
    assert refused.returncode == 4 and "error: " in refused.stderr
