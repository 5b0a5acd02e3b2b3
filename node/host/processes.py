"""The one table of a node's processes.

Whatever has to be made for a process is derived from its row: its user and groups, its folders, the sockets it is known
to be ready by, its place under the supervisor (`node.host.supervisor`), its service unit and its firewall rows
(`node.host.systemd`). A process that is added here is installed with the next version.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mediator.errors import UsageFault
from mediator.roles import Role

# what core is told when the state folder was changed under the running node: it writes that down, and ends
STATE_CHANGED = signal.SIGUSR1

# What a process reaches besides its own files and the sockets of others in the state folder.
#   nothing   no network and no file of others'
#   sources   the folders of `[intake] source_roots`, to read
#   engine    the container engine's socket
#   hub       the hub, one host and port, outbound
Reach = Literal["nothing", "sources", "engine", "hub"]


@dataclass(frozen=True)
class Room:
    """A folder below the state folder that one process writes, and nobody else.

    `reader` is the process that may read it, by its group; what appears in it gets that group. `mode` says otherwise
    where others must pass it or look.
    """

    path: str
    reader: str = ""
    mode: int | None = None


@dataclass(frozen=True)
class Process:
    """One process of a node, as far as whoever installs it must know.

    `reads` and `fills`: rooms of others that it opens, and those that it also writes in by its group. `sockets`: what
    it serves, below the state folder. `groups_of`: processes whose groups it is in, since it gives them its sockets and
    reads by them. `serves_staff`: it is in the staff's groups as well. `gives_jobs`: in the group that jobs read by.
    `writes_run`: it makes sockets in `run/`. `shares`: it makes folders that hand on their group (the bit 02000), or
    gives files to a group of its own. `reads_system`: it reads of /proc more than processes.
    """

    name: str
    reach: Reach = "nothing"
    rooms: tuple[Room, ...] = ()
    reads: tuple[str, ...] = ()
    fills: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    groups_of: tuple[str, ...] = ()
    serves_staff: bool = False
    gives_jobs: bool = False
    writes_run: bool = False
    shares: bool = False
    reads_system: bool = False
    # the most memory of it and its children, and the longest it may be silent before it is taken for dead
    memory_bytes: int = 1 << 30
    memory_per_worker_bytes: int = 0
    tasks: int = 256
    watchdog_s: int = 60
    # how long a start may take (a database is migrated in it), how long an end, and how soon it is started again
    start_s: int = 90
    stop_s: float = 6.0
    restart_s: float = 2.0
    # it ends after the others, which need it to end well, and starts before them
    outlives: bool = False
    # it is told by STATE_CHANGED before the node ends for a changed state folder
    records_changes: bool = False

    @property
    def home(self) -> str:
        """The folder below the state folder that HOME names."""
        return self.rooms[0].path if self.rooms else "."

    @property
    def unit(self) -> str:
        """Its service unit, where the system's service manager runs the node."""
        return f"cloister-{self.name}.service"

    @property
    def default_user(self) -> str:
        """Its system user where the node has separate users and `[users]` says nothing of this one."""
        return f"cloister-{self.name}"


# In the order in which they are started. Memory: a model has at most 1 GiB (`mediator.sizes`), of which core and link
# hold a few copies while they take it apart; a worker of intake's has 0.6 GB and a reader beside it as much
# (`node.deid.limits`).
PROCESSES: tuple[Process, ...] = (
    Process(
        "broker",
        reach="engine",
        rooms=(
            Room("broker", mode=0o711),
            Room("broker/probe", mode=0o755),
            # the engine goes there as root: whoever owned a folder on the way would choose what is mounted
            Room("work", reader="core"),
            Room("run/broker", reader="core", mode=0o2711),
        ),
        sockets=("run/broker/broker.sock",),
        shares=True,
        reads_system=True,  # which boot a container is of
        watchdog_s=180,  # an engine that hangs is waited for so long
        stop_s=2.0,
        outlives=True,  # core ends its containers through it
    ),
    Process(
        "core",
        rooms=(
            Room("core"),
            Room("keys"),
            Room("audit"),
            Room("witness"),
            Room("datasets"),
            Room("releases"),
            Room("jobs"),
            Room("spool", reader="link"),
        ),
        reads=("handover",),
        fills=("work",),
        shares=True,
        sockets=("run/link.sock", "run/intake.sock", *(f"run/{role.value}.sock" for role in Role)),
        groups_of=("link", "intake"),
        serves_staff=True,
        gives_jobs=True,
        writes_run=True,
        memory_bytes=8 << 30,
        watchdog_s=180,
        start_s=3600,
        records_changes=True,
    ),
    Process(
        "intake",
        reach="sources",
        rooms=(Room("intake"), Room("intake/quarantine"), Room("intake/keys"), Room("handover", reader="core")),
        memory_bytes=2 << 30,
        memory_per_worker_bytes=2 << 30,
        tasks=1024,
        watchdog_s=120,
    ),
    Process(
        "link",
        reach="hub",
        rooms=(Room("link"),),
        reads=("spool",),
        memory_bytes=6 << 30,
        restart_s=10.0,  # a site that is not enrolled yet has nothing to do in haste
    ),
)
ROLES = tuple(process.name for process in PROCESSES)


def named(name: str, processes: Sequence[Process] = PROCESSES) -> Process:
    """A process by its name. Raises `UsageFault` for one that the table does not have."""
    for process in processes:
        if process.name == name:
            return process
    raise UsageFault(f"there is no process {name}", hint=f"one of {', '.join(each.name for each in processes)}")


def sockets(root: Path, processes: Sequence[Process] = PROCESSES) -> Iterator[Path]:
    """Every socket that is served once the node is ready."""
    return (root / socket for process in processes for socket in process.sockets)
