"""The Debian packages that a server may lack and Cloister needs, with all they stand on, as apt resolves it.

What a base system has is left out: everything of priority `required`, and what install.sh needs to run at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.release.failures import Stopped
from deploy.release.pack import sha256_of

# Podman starts no container of ours without catatonit, the init in it, which Debian only recommends
ENGINES = {
    "docker": ("docker.io",),
    "podman": ("podman", "catatonit", "uidmap", "slirp4netns", "dbus-user-session"),
    "none": (),
}
NEEDED = ("logrotate",)
_BASE = ("apt", "systemd-sysv", "dbus", "python3")
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>(?P<name>[^_ ]+)_(?P<version>[^_ ]+)_[^_ ]+\.deb) \d+ (?P<hash>\S+)")


@dataclass(frozen=True)
class Package:
    """One package file as apt names it; `file` has an epoch's colon as `%3a`."""

    name: str
    version: str
    file: str
    hash: str


class Apt:
    """apt of one system, asked as if nothing were installed: its sources, and lists of its own in `work`.

    `keyring`: whose signatures on the lists count, where the system's own root holds no such file.
    """

    def __init__(self, work: Path, root: Path = Path("/"), keyring: Path | None = None) -> None:
        self._work = work
        for folder in ("lists/partial", "archives/partial"):
            (work / folder).mkdir(parents=True, exist_ok=True)
        (work / "status").touch()
        self._options = [
            *("-o", f"Dir={root}"), *("-o", f"Dir::State::status={work / 'status'}"), "-o", "APT::Architecture=amd64",
            *("-o", f"Dir::State::lists={work / 'lists'}"), *("-o", f"Dir::Cache::archives={work / 'archives'}"),
            *("-o", f"Dir::Cache::pkgcache={work / 'pkgcache.bin'}"), "-o", "Dir::Cache::srcpkgcache=",
            *("-o", "APT::Sandbox::User=root"), *("-o", "Acquire::Languages=none"),
            *("-o", "APT::Update::Post-Invoke="), *("-o", "Acquire::ForceHash=SHA256"),
            *(["-o", f"Dir::Etc::Trusted={keyring.resolve()}"] if keyring is not None else []),
        ]  # fmt: skip

    def ask(self, *words: str, program: str = "apt-get", cwd: Path | None = None) -> str:
        """What apt says. Raises `Stopped` with its last complaint."""
        command = [program, "-q", *self._options, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd or self._work)
        except OSError:
            raise Stopped("there is no apt here", "make the bundle on Debian or Ubuntu, or use --debs DIR", 5) from None
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["E: no word"]
            raise Stopped(f"apt: {said[0][3:]}", "is the system's package archive reachable?", 5)
        return done.stdout

    def closure(self, names: Iterable[str]) -> dict[str, Package]:
        """These packages and all they depend on, by name."""
        said = self.ask("--print-uris", "-y", "--no-install-recommends", "install", *sorted(names))
        found = (_URI.match(line) for line in said.splitlines())
        return {
            each["name"]: Package(each["name"], each["version"].replace("%3a", ":"), each["file"], each["hash"])
            for each in found
            if each
        }

    def required(self) -> set[str]:
        """What every system of this kind has."""
        names = set()
        for paragraph in self.ask("dumpavail", program="apt-cache").split("\n\n"):
            if "\nPriority: required" in paragraph or "\nEssential: yes" in paragraph:
                names.add(paragraph.removeprefix("Package: ").partition("\n")[0])
        return names


def collect(apt: Apt, names: Iterable[str], out: Path) -> list[Path]:
    """The files of these packages' closure that a base system lacks, in `out`. Raises `Stopped`."""
    out.mkdir(parents=True, exist_ok=True)
    apt.ask("update")
    base = apt.closure({*apt.required(), *_BASE})
    wanted = [package for name, package in apt.closure([*names, *_BASE]).items() if name not in base]
    if wanted:
        apt.ask("download", *(f"{package.name}={package.version}" for package in wanted), cwd=out)
    for package in wanted:
        # `download` spells the file as we know it; what arrived has to be what the signed lists say
        if package.hash != f"SHA256:{sha256_of(out / package.file)}":
            raise Stopped(f"{package.file} is not what the archive's lists say", "try again", 4)
    return sorted(out.glob("*.deb"))


def given(folder: Path, out: Path) -> list[Path]:
    """The package files of a folder, instead of asking an archive that has moved on since."""
    out.mkdir(parents=True, exist_ok=True)
    return sorted(Path(shutil.copyfile(each, out / each.name)) for each in folder.glob("*.deb"))


def name_and_version(deb: Path) -> tuple[str, str]:
    """Name and version that a package's file name says."""
    name, version, _ = deb.name.split("_")
    return name, version.replace("%3a", ":")
