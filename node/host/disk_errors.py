"""What the operating system's refusal to write means to the person at the keyboard."""

from __future__ import annotations

import errno
from pathlib import Path

from mediator.errors import CloisterError, NotNow, UsageFault

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return error.errno in _FULL


def cannot_pass(parent: Path, error: OSError) -> CloisterError:
    """What a user of the node's met below `parent`, the folder that the state folder lies in."""
    if isinstance(error, PermissionError):
        return UsageFault(
            f"the node's users cannot pass {parent}, or use {error.filename}",
            hint="each user of [users] must be able to pass every folder on the way: chmod o+x, or a group of theirs",
        )
    return cannot_write(error.filename or parent, error)


def cannot_write(path: Path | str, error: OSError) -> CloisterError:
    """`NotNow` where room helps, `UsageFault` where another path or another user does."""
    if is_full(error):
        return NotNow(f"cannot write {path}: the disk is full", hint="make room, then do it again")
    return UsageFault(f"cannot write {path}: {error.strerror}")
