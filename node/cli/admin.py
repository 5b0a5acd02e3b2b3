"""The command line's way to core: its sockets, by role."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mediator.errors import NotNow, UsageFault
from mediator.roles import Role, may
from node.host.keys import read_signing_key
from node.host.reach import Reach, read_reach
from node.ipc.verb import Verb

# what a whole configuration and a socket need is imported by the command that has one: help needs neither
if TYPE_CHECKING:
    from node.host.config import NodeConfig
    from node.ipc.channel import Client


def load(path: Path) -> NodeConfig:
    """The node's configuration, strictly checked."""
    from node.host.config import load_config

    return load_config(path)


def reach(path: Path) -> Reach | NodeConfig:
    """The way to the running node, without the rest of its configuration where the file is plainly one."""
    return read_reach(path) or load(path)


def client_for(
    config: NodeConfig | Reach, verb: Verb[Any, Any], role: Role | None = None, *, key: Path | None = None
) -> Client:
    """A client on the socket of a role that may ask `verb`: the caller's `role`, or the first whose socket opens.
    With the private `key` file of a person every call is signed: the audit log names them.

    Raises `NotNow` while core is not running, `UsageFault` when no socket that may ask opens for this user.
    """
    from node.ipc.channel import Client

    roles = [role] if role else [each for each in Role if may(each.value, verb.name)]
    sockets = [config.paths.staff_socket(each.value) for each in roles if may(each.value, verb.name)]
    for socket in sockets:
        if os.access(socket, os.W_OK):
            return Client(socket, key=None if key is None else read_signing_key(key))
    if isinstance(config, Reach):  # what is wrong with the file may be why nobody is there
        load(config.file)
    if all(map(_is_missing, sockets)):
        raise NotNow("the node is not running", hint="start it: cloister node serve")
    raise UsageFault(
        f"this user may not ask the node to {verb.name.replace('_', ' ')}",
        hint="run as root, or be in the group of a role that may (see [staff] in the node's configuration)",
    )


def known(config: NodeConfig, key: Path) -> Path | None:
    """The same key file where the hospital knows whose it is: a document may be signed by others, a call may not."""
    from node.ipc.persons import signers

    return key if read_signing_key(key).key_id in signers(config).ring else None


def _is_missing(path: Path) -> bool:
    """Not where this user may not look: then nobody knows."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False
