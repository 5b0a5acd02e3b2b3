"""The demo's hub: the driver's, and where it keeps a round's model."""

from __future__ import annotations

from deploy.demo.workplace import Workplace
from deploy.driver import hub
from deploy.driver.commands import Commands
from deploy.driver.services import HOST

__all__ = ["HOST", "OVER", "Hub"]

OVER = ("done", "stopped")


class Hub(hub.Hub):
    """A hub in its place in the demo's folder, under its own user."""

    def __init__(self, commands: Commands, place: Workplace) -> None:
        super().__init__(commands, place.hub, place.hub_account.uid, place.logs / "hub.log")

    def model(self, run: str, number: int) -> bytes:
        """A round's model as `cloister hub run export --round` hands it out, read where the hub keeps it: the demo
        wants twenty of them."""
        return (self.state / "checkpoints" / run / f"round-{number:04d}.safetensors").read_bytes()
