"""A node that answers every question of its staff with "not now": what a command loads to ask shows on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mediator.errors import NotNow
from mediator.roles import Role, may
from node.host.state import prepare_state
from node.ipc.caller import Caller
from node.ipc.server import Server
from node.ipc.staff import STAFF
from tests.node.host.test_state import config_in


@contextmanager
def asleep(folder: Path) -> Iterator[Path]:
    """The configuration file of such a node, whose sockets answer meanwhile."""
    config = config_in(folder)
    prepare_state(config)

    def refuse(*_: Any) -> Any:
        raise NotNow("asleep")

    role = Role.IT_ADMIN
    verbs = [verb for verb in STAFF if may(role.value, verb.name)]
    with Server(config.paths.staff_socket(role.value), verbs, dict.fromkeys(verbs, refuse), caller=Caller(role.value)):
        yield folder / "node.toml"
