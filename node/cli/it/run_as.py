"""Doing one thing as another user: a key that root makes for the link is the link's from its first byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mediator.errors import CloisterError, NotNow
from node.ipc.messages import pack_error, unpack_error

_VALUE, _ERROR = b"V", b"E"


def run_as(user: tuple[int, int] | None, action: Callable[[], str], groups: Sequence[int] = ()) -> str:
    """The result of `action`, done as (uid, gid) and in `groups` in a child process; as ourselves where `user` is None
    or us.

    Raises what `action` raised if it is one of our errors, `NotNow` if the child died.
    """
    if user is None or user[0] == os.geteuid():
        return action()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(user, groups, action, reading, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        raw = answer.read()
    os.waitpid(child, 0)
    if not raw:
        raise NotNow("a helper process of this command died", hint="try again")
    if raw[:1] == _ERROR:
        raise unpack_error(raw[1:])
    return raw[1:].decode("utf-8")


def _child(user: tuple[int, int], groups: Sequence[int], action: Callable[[], str], reading: int, writing: int) -> None:
    """Never returns: the parent's open files and exit handlers are not the child's business."""
    status = 1
    try:
        os.close(reading)
        os.setgroups(list(groups))
        os.setgid(user[1])
        os.setuid(user[0])
        os.umask(0o077)
        try:
            answer = _VALUE + action().encode("utf-8")
        except CloisterError as error:
            answer = _ERROR + pack_error(error)
        with os.fdopen(writing, "wb") as out:
            out.write(answer)
        status = 0
    finally:
        os._exit(status)
