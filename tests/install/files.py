"""What has changed in a machine against its root folder, with kinds, owners, modes and contents."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from tests.install.machine import Machine

# What any boot of a machine writes by itself, whoever was installed.
NOISE = (
    "/etc/.updated", "/etc/machine-id", "/etc/hostname", "/root/.cache", "/run", "/tmp", "/var/.updated",
    "/var/cache/ldconfig", "/var/lib/containerd", "/var/lib/dbus/machine-id", "/var/lib/docker", "/var/lib/systemd",
    "/var/log/btmp", "/var/log/journal", "/var/log/lastlog", "/var/log/wtmp", "/var/tmp", "/etc/docker",
    "/opt/containerd", "/etc/cni",
    # what the tools for users keep of the file before, whoever was made or removed
    "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-",
)  # fmt: skip
DELETED = "deleted"


def changes(machine: Machine) -> dict[str, str]:
    """Each path that is not as in the root folder: `deleted`, or what it is now.

    The overlay's upper folder holds what was written, also where it was written back as it had been.
    """
    upper, found = machine.folder / "up", {}
    for folder, names, files in os.walk(upper):
        at = Path(folder)
        for name in (*names, *files):
            path = at / name
            inside = f"/{path.relative_to(upper)}"
            if any(inside == noise or inside.startswith(f"{noise}/") for noise in NOISE):
                continue
            now, before = entry(path), entry(machine.base / inside.lstrip("/"))
            if now != before and not (now == DELETED and before is None):
                found[inside] = now or DELETED
    return found


def entry(path: Path) -> str | None:
    """Kind, owner, mode and content of a path in one line; None where nothing is. Times are not of interest."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
        return DELETED  # the overlay's mark
    owner = f"{state.st_uid}:{state.st_gid} {stat.S_IMODE(state.st_mode):04o}"
    if stat.S_ISLNK(state.st_mode):
        return f"link {state.st_uid}:{state.st_gid} {os.readlink(path)}"
    if stat.S_ISDIR(state.st_mode):
        return f"folder {owner}"
    if stat.S_ISREG(state.st_mode):
        with path.open("rb") as file:
            return f"file {owner} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    return f"other {owner}"
