"""Where a version comes from: this checkout and a package index, or an opened bundle and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .engine import CLASSIC_CURE, Engine, image_of
from .machine import Machine
from .talk import BROKEN, USAGE, Fault

SENTINEL = "cloister-sentinel"
Words = list[str | Path]
# 700 MB over a slow line, and the byte code of 95 packages on two processors
_PIP_S = 1800.0
_BUILD_S = 1800.0
_TESTS = r"/tests?/"
_OURS = Path(__file__).resolve().parent
_PROGRAM, _SCRIPT, _KEYS = "install", "install.sh", "release-keys.txt"


@dataclass(frozen=True)
class Source:
    """A version that can be put on this machine.

    `fill` makes the environment in an empty folder; `sentinel` has the engine hold the sentinel image and says its id,
    which is `sentinel_id` where that is known beforehand. `installer` is the folder with its own `install.sh`, the
    program of that, and the keys that it trusts.
    """

    version: str
    offline: bool
    told: str
    installer: Path
    fill: Callable[[Machine, Path], None]
    sentinel: Callable[[Machine, Engine, Path], str]
    packages: tuple[tuple[str, Path], ...] = ()
    systems: tuple[str, ...] = ()
    sentinel_id: str | None = None

    def stage(self, machine: Machine, folder: Path) -> None:
        """Make a version's folder: its environment, and the installer it came with. Whole or not at all."""
        folder.mkdir(mode=0o755)
        try:
            self.fill(machine, folder / "venv")
            _copy_installer(self.installer, folder)
            # before the journal may forget it: a power cut would leave files of no content that look like a version;
            # renaming it when it is whole is no way, as its scripts name the folder that they were made in
            os.sync()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _copy_installer(installer: Path, folder: Path) -> None:
    """The installer of a version, root's alone to write, whatever the disk that it came from said of it."""
    shutil.copytree(
        installer / _PROGRAM, folder / _PROGRAM, copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    for name in (_SCRIPT, _KEYS):
        if (installer / name).exists():
            shutil.copyfile(installer / name, folder / name)
    for path in (folder / _SCRIPT, folder / _KEYS, folder / _PROGRAM, *(folder / _PROGRAM).rglob("*")):
        if path.exists():
            path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)


def checkout() -> Path | None:
    """The checkout that this installer stands in, if it does."""
    top = _OURS.parent.parent
    return top if _OURS.parent.name == "deploy" and (top / "requirements" / "cloister.txt").is_file() else None


def from_checkout(top: Path) -> Source:
    """The version of a checkout: every package by hash from the package index, ours built here."""
    version = str(tomllib.loads((top / "pyproject.toml").read_text("utf-8"))["project"]["version"])

    def fill(machine: Machine, venv: Path) -> None:
        machine.must([sys.executable, "-m", "venv", venv], "the environment could not be made", "is the disk full?")
        lock: Words = [
            "--no-compile",
            "--require-hashes",
            "--only-binary=:all:",
            "-r",
            top / "requirements" / "cloister.txt",
        ]
        _pip(machine, [venv / "bin" / "python", "-I", "-m", "pip"], lock)
        _pip(machine, [venv / "bin" / "python", "-I", "-m", "pip"], ["--no-compile", "--no-build-isolation", top])
        compile_all(machine, venv)

    def sentinel(machine: Machine, engine: Engine, program: Path) -> str:
        """Built here without a registry. `program` is the new version's own command."""
        said = machine.must(
            [program.with_name("python"), "-I", top / "deploy" / "lib" / "images.py", SENTINEL],
            "the sentinel image could not be built", "give one that the engine has: --sentinel sha256:…",
            timeout_s=_BUILD_S, extra={"DOCKER_HOST": engine.url},
        )  # fmt: skip
        found = re.search(rf"^{SENTINEL} (sha256:[0-9a-f]{{64}})$", said, re.MULTILINE)
        if found is None:
            raise Fault("images.py did not say which sentinel it built", "", 1)
        return found.group(1)

    return Source(version, False, f"{version}, from {top}", top / "deploy", fill, sentinel)


def from_bundle(
    folder: Path, version: str, signed_by: str, image: tuple[Path, str] | None, packages: tuple[tuple[str, Path], ...],
    systems: tuple[str, ...],
) -> Source:  # fmt: skip
    """The version of an opened bundle, of which every byte was verified while it was unpacked.

    `image` is the sentinel's archive, and the id that an engine knows it by.
    """
    # the one that runs may be of an older version, and trust a key that was revoked since
    if not (folder / _SCRIPT).is_file() or not (folder / _PROGRAM / "run.py").is_file():
        raise Fault("the bundle holds no installer", "it was not made by deploy/bundle.sh", BROKEN)

    def fill(machine: Machine, venv: Path) -> None:
        pips = sorted((folder / "wheels").glob("pip-*.whl"))
        if not pips:
            raise Fault("the bundle holds no pip", "it was not made by deploy/bundle.sh", BROKEN)
        machine.must(
            [sys.executable, "-m", "venv", "--without-pip", venv], "the environment could not be made",
            "is the disk full?",
        )  # fmt: skip
        words: Words = ["--no-index", "--find-links", folder / "wheels", "--no-compile", "--require-hashes"]
        lock = folder / "requirements.txt"
        _pip(machine, [venv / "bin" / "python", "-I", f"{pips[-1]}/pip"], [*words, "-r", lock])
        compile_all(machine, venv)

    def sentinel(_machine: Machine, engine: Engine, _program: Path) -> str:
        if image is None:
            raise Fault(
                "the bundle holds no sentinel image", "give one that the engine has: --sentinel sha256:…", USAGE
            )
        archive, digest = image[0], image[1] or image_of(image[0])
        if not engine.has(digest):
            engine.load(archive)
        if not engine.has(digest):
            raise Fault("the engine names the sentinel image otherwise than the bundle", CLASSIC_CURE)
        return digest

    told = f"{version}, from a bundle signed by {signed_by}"
    known = (image[1] or image_of(image[0])) if image else None
    return Source(version, True, told, folder, fill, sentinel, packages, systems, known)


def _pip(machine: Machine, pip: Words, words: Words) -> None:
    """Wheels by hash and nothing resolved: an sdist would run its author's code here, as root."""
    quiet = ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]
    answer = machine.run([*pip, *quiet, "install", "--no-deps", *words], timeout_s=_PIP_S)
    if answer.done:
        return
    said = answer.out + answer.err
    if "No space left" in said:
        raise Fault("the packages could not be installed: the disk is full", "make room below /opt and /tmp")
    if "ProxyError" in said or "407 Proxy" in said:
        raise Fault("the package index cannot be reached through the proxy", "look at HTTPS_PROXY, or use --bundle")
    if "do not match the hashes" in said.lower():
        raise Fault("a package is not the one that its lock names", "do not go on: somebody changed it", BROKEN)
    if "NewConnectionError" in said or "Name or service not known" in said or "ConnectTimeout" in said:
        raise Fault("the package index cannot be reached", "let this machine out to it (HTTPS_PROXY), or use --bundle")
    raise Fault(f"the packages could not be installed: {answer.said}", "running again is safe")


def compile_all(machine: Machine, venv: Path) -> None:
    """Byte code now, on every processor: the services may not write it later. Of the packages' own tests none is
    made: nothing imports them, and they are a fifth of it all."""
    words: Words = [venv / "bin" / "python", "-I", "-m", "compileall", "-q", "-j", "0", "-x", _TESTS, venv / "lib"]
    machine.run(words, timeout_s=_BUILD_S)
