"""The link's folder as the command line opens it: by the link's own user, and with a word for whoever may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mediator.errors import UsageFault
from mediator.signatures import VerifyKey
from node.cli.it.run_as import run_as
from node.host.accounts import acting_as
from node.host.disk_errors import cannot_write
from node.host.keys import public_path, read_verify_key

if TYPE_CHECKING:
    from node.host.config import NodeConfig

_INIT = "run `cloister node init` first"


def check_user(config: NodeConfig) -> None:
    """Raise `UsageFault` for a user who may not write for the link."""
    if config.users.separate and os.geteuid() != 0:
        raise UsageFault("the link's keys belong to a user of its own", hint="run this as root")


def node_keys(config: NodeConfig) -> tuple[VerifyKey, VerifyKey]:
    """The node's public release and audit key. Raises `UsageFault`."""
    check_user(config)
    paths = config.paths
    with acting_as(config.users.accounts()["core"]):  # its folder, and what lies in it is its choice
        files = [public_path(paths.release_key), public_path(paths.audit_key)]
        for file in files:
            try:
                file.stat()
            except FileNotFoundError:
                raise UsageFault("this node has no keys yet", hint=_INIT) from None
            except OSError as error:
                raise _not_open(error) from error
        return read_verify_key(files[0]), read_verify_key(files[1])


def as_link(config: NodeConfig, action: Callable[[], str]) -> str:
    """The result of `action`, which reads or writes the link's folder. Raises `UsageFault` and what `action` raises."""
    check_user(config)
    link = config.users.accounts()["link"]
    user = (link.uid, link.gid) if config.users.separate else None

    def told() -> str:
        try:
            return action()
        except FileNotFoundError as error:
            raise UsageFault("this node has no state folder yet", hint=_INIT) from error
        except PermissionError as error:
            raise _not_open(error) from error
        except OSError as error:
            raise cannot_write(error.filename or config.paths.link, error) from error

    return run_as(user, told)


def _not_open(error: OSError) -> UsageFault:
    return UsageFault(
        f"this user may not open {error.filename}", hint="run this as root, or as the user who made the state folder"
    )
