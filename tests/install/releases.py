"""Releases for the story: the committed tree under several versions, signed with a key made for the occasion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.images import archive
from tests.containers.bench import ENGINE_URL, image_id
from tests.install.roots import System, root

REPOSITORY = Path(__file__).resolve().parents[2]
SENTINEL = "cloister-sentinel"
# how a release is broken on purpose: core ends before it answers anybody; a job does something else than its work
DEFECTS = {
    "core": (
        "node/core/process.py",
        "from __future__ import annotations\n",
        "from __future__ import annotations\nraise RuntimeError('a release that was broken on purpose')\n",
    ),
    "jobs": ("containers/self_test_job.py", "(number + 1 for number in numbers)", "(number + 2 for number in numbers)"),
}


@dataclass
class Workshop:
    """Makes bundles for one system; everything lies in `folder`."""

    folder: Path
    system: System

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = self.folder / "release.key"
        if not self.key.exists():
            self._release(REPOSITORY, "keygen", "--out", self.key, "--name", "the story's release key")

    @property
    def public_key(self) -> Path:
        return Path(f"{self.key}.pub")

    def images(self) -> Path:
        """The sentinel's archive, as the engine here has it."""
        folder = self.folder / "images"
        if not folder.exists():
            folder.mkdir()
            os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
            archive([image_id(SENTINEL)], folder / f"{SENTINEL}.tar")
        return folder

    def debs(self) -> tuple[str | Path, ...]:
        """The second bundle is made with the first one's packages: an archive may have moved on meanwhile."""
        return ("--root", root(self.system, engine=False))

    def wheels(self) -> dict[str, str]:
        """What has pip take the packages out of the first bundle, for those after it: their index stays unasked."""
        folder, first = self.folder / "wheels", next((self.folder / "bundles").glob("*.bundle"), None)
        if first is None:
            return {}
        if not folder.exists():
            folder.mkdir()
            subprocess.run(["tar", "-xf", first, "-C", folder, "--strip-components=1", "wheels"], check=True)
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}

    def bundle(self, version: str, *, defect: str = "", bare: bool = False) -> Path:
        """A release of what is committed here, called `version`; without Debian packages unless `bare`."""
        tree = self.folder / f"tree-{version}"
        shutil.rmtree(tree, ignore_errors=True)
        git("clone", "--quiet", "--no-hardlinks", "--config", "gc.auto=0", REPOSITORY, tree)
        project = tree / "pyproject.toml"
        lines = [f'version = "{version}"' if line.startswith("version = ") else line
                 for line in project.read_text().splitlines()]  # fmt: skip
        project.write_text("\n".join(lines) + "\n")
        if defect:
            path, before, after = DEFECTS[defect]
            whole = (tree / path).read_text()
            assert whole.count(before) == 1, f"{path} has no such line to break: {before}"
            (tree / path).write_text(whole.replace(before, after))
        identity = ("-c", "user.name=story", "-c", "user.email=story@localhost")
        git("-C", tree, *identity, "commit", "--quiet", "--all", "--allow-empty", "-m", f"Version {version}")
        debs = self.debs() if bare else ("--no-debs",)
        out = self.folder / "bundles"
        said = self._release(
            tree, "bundle", "--key", self.key, "--out", out, "--system", self.system.name,
            "--images", self.images(), *debs, **self.wheels(),
        )  # fmt: skip
        shutil.rmtree(tree)
        return Path(said.split()[-1])

    def _release(self, tree: Path, *words: str | Path, **settings: str) -> str:
        """`deploy.release` of a tree, in the environment that runs the tests instead of one made for that tree."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "deploy.release", *map(str, words)], cwd=tree, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(tree), **settings}, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"{words[0]} ended with {done.returncode}: {done.stderr[-1500:]}")
        return done.stdout


def git(*words: str | Path) -> None:
    subprocess.run(["git", *map(str, words)], check=True, capture_output=True)


def changed_byte(bundle: Path, folder: Path) -> Path:
    """The same bundle with one bit of one wheel turned."""
    copy = folder / f"changed-{bundle.name}"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    return copy
