"""The committed tree that a release is made of: nothing that lies beside it, changed or forgotten, gets in."""

from __future__ import annotations

import ast
import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from deploy.release.failures import Stopped

# What says a version, and has to say the same; the changelog's heading begins with it.
PYPROJECT, CHANGELOG, PROTOCOL = "pyproject.toml", "CHANGELOG.md", "federation/protocol.py"


def git(repo: Path, *words: str) -> str:
    """What git says. Raises `Stopped` with its last line."""
    done = subprocess.run(["git", "-C", str(repo), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise Stopped(f"git {words[0]}: {last}", "run it in a checkout of the repository", 5)
    return done.stdout.strip()


@dataclass(frozen=True)
class Tree:
    """A commit, unpacked into `folder`."""

    repo: Path
    folder: Path
    commit: str
    made_s: int

    @property
    def version(self) -> str:
        return str(tomllib.loads(self.text(PYPROJECT))["project"]["version"])

    @property
    def protocol(self) -> int:
        for node in ast.parse(self.text(PROTOCOL)).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROTOCOL":
                return int(ast.literal_eval(node.value))
        raise Stopped(f"{PROTOCOL} says no PROTOCOL", "is this checkout complete?", 1)

    def text(self, path: str) -> str:
        return (self.folder / path).read_text("utf-8")

    def changes(self, version: str) -> str:
        """The changelog's section of a version, without its heading; empty where there is none."""
        said: list[str] = []
        within = False
        for line in self.text(CHANGELOG).splitlines():
            if line.startswith("## "):
                within = line.removeprefix("## ").split()[:1] == [version]
            elif within:
                said.append(line)
        return "\n".join(said).strip()


def export(repo: Path, folder: Path, commit: str = "HEAD") -> Tree:
    """Unpack a commit into `folder`, which is made. Raises `Stopped`."""
    found = git(repo, "rev-parse", "--verify", f"{commit}^{{commit}}")
    folder.mkdir(parents=True)
    archive = subprocess.Popen(["git", "-C", str(repo), "archive", found], stdout=subprocess.PIPE)
    unpacked = subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=False)
    if archive.wait() or unpacked.returncode:
        raise Stopped("the commit could not be unpacked", "is the disk full?", 5)
    return Tree(repo, folder, found, int(git(repo, "show", "-s", "--format=%ct", found)))


def quiet_environment(made_s: int) -> dict[str, str]:
    """This process's, with the one time that everything made for a release has."""
    return {**os.environ, "SOURCE_DATE_EPOCH": str(made_s), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
