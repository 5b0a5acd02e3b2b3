"""Where everything stands in a node's state folder. Owners and modes are in `node.host.state`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node.host.processes import sockets

# sockaddr_un holds 108 bytes with the closing NUL (unix(7))
MAX_SOCKET_BYTES = 107


@dataclass(frozen=True)
class StatePaths:
    """The state folder, by name. Whose each folder is stands beside it."""

    root: Path

    # --- core

    @property
    def core(self) -> Path:
        """What core writes beside its folders. The state folder itself is not core's: it holds everybody's."""
        return self.root / "core"

    @property
    def database(self) -> Path:
        return self.core / "node.db"

    @property
    def pause_mark(self) -> Path:
        """There while the node is paused, whatever the database says."""
        return self.core / "paused"

    @property
    def reserve(self) -> Path:
        """Room for the last records on a full disk. On the disk of the database."""
        return self.core / "reserve"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def audit_key(self) -> Path:
        return self.keys / "audit.key"

    @property
    def release_key(self) -> Path:
        return self.keys / "release.key"

    @property
    def verdict_key(self) -> Path:
        return self.keys / "verdict.key"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def audit_keys(self) -> Path:
        """Public: the node's audit key and the hub's witness keys, for whoever checks the log."""
        return self.root / "audit-keys.txt"

    @property
    def witness_file(self) -> Path:
        return self.root / "witness" / "witness.jsonl"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def jobs(self) -> Path:
        """Models and outputs of tasks until they are released."""
        return self.root / "jobs"

    @property
    def work(self) -> Path:
        """The broker's first mount root: `<sandbox>/data` and `<sandbox>/in`, made by the broker, filled by core."""
        return self.root / "work"

    @property
    def spool(self) -> Path:
        """Written by core, read by the link."""
        return self.root / "spool"

    # --- link

    @property
    def link(self) -> Path:
        return self.root / "link"

    # --- intake

    @property
    def intake(self) -> Path:
        return self.root / "intake"

    @property
    def quarantine(self) -> Path:
        return self.intake / "quarantine"

    @property
    def quarantine_key(self) -> Path:
        return self.intake / "keys" / "quarantine.key"

    @property
    def site_key(self) -> Path:
        return self.intake / "keys" / "site.key"

    @property
    def handover(self) -> Path:
        """Written by intake, read by core."""
        return self.root / "handover"

    # --- broker

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def probe(self) -> Path:
        """The broker's second mount root: the canary's own data."""
        return self.broker / "probe"

    @property
    def verdict_public_key(self) -> Path:
        """The broker's own copy of the key that signs container specs."""
        return self.broker / "verdict.key.pub"

    # --- sockets and logs

    @property
    def run(self) -> Path:
        return self.root / "run"

    def staff_socket(self, role: str) -> Path:
        """Core's socket for the staff in one role (`mediator.roles.Role`)."""
        return self.run / f"{role}.sock"

    @property
    def link_socket(self) -> Path:
        return self.run / "link.sock"

    @property
    def intake_socket(self) -> Path:
        return self.run / "intake.sock"

    @property
    def broker_socket(self) -> Path:
        """In a folder of its own, where the broker may write and core may look."""
        return self.run / "broker" / "broker.sock"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Every socket that a node's processes bind."""
        return tuple(sockets(self.root))

    @property
    def supervisor_pid(self) -> Path:
        return self.root / "supervisor" / "supervisor.pid"

    @property
    def logs(self) -> Path:
        """One file for each process, written by the supervisor."""
        return self.root / "logs"
