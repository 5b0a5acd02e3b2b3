"""python -m tests.kinds [--json FILE]: kinds of machine that this one is not, tried under a kernel of their own.

A whole Debian 12 with systemd boots on User Mode Linux (the package `user-mode-linux`: a kernel that is a program), so
that it has what a container's machine cannot lend: cgroup version 2 with every controller, encrypted volumes, quotas.
It needs no virtualisation and touches nothing of this machine. What is tried stands in `inside.py`, which runs in it.
Only root can make its disk; some minutes the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.install.roots import CACHE, DEBIAN_12, CannotMake, locked, make, run

REPO = Path(__file__).resolve().parents[2]
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "python3", "python3-venv", "procps",
    "kmod", "iproute2", "podman", "crun", "catatonit", "uidmap", "slirp4netns", "cryptsetup-bin", "e2fsprogs",
    "xfsprogs", "quota", "logrotate",
)  # fmt: skip
IMAGES = ("cloister-sentinel",)
DISK_BYTES = 8 << 30
PATIENCE_S = 1800
UNIT = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart={python} -P -m tests.kinds.inside /host
WorkingDirectory={repo}
Environment=PYTHONPATH={repo} PYTHONDONTWRITEBYTECODE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=journal+console
StandardError=journal+console
ExecStopPost=/bin/systemctl --force poweroff
[Install]
WantedBy=multi-user.target
"""


def kernel() -> Path:
    """The kernel and its modules, out of Debian's package, beside the roots."""
    folder = CACHE / "uml"
    program = folder / "usr/bin/linux.uml"
    if not program.exists():
        with locked(CACHE / "uml.lock"):
            folder.mkdir(parents=True, exist_ok=True)
            run("apt-get", "download", "user-mode-linux", cwd=folder)
            for deb in folder.glob("user-mode-linux_*.deb"):
                run("dpkg", "-x", deb, folder)
    return program


def disk(folder: Path, shared: Path) -> Path:
    """A root folder made a disk, with one unit more: the trial."""
    root = CACHE / "roots" / "debian-12-kinds"
    with locked(root.parent / f"{root.name}.lock"):
        if not root.is_dir():
            make(DEBIAN_12, PACKAGES, root, CACHE)
            shutil.copytree(CACHE / "uml/usr/lib/uml/modules", root / "usr/lib/modules")
    work, image = folder / "root", folder / "disk"
    run("cp", "--archive", "--reflink=auto", root, work)
    for name in ("host", str(REPO).lstrip("/")):
        (work / name).mkdir(parents=True, exist_ok=True)
    mounts = ((shared, "/host"), (REPO, str(REPO)))
    (work / "etc/fstab").write_text("".join(f"none {at} hostfs {source} 0 0\n" for source, at in mounts))
    (work / "etc/systemd/system/trial.service").write_text(UNIT.format(python=REPO / ".venv/bin/python", repo=REPO))
    wants = work / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "trial.service").symlink_to("../trial.service")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    run("mkfs.ext4", "-q", "-F", "-d", work, image)
    shutil.rmtree(work)
    return image


def images(shared: Path) -> None:
    """What jobs are made of, as archives: this machine's own engine has them."""
    for name in IMAGES:
        run("docker", "save", "--output", shared / f"{name}.tar", name)
        (shared / f"{name}.tar").chmod(0o644)


def boot(folder: Path, image: Path) -> None:
    """The whole life of that machine, from power on to off."""
    words = [
        str(kernel()), "mem=3G", f"ubd0={image}", "root=/dev/ubda", "rw", "init=/sbin/init", "con=null",
        "con0=fd:0,fd:1", f"umid=kinds-{os.getpid()}", f"uml_dir={folder}/",
    ]  # fmt: skip
    with (folder / "console.log").open("wb") as console:
        try:
            subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, check=False,
                timeout=PATIENCE_S, env={**os.environ, "TMPDIR": "/dev/shm"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CannotMake(f"it did not end within {PATIENCE_S} s: {folder}/console.log") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kinds", description=__doc__)
    parser.add_argument("--json", type=Path, help="write what was found there")
    parser.add_argument("--only", default="", metavar="WORD", help="those trials whose name holds it")
    parser.add_argument("--keep", action="store_true", help="leave the disk and the console's log")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cloister-kinds-", dir="/var/tmp"))
    shared = folder / "shared"
    shared.mkdir()
    (shared / "only").write_text(given.only)
    try:
        kernel()
        images(shared)
        boot(folder, disk(folder, shared))
        told = shared / "found.json"
        found = json.loads(told.read_text()) if told.exists() else {}
    except CannotMake as why:
        print(f"error: {why}", file=sys.stderr)
        return 5
    finally:
        if given.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    for name, each in found.items():
        print(f"{'ok' if each['ok'] else 'FAILED':7} {name}: {each['said']}")
    return 0 if found and all(each["ok"] for each in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
