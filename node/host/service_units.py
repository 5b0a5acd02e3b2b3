"""A service unit as a value, and what is written of it: systemd's own words in a fixed order, one reason a line.

Whose processes these are is said elsewhere (`node.host.systemd`, `node.host.hub_systemd`). Each setting is what systemd
252 (Debian 12) knows; `systemd-analyze verify` and `security` are asked in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mediator.errors import UsageFault

# system calls of an ordinary service, without those that need rights of root's, or change whom one runs as, or weigh
# processes against one another; a library that tries one is told EPERM and goes on
_CALLS = ("@system-service", "~@privileged @resources @setuid @keyring @memlock")
# by a prefix that a service's user cannot see: its units hide it
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, to be refused


@dataclass(frozen=True)
class Network:
    """Whom a service may speak to by address. `addresses` None: whoever asks; empty: nobody, in a network of its own.

    `listens` is the one port that it may bind.
    """

    addresses: tuple[str, ...] | None = ()
    listens: int | None = None

    @property
    def private(self) -> bool:
        return self.addresses == () and self.listens is None

    def lines(self) -> Iterator[str]:
        if self.private:
            yield "PrivateNetwork=yes"
            yield "RestrictAddressFamilies=AF_UNIX"
        else:
            yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        if self.addresses is not None:
            yield "IPAddressDeny=any"
            if self.addresses:
                yield f"IPAddressAllow={' '.join(self.addresses)}"
        if self.listens is not None:
            yield f"SocketBindAllow=tcp:{self.listens}"
        yield "SocketBindDeny=any"


@dataclass(frozen=True)
class ServiceUnit:
    """One service unit. Paths are absolute; `writable` is what the whole file system is read-only but for."""

    description: str
    command: tuple[str, ...]
    user: str | None
    groups: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    unit: tuple[str, ...] = ()
    network: Network = Network()
    writable: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    # folders below /home or /run/user, which are hidden else
    shown: tuple[Path, ...] = ()
    credentials: tuple[tuple[str, Path], ...] = ()
    capabilities: tuple[str, ...] = ()
    # of the process itself where it is not root
    ambient: tuple[str, ...] = ()
    shares: bool = False
    changes_users: bool = False
    reads_system: bool = False
    own_users: bool = False
    restart: str = "always"
    restart_s: float = 2.0
    never_again_after: tuple[int, ...] = ()
    umask: int = 0o077
    memory_bytes: int = 1 << 30
    tasks: int = 256
    files: int = 4096
    watchdog_s: int = 60
    start_s: int = 90
    stop_s: float = 6.0

    def text(self) -> str:
        """The unit file."""
        parts = ("[Unit]", *self._unit(), "", "[Service]", *self._service(), "", *self._walls())
        return "\n".join(parts) + "\n"

    def _unit(self) -> Iterator[str]:
        yield f"Description={self.description}"
        yield from self.unit
        # it is tried for ever, as the supervisor does
        yield "StartLimitIntervalSec=0"

    def _service(self) -> Iterator[str]:
        yield "Type=notify"
        yield "NotifyAccess=main"
        yield f"ExecStart={' '.join(map(quoted, self.command))}"
        if self.user is not None:
            yield f"User={self.user}"
        if self.groups:
            yield f"SupplementaryGroups={' '.join(self.groups)}"
        yield from (f"Environment={name}={value}" for name, value in self.environment)
        yield "WorkingDirectory=/"
        yield f"UMask={self.umask:04o}"
        yield f"Restart={self.restart}"
        yield f"RestartSec={self.restart_s:g}"
        if self.never_again_after:
            yield f"RestartPreventExitStatus={' '.join(map(str, self.never_again_after))}"
        yield f"WatchdogSec={self.watchdog_s}"
        yield f"TimeoutStartSec={self.start_s}"
        yield f"TimeoutStopSec={self.stop_s:g}"
        yield f"MemoryMax={self.memory_bytes}"
        yield "MemorySwapMax=0"
        yield f"TasksMax={self.tasks}"
        yield f"LimitNOFILE={self.files}"
        yield "LimitCORE=0"
        # of this one the rest of the line is the path, quotes and blanks included
        yield from (f"LoadCredential={name}:{str(path).replace('%', '%%')}" for name, path in self.credentials)

    def _walls(self) -> Iterator[str]:
        yield "NoNewPrivileges=yes"
        yield f"CapabilityBoundingSet={' '.join(self.capabilities)}"
        yield f"AmbientCapabilities={' '.join(self.ambient)}"
        yield "ProtectSystem=strict"
        yield from (f"ReadWritePaths={_path(path)}" for path in self.writable)
        yield from (f"ReadOnlyPaths={_path(path, '-')}" for path in self.read_only)
        yield from (f"InaccessiblePaths={_path(path, '-')}" for path in self.hidden)
        yield f"ProtectHome={'tmpfs' if self.shown else 'yes'}"
        yield from (f"BindReadOnlyPaths={_path(path, '-')}" for path in self.shown)
        yield "PrivateTmp=yes"
        yield "PrivateDevices=yes"
        yield "DevicePolicy=closed"
        yield "PrivateIPC=yes"
        yield f"PrivateUsers={'yes' if self.own_users else 'no'}"
        yield from self.network.lines()
        yield "ProtectProc=invisible"
        yield f"ProcSubset={'all' if self.reads_system else 'pid'}"
        for kept in ("Clock", "Hostname", "KernelTunables", "KernelModules", "KernelLogs", "ControlGroups"):
            yield f"Protect{kept}=yes"
        yield "RestrictNamespaces=yes"
        yield "RestrictRealtime=yes"
        yield f"RestrictSUIDSGID={'no' if self.shares or self.changes_users else 'yes'}"
        yield "LockPersonality=yes"
        yield "MemoryDenyWriteExecute=yes"
        yield "KeyringMode=private"
        yield "RemoveIPC=yes"
        yield "SystemCallArchitectures=native"
        yield from (f"SystemCallFilter={calls}" for calls in _CALLS)
        if self.changes_users:
            yield "SystemCallFilter=@chown @setuid setgroups setresuid setreuid setuid"
        elif self.shares:
            yield "SystemCallFilter=@chown"
        yield "SystemCallErrorNumber=EPERM"


def target(description: str, members: Sequence[str]) -> str:
    """The unit that stands for all of them: started at boot, and reached when every one has said that it serves."""
    listed = " ".join(members)
    return (
        f"[Unit]\nDescription={description}\nWants={listed}\nAfter={listed}\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def quoted(word: str) -> str:
    """A word of a unit file, in which % and $ stand for something else, and a blank ends it."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(character.isspace() for character in word) else word


def _path(path: Path, flags: str = "") -> str:
    """A path of a unit file, with what stands before it: in quotes where a blank or colon would end it. $ is itself."""
    word = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = not any(character.isspace() or character in "\"\\':" for character in word)
    return f"{flags}{word}" if plain else f'"{flags}{word}"'


def check_named(what: str, path: Path, hint: str) -> None:
    """Raise `UsageFault` for a path that no unit can name, quoted or not."""
    if any(not character.isprintable() for character in str(path)) or str(path) != str(path).strip():
        raise UsageFault(f"{what} {str(path)!r} holds a character that no unit can name", hint=hint)


def check_shown(what: str, path: Path, hint: str) -> None:
    """Raise `UsageFault` for a path that the services would not see, or that no unit can name."""
    if any(path.is_relative_to(folder) for folder in _HIDDEN):
        raise UsageFault(f"{what} {path} is where a service sees nothing of this machine's", hint=hint)
    if any(character.isspace() or character in "\"\\%$':" for character in str(path)):
        raise UsageFault(f"{what} {path!s} holds a character that has a meaning in a unit", hint=hint)
