"""The hub's state folder, opened for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.hub.state import HubState


@contextmanager
def opened(config: Path) -> Iterator[HubState]:
    """The hub's desk, closed again."""
    from federation.hub.config import load_config
    from federation.hub.state import HubState

    hub = HubState(load_config(config))
    try:
        yield hub
    finally:
        hub.close()
