"""System users and groups, by name or by number."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mediator.errors import UsageFault


@dataclass(frozen=True)
class Account:
    """Whom a process runs as. `groups` are those the system gave a named user besides its own."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def account(user: str | int | None) -> Account:
    """The account of a user; ours for None. A number needs no entry in the password database.

    Raises `UsageFault` for a name nobody has.
    """
    if user is None:
        return Account(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except (KeyError, OverflowError):
        if isinstance(user, int) and 0 <= user < 1 << 31:
            return Account(user, user)
        raise UsageFault(f"there is no system user {user}", hint=f"useradd --system {user}") from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)) if isinstance(user, str) else ()
    return Account(entry.pw_uid, entry.pw_gid, groups)


def group_id(group: str | int) -> int:
    """The number of a group. Raises `UsageFault` for a name nobody has."""
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageFault(f"there is no system group {group}", hint=f"groupadd --system {group}") from None


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """As root: do what stands in the block with another user's rights on files, and no more.

    What root itself wrote in a folder of another user's would be written where that user lets the folder lead to. For
    anybody else, and for root's own account, nothing changes. The process must have one thread.
    """
    if os.geteuid() != 0 or account.uid == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(account.groups)  # one of them may be what lets the user pass a folder on the way
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
