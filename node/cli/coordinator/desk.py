"""The hub's state folder, opened for one command; or its database alone, for one question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.hub.overview import Overview
    from federation.hub.state import HubState


def looked(config: Path) -> Overview:
    """What questions read: the database by itself where it is this version's, without the rest of the hub."""
    from federation.hub.overview import Overview
    from federation.hub.reach import own, state_folder

    folder = state_folder(config)
    if folder is not None and own(folder / "hub.db"):
        overview = Overview(folder / "hub.db")
        if overview.is_current():
            return overview
    with opened(config) as hub:  # says what is odd, or brings the database to this version
        return hub.overview


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
