"""The one table of a hub's processes: its unit, user, folder and firewall row are derived from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubProcess:
    """One process of a hub, as far as whoever installs it must know.

    `words`: the command under `cloister hub` that runs it. `listens`: nodes reach it, on the port of `[ingress]`.
    `folders`: below the state folder, made by it or by `cloister hub init`, for its user alone.
    """

    name: str
    words: tuple[str, ...]
    listens: bool = False
    folders: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    # the most memory of it and its children: an aggregate holds a few models of 1 GiB (`mediator.sizes`)
    memory_bytes: int = 16 << 30
    tasks: int = 512
    files: int = 65536
    # how long the main loop may be silent: the aggregate of a large round is made beside it
    watchdog_s: int = 180
    start_s: int = 600
    stop_s: float = 15.0
    restart_s: float = 2.0

    @property
    def unit(self) -> str:
        return f"cloister-{self.name}.service"


# Flower's SuperLink is a child of the first, on a socket of its own, and dies with it (`federation.hub.superlink`): it
# lies in the same unit, since who may stop one may stop the other.
PROCESSES: tuple[HubProcess, ...] = (
    HubProcess(
        "hub",
        ("serve",),
        listens=True,
        folders=("pki", "keys", "checkpoints", "run", "superlink"),
        logs=("superlink/superlink.log",),
    ),
)
