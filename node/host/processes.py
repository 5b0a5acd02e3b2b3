"""Starts one of a node's processes: each is a folder of its own, and its `process.py` sees every adapter of it."""

from __future__ import annotations

import signal
from importlib import import_module
from typing import TYPE_CHECKING

from mediator.errors import UsageFault
from node.host.logs import set_up

if TYPE_CHECKING:  # the plain install has `cloister deid` and `cloister job test`, and no node's configuration
    from node.host.config import NodeConfig

# in the order in which they are started
ROLES = ("broker", "core", "intake", "link")
# what core is told when the state folder was changed under the running node: it writes that down, and ends
STATE_CHANGED = signal.SIGUSR1


def start(role: str, config: NodeConfig) -> None:
    """Run one process until SIGTERM. Each imports only what it needs: intake knows no engine, the broker no Flower."""
    if role not in ROLES:
        raise UsageFault(f"there is no process {role}", hint=f"one of {', '.join(ROLES)}")
    set_up(role, level=config.logging.level, form=config.logging.format)
    import_module(f"node.{role}.process").run(config)
