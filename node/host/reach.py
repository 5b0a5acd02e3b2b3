"""Where a running node answers, read from its configuration file and from nothing else.

The node checked the whole of the file when it started. Who only asks it something needs two values of it, and does not
wait until the model of all others is built; whatever is odd about the file is for `load_config` to say.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from node.host.paths import StatePaths


@dataclass(frozen=True)
class Reach:
    """A node's state folder, with its sockets, and the hub it is set up for; `file` says so."""

    file: Path
    state_dir: Path
    hub_url: str

    @cached_property
    def paths(self) -> StatePaths:
        return StatePaths(self.state_dir)


def read_reach(path: Path) -> Reach | None:
    """What `path` says; None where it is not plainly a node's configuration."""
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
        state_dir, host, port = plain["state_dir"], plain["hub"]["host"], plain["hub"]["port"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    if not (isinstance(state_dir, str) and isinstance(host, str) and isinstance(port, int)):
        return None
    return Reach(path, Path(state_dir), hub_url(host, port)) if state_dir.startswith("/") else None


def hub_url(host: str, port: int) -> str:
    """The hub's address as people and certificates' clients write it."""
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"
