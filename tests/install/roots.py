"""Root folders of whole systems, made once by mmdebstrap and kept outside the tree.

A root is never booted itself: each machine (`machine.py`) lays an overlay over it, so a hundred machines are one root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("CLOISTER_MACHINES", "/var/cache/cloister-machines"))
# what a server has before anybody thought of us: an init, a bus, an interpreter, and what our checks call
SERVER = (
    "systemd", "systemd-sysv", "dbus", "python3", "openssl", "ca-certificates", "iproute2", "procps", "logrotate",
    "kmod", "tzdata",
)  # fmt: skip
ENGINE = ("python3-venv", "iptables", "nftables", "docker.io")


class CannotMake(Exception):
    """No machine can be made here; the text says what is missing and how to get it."""


@dataclass(frozen=True)
class System:
    """A distribution. `key_sha256`: of the archive's public key, where the key comes from the archive itself."""

    name: str
    suite: str
    sources: tuple[str, ...]
    key_package: str = ""
    key_file: str = ""
    key_sha256: str = ""
    # what a server of this system has besides, where its archive does not call it required
    also: tuple[str, ...] = ()


DEBIAN_12 = System(
    "debian-12",
    "bookworm",
    (
        "deb http://deb.debian.org/debian bookworm main",
        "deb http://deb.debian.org/debian-security bookworm-security main",
    ),
)
UBUNTU_24_04 = System(
    "ubuntu-24.04",
    "noble",
    (
        "deb http://archive.ubuntu.com/ubuntu noble main universe",
        "deb http://archive.ubuntu.com/ubuntu noble-updates main universe",
    ),
    # holds the key F6EC B376 2474 EDA9 D21B 7022 8719 20D1 991B C93C and no other; the hash is what makes it the key
    key_package="http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb",
    key_file="etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg",
    key_sha256="5ebbeeb474034b1fa7e50abbe6f136e177fc826219e01f314b3623f7b3097e96",
    also=("apt",),
)
SYSTEMS = {system.name: system for system in (DEBIAN_12, UBUNTU_24_04)}


def run(*words: str | Path, cwd: Path | None = None) -> None:
    made = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    if made.returncode:
        raise CannotMake(f"{words[0]} failed: {(made.stderr or made.stdout).strip()[-600:]}")


def program(name: str, package: str, cache: Path = CACHE) -> Path:
    """Where a program is. What is not installed is fetched and unpacked beside the roots: installing it would
    upgrade this machine's own systemd with it."""
    if found := shutil.which(name):
        return Path(found)
    unpacked = cache / "tools" / "usr/bin" / name
    if not unpacked.exists():
        with locked(cache / "tools.lock"):
            fetch = cache / "tools.debs"
            fetch.mkdir(parents=True, exist_ok=True)
            try:
                run("apt-get", "download", package, cwd=fetch)
            except (CannotMake, OSError) as why:
                raise CannotMake(f"no {name} here and no package of it: apt-get install {package} ({why})") from None
            for deb in fetch.glob(f"{package}_*.deb"):
                run("dpkg", "-x", deb, cache / "tools")
    if not unpacked.exists():
        raise CannotMake(f"the package {package} holds no {name}: apt-get install {package}")
    return unpacked


def root(system: System, *, engine: bool, cache: Path = CACHE) -> Path:
    """The root folder of a system, with a container engine in it or a bare server. Minutes the first time."""
    packages = SERVER + (ENGINE if engine else ()) + system.also
    folder = cache / "roots" / f"{system.name}-{'engine' if engine else 'bare'}"
    want = hashlib.sha256("\n".join((system.suite, *system.sources, *packages)).encode()).hexdigest()
    stamp = folder.parent / f"{folder.name}.stamp"
    with locked(cache / "roots" / f"{folder.name}.lock"):
        if not (folder.is_dir() and stamp.exists() and stamp.read_text() == want):
            make(system, packages, folder, cache)
            stamp.write_text(want)
    return folder


def make(system: System, packages: tuple[str, ...], folder: Path, cache: Path) -> None:
    if os.geteuid() != 0:
        raise CannotMake("only root can make a machine's root folder and boot it")
    mmdebstrap = program("mmdebstrap", "mmdebstrap", cache)
    partial = folder.parent / f"{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    key = ("--keyring=" + str(archive_key(system, cache)),) if system.key_package else ()
    # minbase, as release's bundle assumes; root mode, since whoever boots it is root anyway
    run(
        mmdebstrap, "--variant=minbase", "--mode=root", "--components=main,universe", *key,
        f"--include={','.join(packages)}", system.suite, partial, *system.sources,
    )  # fmt: skip
    partial.rename(folder)


def archive_key(system: System, cache: Path) -> Path:
    """The archive's public key, out of the archive's own package: trusted for its hash, not for where it lay."""
    key = cache / "keys" / f"{system.name}.gpg"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        package = cache / "keys" / f"{system.name}.deb"
        run("curl", "--fail", "--silent", "--show-error", "--max-time", "60", "-o", package, system.key_package)
        run("dpkg", "-x", package, cache / "keys" / system.name)
        found = cache / "keys" / system.name / system.key_file
        if not found.exists() or hashlib.sha256(found.read_bytes()).hexdigest() != system.key_sha256:
            raise CannotMake(f"the key in {system.key_package} is not the one written down here")
        shutil.copyfile(found, key)
    return key


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Two who want the same root: the second waits and finds it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
