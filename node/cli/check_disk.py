"""What a check says of disks: room, whether the volume is encrypted, and quotas that end before the disk does.

Linux names them all: `mountinfo` (proc(5)) the disk under a folder, `/sys/dev/block` what that disk stands on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.cli.findings import finding

# Under this a node still ends its work in order: a database, its log, what was released.
_LEAST_BYTES = 2 << 30
# Under this the next import or model may not fit.
_LITTLE_BYTES = 20 << 30
_QUOTAS = re.compile(r"usrquota|grpquota|prjquota|uquota|gquota|pquota|uqnoenforce|usrjquota=|grpjquota=|^quota$")
# eCryptfs and gocryptfs encrypt above a disk, and ZFS below a mount: the mount's kind says the first two
_ENCRYPTING = frozenset({"ecryptfs", "fuse.gocryptfs", "fuse.cryfs", "fuse.encfs"})
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Mount:
    """The file system that a folder lies on."""

    point: Path
    device: str
    kind: str
    options: tuple[str, ...]


def disk(what: str, folder: Path, *, least: int = _LEAST_BYTES, little: int = _LITTLE_BYTES) -> dict[str, Any]:
    """The room on the disk of a folder, for those who are not root."""
    try:
        seen = os.statvfs(folder)
    except FileNotFoundError:
        return finding(what, "unknown", f"{folder} is not there yet")
    except OSError as error:
        return finding(what, "unknown", f"{folder}: {os.strerror(error.errno or 0).lower()}")
    free, files = seen.f_bavail * seen.f_frsize, seen.f_favail
    detail = f"{gib(free)} free of {gib(seen.f_blocks * seen.f_frsize)} at {folder}"
    mend = f"make room, or move {folder} to a larger disk"
    if free < least or (seen.f_files and files < 1000):
        return finding(what, "missing", detail if free < least else f"{detail}, but no room for another file", mend)
    return finding(what, "warning" if free < little else "ok", detail, mend if free < little else "")


def volume(
    what: str, folder: Path, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> Iterator[dict[str, Any]]:
    """Whether what lies in a folder is encrypted on its disk, and whether quotas may end before the disk."""
    mount = mount_of(folder, proc)
    if mount is None:
        yield finding(what, "unknown", f"nothing says on which disk {folder} lies")
        return
    if mount.kind in _ENCRYPTING or is_encrypted(mount.device, sys):
        yield finding(what, "ok", f"{folder} lies on an encrypted volume, mounted at {mount.point} ({mount.kind})")
    elif mount.kind in ("zfs", "overlay", "btrfs", "nfs", "nfs4", "virtiofs", "9p"):
        yield finding(what, "unknown", f"{folder} lies on {mount.kind}, which does not say whether it is encrypted")
    else:
        detail = f"{folder} lies on {mount.point} ({mount.kind}), and no encryption was recognised below it"
        mend = "put it on an encrypted volume (cryptsetup luksFormat), unless the disk or the host below encrypts"
        yield finding(what, "warning", detail, mend)
    if on := [option for option in mount.options if _QUOTAS.search(option)]:
        mend = f"repquota -a: see that the node's users may use what {mount.point} is for"
        yield finding("quotas", "warning", f"{', '.join(on)} at {mount.point}: a process may run full first", mend)


def mount_of(folder: Path, proc: Path = Path("/proc")) -> Mount | None:
    """The mount that a folder lies on, the newest where several lie on one another."""
    real, found = Path(os.path.realpath(folder)), None
    try:
        lines = (proc / "self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if real.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            options = (*fields[5].split(","), *(kind[2].split(",") if len(kind) > 2 else ()))
            found = Mount(point, fields[2], kind[0], options)
    return found


def is_encrypted(device: str, sys: Path = Path("/sys"), depth: int = 0) -> bool:
    """Whether a block device (`8:1`), or everything it stands on, is dm-crypt's."""
    at = sys / "dev/block" / device
    try:
        uuid = (at / "dm/uuid").read_text("ascii").strip()
    except OSError:
        uuid = ""
    if uuid.startswith("CRYPT-"):
        return True
    try:
        below = [(each / "dev").read_text("ascii").strip() for each in (at / "slaves").iterdir()]
    except OSError:
        return False
    return bool(below) and depth < _MAX_DEPTH and all(is_encrypted(each, sys, depth + 1) for each in below)


def gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
