"""The disks: room, a second one for the data, encryption, quotas."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from . import layout
from .machine import Machine

_GIB = 1 << 30
# the environment of a version is 1.5 GiB, two stand side by side during an upgrade; packages on their way as much again
_PROGRAMS = 4 * _GIB
_DATA = {"node": 20 * _GIB, "hub": 5 * _GIB}
_NOT_HERE = {"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"}
_QUOTAS = ("usrquota", "grpquota", "prjquota", "uquota", "gquota", "pquota")

Row = tuple[str, str, str, str]


def disks(machine: Machine, role: layout.Role) -> Iterator[Row]:
    """(what, state, detail, cure) for each folder that grows."""
    yield _room(machine, layout.HOME, "disk of the programs", _PROGRAMS, already=machine.at(layout.CURRENT).exists())
    yield _room(machine, layout.STATE, "disk of the data", _DATA[role], already=machine.at(layout.state(role)).exists())
    mount = mount_of(machine, layout.STATE)
    if mount is None:
        yield ("data disk", "unknown", "the table of mounts cannot be read", "")
        return
    where, device, kind, options = mount
    if kind in _NOT_HERE:
        cure = "a local disk: locks and renames of a network's are not what a database needs"
        yield ("data disk", "failed", f"{layout.STATE} lies on {kind}", cure)
    elif where == "/":
        yield (
            "data disk",
            "ok",
            f"the system's own ({kind}); a second one is mounted on {layout.STATE} beforehand",
            "",
        )
    else:
        yield ("data disk", "ok", f"{device} ({kind}) on {where}", "")
    if "noexec" in _options(machine, layout.HOME):
        cure = "mount it without noexec: the services' programs lie there"
        yield ("programs", "failed", f"{layout.HOME} is mounted noexec", cure)
    if "ro" in options:
        yield ("data disk", "failed", f"{where} is mounted read-only", "mount it writable")
    if set(options) & set(_QUOTAS):
        yield _quotas(machine, where)
    yield _encrypted(machine, device, where)


def _quotas(machine: Machine, where: str) -> Row:
    """Whom of ours they hold, and what is left to whom: by `repquota`, where that is installed. Users alone: a
    group's and a project's are told as being on."""
    cure = "leave the users cloister-* room: a full quota stops jobs and imports like a full disk"
    told = machine.run(["repquota", "-u", "-O", "csv", where])
    if not told.done:
        return ("quotas", "warning", f"on for {where}; whom they hold is not known ({told.said})", cure)
    held = []
    for line in told.out.splitlines():
        words = line.split(",")
        # User,BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,…: blocks are KiB
        if words[0].startswith("cloister-") and len(words) > 5 and words[3].isdecimal() and words[5].isdecimal():
            used, most = int(words[3]), int(words[5])
            held += [f"{words[0]} has {used >> 10} of {most >> 10} MiB"] if most else []
    if held:
        return ("quotas", "warning", f"on for {where}: {', '.join(held)}", cure)
    return ("quotas", "ok", f"on for {where}, and no user cloister-* is held by one", "")


def _room(machine: Machine, path: str, what: str, least: int, *, already: bool) -> Row:
    at = machine.at(path)
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free
    detail = f"{free / _GIB:.1f} GiB free for {path}"
    # what is installed already needs room for one more version, and none for what it has
    least = least // 2 if already else least
    if free >= least:
        return (what, "ok", detail, "")
    # programs that do not fit are certain to fail; data may come later, on a disk that is mounted later
    state = "failed" if path == layout.HOME or free < _GIB else "warning"
    return (what, state, detail, f"{least // _GIB} GiB or more, or a second disk mounted there")


def mount_of(machine: Machine, path: str) -> tuple[str, str, str, list[str]] | None:
    """(mount point, device, file system, options) of where a path lies, or would."""
    best: tuple[str, str, str, list[str]] | None = None
    for line in machine.text("/proc/self/mounts").splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        where = words[1].encode().decode("unicode_escape")
        inside = where == "/" or path == where or path.startswith(where.rstrip("/") + "/")
        if inside and (best is None or len(where) >= len(best[0])):
            best = (where, words[0], words[2], words[3].split(","))
    return best


def _options(machine: Machine, path: str) -> list[str]:
    mount = mount_of(machine, path)
    return mount[3] if mount else []


def _block(machine: Machine, device: str, where: str) -> str:
    """The kernel's name of a disk. By its number, since a name below /dev/mapper is a link only where udev made it, and
    /dev/root is no file at all; where the number says nothing, by the name that it is mounted by."""
    numbers = []
    with contextlib.suppress(OSError):
        found = os.stat(machine.at(device))
        numbers += [found.st_rdev] if stat.S_ISBLK(found.st_mode) else []
    if machine.real:
        with contextlib.suppress(OSError):
            numbers.append(os.stat(where).st_dev)
    for number in numbers:
        known = machine.at(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        if known.exists():
            return Path(os.path.realpath(known)).name
    return Path(os.path.realpath(machine.at(device))).name if device.startswith("/dev/") else ""


def _encrypted(machine: Machine, device: str, where: str) -> Row:
    """A device mapper's volume says in its UUID what it is; one above LUKS (LVM) is asked for what lies below it."""
    name = _block(machine, device, where)
    if not name:
        return ("encryption", "unknown", f"{device} is no disk of its own", "")
    if _is_crypt(machine, name, 4):
        return ("encryption", "ok", f"{device} is encrypted", "")
    cure = "quarantined originals are encrypted anyway, datasets are not: put the data on LUKS"
    return ("encryption", "warning", f"{device} is not encrypted", cure)


def _is_crypt(machine: Machine, name: str, deep: int) -> bool:
    if machine.text(f"/sys/class/block/{name}/dm/uuid").startswith("CRYPT-"):
        return True
    below = machine.at(f"/sys/class/block/{name}/slaves")
    return deep > 0 and below.is_dir() and any(_is_crypt(machine, each.name, deep - 1) for each in below.iterdir())
