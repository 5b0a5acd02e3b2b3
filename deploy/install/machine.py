"""The machine that is installed on: where its files lie, which programs it has, and what they answer."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .talk import Fault, last_line

_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
# what pip needs to reach an index behind a proxy, and nothing else of the caller's surroundings
_KEPT = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT")
_KEPT_TOO = ("PIP_CONFIG_FILE", "PIP_TRUSTED_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Answer:
    """What a program answered: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def done(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> str:
        return last_line(self.err or self.out)


class Machine:
    """A machine below `root`. Anywhere else than at `/`, programs are looked for below it too: the real machine's
    users and services are never touched by a trial."""

    def __init__(self, root: Path = Path("/"), patience_s: float = 60.0) -> None:
        self.root = root
        # how long services that were started may take until they answer
        self.patience_s = patience_s
        self.real = root == Path("/")

    def at(self, path: str | Path) -> Path:
        """Where an absolute path of the machine lies."""
        return self.root / str(path).lstrip("/")

    def text(self, path: str) -> str:
        """A small file's text, or nothing where it cannot be read."""
        try:
            return self.at(path).read_text("utf-8", "replace")
        except OSError:
            return ""

    @property
    def path(self) -> str:
        return os.pathsep.join(str(self.at(folder)) for folder in _PATH)

    def program(self, name: str) -> str | None:
        return shutil.which(name, path=self.path)

    def run(
        self, words: Sequence[str | Path], *, timeout_s: float = 120.0, extra: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
    ) -> Answer:  # fmt: skip
        """Run a program with no input and few surroundings, as `user` (uid, gid) if given.

        One that is not there, or hangs, answers 127 or 124.
        """
        surroundings = {"PATH": self.path, "LANG": "C.UTF-8", "HOME": "/root", **_kept(), **(extra or {})}
        named = str(words[0])
        program = named if "/" in named else self.program(named)
        if program is None:
            return Answer(127, "", f"{named} is not installed")
        try:
            done = subprocess.run(
                [program, *map(str, words[1:])], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=timeout_s, env=surroundings, check=False, cwd="/",
                user=user[0] if user else None, group=user[1] if user else None, extra_groups=[] if user else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"{Path(named).name} did not end within {timeout_s:.0f} s")
        except OSError as error:
            return Answer(127, "", f"{Path(named).name} cannot be run ({error.strerror})")
        return Answer(done.returncode, done.stdout, done.stderr)

    def must(
        self, words: Sequence[str | Path], what: str, hint: str = "", *, timeout_s: float = 120.0,
        extra: Mapping[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Run a program that has to go well. Raises `Fault`; returns what it printed."""
        answer = self.run(words, timeout_s=timeout_s, extra=extra)
        if not answer.done:
            raise Fault(f"{what}: {answer.said}", hint)
        return answer.out

    @property
    def system(self) -> str:
        """`debian-12`, `ubuntu-24.04`, from /etc/os-release."""
        named = _assignments(self.text("/etc/os-release"))
        return f"{named.get('ID', 'unknown')}-{named.get('VERSION_ID', 'unknown')}"

    @property
    def architecture(self) -> str:
        return platform.machine()

    def accounts(self) -> set[str]:
        """The names of the machine's own users."""
        return {line.split(":")[0] for line in self.text("/etc/passwd").splitlines() if line}

    def account(self, name: str) -> tuple[int, int]:
        """uid and gid of a user."""
        for line in self.text("/etc/passwd").splitlines():
            words = line.split(":")
            if words[0] == name and len(words) > 3:
                return int(words[2]), int(words[3])
        raise Fault(f"there is no user {name}")

    def give(self, path: Path, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)

    def groups(self) -> set[str]:
        return {line.split(":")[0] for line in self.text("/etc/group").splitlines() if line}


def _kept() -> dict[str, str]:
    names = [*_KEPT, *(name.lower() for name in _KEPT), *_KEPT_TOO]
    return {name: os.environ[name] for name in names if name in os.environ}


def _assignments(text: str) -> dict[str, str]:
    """The lines of a file of shell assignments."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}
