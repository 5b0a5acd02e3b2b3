"""The hub's state folder, opened for one command; or its database alone, for one question."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mediator.errors import UsageFault
from node.host.accounts import Account, acting_as

if TYPE_CHECKING:
    from federation.hub.overview import Overview
    from federation.hub.state import HubState

_AS_THE_HUB = "systemctl start cloister-hub.target, or run it as the hub's own user"


@contextmanager
def looked(config: Path) -> Iterator[Overview]:
    """What questions read: the database by itself where it is this version's, without the rest of the hub.

    As `opened`: the block reads as the hub's own user, since who reads a database in this mode writes its index.
    """
    from federation.hub.overview import Overview
    from federation.hub.reach import own, state_folder

    folder = state_folder(config)
    if folder is not None:
        with acting_as(_owner(folder)):
            if own(folder / "hub.db") and (overview := Overview(folder / "hub.db")).is_current():
                yield overview
                return
    with opened(config) as hub:  # says what is odd, or brings the database to this version
        yield hub.overview


@contextmanager
def opened(config: Path) -> Iterator[HubState]:
    """The hub's desk, closed again. What stands in the block is done as the hub's own user.

    A database that root has opened keeps files of root's, and the hub itself could open it no more. So what root was
    handed is read before the block, and what root is to have is written after it.
    """
    from federation.hub.config import load_config
    from federation.hub.state import HubState

    loaded = load_config(config)
    with acting_as(_owner(loaded.state_dir)):
        hub = HubState(loaded)
        try:
            yield hub
        finally:
            hub.close()


def refuse_root(config: Path) -> None:
    """Raise `UsageFault` for root where the hub is another user's: what serves has no way back to root."""
    from federation.hub.config import load_config

    folder = load_config(config).state_dir
    if os.geteuid() == 0 and _owner(folder).uid != 0:
        raise UsageFault(f"the hub in {folder} is not root's to run", hint=_AS_THE_HUB)


def _owner(folder: Path) -> Account:
    try:
        found = folder.stat()
    except OSError:
        return Account(os.geteuid(), os.getegid())  # it is told that nothing is there
    return Account(found.st_uid, found.st_gid)
