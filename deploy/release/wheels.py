"""The wheels of a release: our own, made of the committed tree, and every package of the lock for one interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from deploy.release.failures import Stopped
from deploy.release.pack import sha256_of
from deploy.release.tree import Tree, quiet_environment

LOCK, DEV_LOCK = "requirements/cloister.txt", "requirements/dev.txt"
_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))? \\$")


@dataclass(frozen=True)
class System:
    """A system we make bundles for: its interpreter, and the newest `manylinux_2_N` its C library can load."""

    python: str
    glibc_minor: int

    @property
    def tag(self) -> str:
        return f"cp{self.python.replace('.', '')}"


# `ID-VERSION_ID` of /etc/os-release
SYSTEMS = {"debian-12": System("3.11", 36), "ubuntu-24.04": System("3.12", 39)}
ARCH = "x86_64"


def build(tree: Tree, out: Path) -> Path:
    """Our own wheel, in `out`: the same bytes of the same commit wherever it is made. Raises `Stopped`."""
    out.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o022)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
            cwd=tree.folder, env=quiet_environment(tree.made_s), capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        os.umask(before)
    found = list(out.glob(f"cloister-{tree.version}-*.whl"))
    if done.returncode != 0 or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise Stopped(f"the wheel could not be made: {last}", "deploy/lib/environment.sh dev makes what it needs", 1)
    return found[0]


def for_system(lock: str, system: System) -> str:
    """The entries of a lock that hold on this system, their markers answered."""
    said = {
        "python_version": system.python, "python_full_version": f"{system.python}.2", "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": ARCH, "os_name": "posix", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "extra": "",
    }  # fmt: skip
    kept: list[str] = []
    holds = False
    for line in lock.splitlines():
        if entry := _ENTRY.match(line):
            marker = entry["marker"]
            holds = marker is None or Marker(marker).evaluate(said)
            if holds:
                kept.append(f"{entry['name']}=={entry['version']} \\")
        elif holds and line.startswith("    --hash="):
            kept.append(line)
        elif line.strip() and not line.lstrip().startswith("#") and not line.startswith("    --hash="):
            raise Stopped(f"the lock has a line that is none: {line[:60]}", "requirements/lock.sh makes it", 1)
    return "\n".join(kept) + "\n"


def entry_of(lock: str, name: str) -> str:
    """One package's entry of a lock, with its hashes."""
    lines = lock.splitlines()
    at = next((number for number, line in enumerate(lines) if line.startswith(f"{name}==")), None)
    if at is None:
        raise Stopped(f"{name} is not locked", "requirements/lock.sh makes the locks", 1)
    rest = next((number for number in range(at + 1, len(lines)) if "--hash=" not in lines[number]), len(lines))
    return "\n".join([*lines[at : rest - 1], lines[rest - 1].removesuffix(" \\")]) + "\n"


def collect(tree: Tree, system: System, out: Path) -> list[Path]:
    """Every wheel of the lock for this system, and pip's, by hash, from the package index. Raises `Stopped`."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = out.parent / "wanted.txt"
    # a system without `ensurepip` installs with the wheel of pip itself
    wanted.write_text(for_system(tree.text(LOCK), system) + entry_of(tree.text(DEV_LOCK), "pip"))
    platforms = [f"manylinux_2_{minor}_{ARCH}" for minor in range(system.glibc_minor, 4, -1)]
    platforms += [f"manylinux{year}_{ARCH}" for year in ("2014", "2010", "1")]
    command = [
        sys.executable, "-I", "-m", "pip", "--no-input", "download", "--quiet", "--no-deps", "--require-hashes",
        "--only-binary=:all:", "--dest", str(out), "--implementation=cp", f"--python-version={system.python}",
        f"--abi={system.tag}", *(f"--platform={platform}" for platform in platforms), "-r", str(wanted),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no word"]
        raise Stopped(f"the wheels could not be had: {errors[-1]}", "is the package index reachable?", 5)
    return sorted(out.glob("*.whl"))


def project_of(wheel: Path) -> tuple[str, str]:
    """Name and version that a wheel's file name says, the name as indexes write it."""
    name, version = wheel.name.split("-")[:2]
    return name.replace("_", "-").lower(), version


def requirements(wheels: list[Path]) -> str:
    """What pip is told offline: exactly these wheels, by hash; pip itself is not a part of what is installed."""
    lines = []
    for wheel in sorted(wheels, key=lambda each: project_of(each)):
        name, version = project_of(wheel)
        if name != "pip":
            lines.append(f"{name}=={version} --hash=sha256:{sha256_of(wheel)}")
    return "\n".join(lines) + "\n"
