"""Starts one of a node's processes: each is a folder of its own, and its `process.py` sees every adapter of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mediator import signatures
from node.host.logs import set_up
from node.host.processes import named

if TYPE_CHECKING:  # the plain install has `cloister deid` and `cloister job test`, and no node's configuration
    from node.host.config import NodeConfig


def start(role: str, config: NodeConfig) -> None:
    """Run one process until SIGTERM. Each imports only what it needs: intake knows no engine, the broker no Flower."""
    named(role)
    signatures.load()  # what verifies is there from the beginning, not from the first document on
    set_up(role, level=config.logging.level, form=config.logging.format)
    import_module(f"node.{role}.process").run(config)
