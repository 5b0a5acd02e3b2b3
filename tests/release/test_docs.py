"""The commands of deploy/docs/release.md are those that there are, and the ones by hand do what is said of them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.install import bundle
from deploy.release import keys
from deploy.release.__main__ import arguments
from federation.protocol import PROTOCOL
from tests.release.making import make

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy/docs/release.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
OURS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("deploy/")]
(BY_HAND,) = [block for block in BLOCKS if "openssl" in block]


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_the_page_is_one_that_its_script_understands(line: str) -> None:
    script, *words = shlex.split(line.partition(" >")[0])
    assert (ROOT / script).stat().st_mode & 0o100
    if script == "deploy/bundle.sh":
        arguments(words if words[0] == "check" else ["bundle", *words])
    elif script == "deploy/release.sh":
        arguments(words if words[0] in ("keygen", "verify") else ["make", *words])
    else:
        assert script in ("deploy/test.sh", "deploy/lib/advisories.sh")


def test_the_page_shows_every_word_that_a_release_is_made_with() -> None:
    assert {line.split()[0] for line in OURS} >= {"deploy/bundle.sh", "deploy/release.sh"}
    for option in ("--untested", "--unlisted-key", "--no-advisories", "--ignore-advisory", "--root", "--engine"):
        assert f"`{option}" in PAGE, option


@pytest.mark.parametrize("script", ["bundle.sh", "release.sh"])
def test_every_option_is_in_the_help(script: str) -> None:
    said = "".join(
        subprocess.run([str(ROOT / "deploy" / each), "--help"], capture_output=True, text=True, check=True).stdout
        for each in {"bundle.sh", script}
    )
    source = (ROOT / "deploy/release/__main__.py").read_text()
    verbs = {"bundle.sh": ("bundle", "look"), "release.sh": ("keygen", "verify", "make")}[script]
    options = {
        option
        for verb, option in re.findall(r'(\w+)\.add_argument\("(--[a-z-]+)"', source)
        if verb in (*verbs, "parser")
    }
    assert len(options) > 7 and all(option in said for option in options)


@pytest.mark.parametrize("change", [None, "manifest.json", "wheels"])
def test_a_bundle_is_verified_by_hand_as_the_page_says(change: str | None, tmp_path: Path) -> None:
    key = keys.keygen(tmp_path / "release.key", "A publisher")
    path = tmp_path / "cloister.bundle"
    shutil.copyfile(make(tmp_path / "made", key), path)
    if change is not None:
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"cp311" if change == "manifest.json" else b"a wheel")] ^= 1
        path.write_bytes(raw)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", BY_HAND], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is (change is None), done
    assert (tmp_path / "wheels").is_dir() is (change != "manifest.json")


def test_the_page_says_the_protocol_and_the_formats_that_there_are() -> None:
    assert f"0.2 speaks {PROTOCOL}" in PAGE and f"(format {bundle.FORMAT})" in PAGE
    for name in (*bundle.KINDS[:3], "SHA256SUMS.sig", "release-key.pub"):
        assert name in PAGE
