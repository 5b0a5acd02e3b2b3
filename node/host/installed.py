"""What a machine needs for a node or a hub beside the program: files of the system's, users, folders, firewall rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class SystemFile:
    """One file, whole; every one is for everybody to read, and holds no secret."""

    path: Path
    text: str
    mode: str = "0644"


@dataclass(frozen=True)
class SystemUser:
    """Whom a process runs as, and the groups it is in besides its own."""

    process: str
    user: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class SystemFolder:
    path: Path
    user: str
    group: str
    mode: str


@dataclass(frozen=True)
class FirewallRow:
    """One thing that a process needs from the network. What stands in no row is needed by nobody."""

    process: str
    direction: str
    protocol: str
    host: str
    port: int
    why: str


@dataclass(frozen=True)
class Installed:
    """Everything of one node or hub. `units` are the services, in the order in which they start."""

    target: str
    units: tuple[str, ...]
    files: tuple[SystemFile, ...]
    users: tuple[SystemUser, ...]
    folders: tuple[SystemFolder, ...]
    firewall: tuple[FirewallRow, ...]
    warnings: tuple[str, ...] = ()


def system_files(kind: str, users: str, passing: str, logs: str) -> tuple[SystemFile, ...]:
    """The texts for systemd-sysusers, systemd-tmpfiles and logrotate; `kind` is node or hub."""
    return (
        SystemFile(Path(f"/etc/sysusers.d/cloister-{kind}.conf"), users),
        SystemFile(Path(f"/etc/tmpfiles.d/cloister-{kind}.conf"), passing),
        SystemFile(Path(f"/etc/logrotate.d/cloister-{kind}"), logs),
    )


def user_line(user: str, what: str) -> str:
    """A system user without a home, a shell or a password, and a group of the same name."""
    return f'u {user} - "{what}" - -\n'


def log_rules(pattern: str, owner: str) -> str:
    """Kept by what wrote them below 16 MiB as well; here nothing stays longer than eight weeks."""
    return (
        f"{pattern} {{\n  su {owner} {owner}\n  weekly\n  rotate 8\n  nodateext\n  copytruncate\n  compress\n"
        "  delaycompress\n  missingok\n  notifempty\n}\n"
    )
