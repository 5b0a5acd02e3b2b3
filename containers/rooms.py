"""The two folders of a container on this machine: made by the broker, filled by core, mounted by the engine.

`<root>/<job>/data` and `<root>/<job>/in`. The engine is root (or another user), and resolves a path anew when it mounts
it: who may put another folder, or a link, on the way chooses what a job sees. (Handing the engine an open descriptor,
`/proc/<pid>/fd/<n>`, would settle that too; but a mount out of another mount namespace is refused by the kernel.) So
from the root down every folder belongs to the broker or to root, and nobody else may write in it: between check and
start nothing can be exchanged. Core writes inside `data` and `in`, by their group.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from durable.below import below, whole_path
from mediator.errors import Code, Denied, Reason

DATA, IN = "data", "in"
# what others than its owner may not have on the way
_OTHERS_WRITE = 0o022


def folder_of(root: Path, job: str) -> tuple[str, str]:
    """Where a job's `/data` and `/in` lie."""
    return str(root / job / DATA), str(root / job / IN)


def make(root: Path, job: str) -> None:
    """Make the folders of a job; what is there is kept. Raises `Denied` where it is not the broker's own.

    A root that hands its group on (`02000`) is core's to write in by that group, and closed to everybody else.
    """
    try:
        with whole_path(root) as top:
            shared = bool(os.fstat(top).st_mode & stat.S_ISGID)
            _mkdir(job, 0o2750 if shared else 0o700, top)
            with below(top, job) as room:
                for name in (DATA, IN):
                    _mkdir(name, 0o2775 if shared else 0o755, room)
    except OSError:
        raise Denied(Reason(Code.MOUNT_NOT_PERMITTED, "a job's folders cannot be made there")) from None


def why_not(root: Path, job: str) -> str | None:
    """Why the folders of a job must not be mounted, or None.

    1. The root is spelled as it resolves: no step to it is a link.
    2. The root and the job's folder belong to the broker or to root, and nobody else may write in them.
    3. `data` and `in` are folders in it, the broker's or root's too.
    """
    try:
        with whole_path(root) as top:  # (1)
            if not _ours(top):  # (2)
                return "a mount's root is not the broker's own"
            with below(top, job) as room:
                if not _ours(room):
                    return "a job's folder is not the broker's own"
                for name in (DATA, IN):
                    with below(room, name) as source:
                        if os.fstat(source).st_uid not in (0, os.geteuid()):  # (3)
                            return "a mount's source is not the broker's own"
    except OSError:  # (1) (3)
        return "a mount's source is no folder, or is reached through a link"
    return None


def remove_empty(root: Path, keep: Collection[str]) -> None:
    """Remove what core has emptied, but for the jobs in `keep`. What it has not, stays until it has."""
    with suppress(OSError), whole_path(root) as top:
        for job in sorted(set(os.listdir(top)) - set(keep)):
            # one that is core's own cannot be opened; empty, it goes all the same
            with suppress(OSError), below(top, job) as room:
                for name in (DATA, IN):
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=room)
            with suppress(OSError):  # (not empty, or no folder)
                os.rmdir(job, dir_fd=top)


def _ours(folder: int) -> bool:
    found = os.fstat(folder)
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & _OTHERS_WRITE


def _mkdir(name: str, mode: int, parent: int) -> None:
    try:
        # asked for, and set only where a umask cut it: a chmod by who is not in the folder's group drops `02000`
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return
    with below(parent, name) as made:
        if stat.S_IMODE(os.fstat(made).st_mode) != mode:
            os.fchmod(made, mode)
        if stat.S_IMODE(os.fstat(made).st_mode) != mode:
            raise PermissionError(errno.EPERM, "the folder's group cannot be handed on", name)
