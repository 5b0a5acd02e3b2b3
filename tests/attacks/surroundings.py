"""What an attack must leave as it was: another job and its files, the machine's own settings, the task's data."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from containers.broker import Broker
from containers.engine import ContainerEngine
from tests.containers.bench import MODEL, Bench, by_name, until

SECRET = "Mrs. Smith, born 4 July 1950"  # what the other job holds, and no attack may find
SETTINGS = ("kernel/hostname", "kernel/domainname", "kernel/core_pattern", "net/ipv4/ip_forward")


@dataclass
class Surroundings:
    """A second job beside the attacked one, in the middle of its work, and a look at everything around."""

    bench: Bench
    broker: Broker
    before: dict[str, object] = field(default_factory=dict)

    @classmethod
    def beside(cls, bench: Bench, broker: Broker) -> Surroundings:
        broker.prepare(bench.sign(bench.spec("other")))
        secret = bench.root / "work" / "other" / "data" / "secret.txt"
        secret.write_text(SECRET)
        secret.chmod(0o644)
        bench.give("other", 1)
        until(broker.execute("other"), "done")
        made = cls(bench, broker)
        made.before = made.look()
        return made

    def look(self) -> dict[str, object]:
        engine = ContainerEngine(self.bench.url)
        other = {one.role: engine.inspect(one.id) or {} for one in engine.containers(self.bench.site.site, "other")}
        return {
            "other job": {role: (made["Id"], made["State"]["Pid"]) for role, made in other.items()},
            "data": files_of(self.bench.root / "work" / "job" / "data"),
            "other's data": files_of(self.bench.root / "work" / "other"),
            "settings": [Path("/proc/sys", name).read_text() for name in SETTINGS],
            "host": socket.gethostname(),
            "mounts": sorted(line.split()[1] for line in mounts() if str(self.bench.root) in line),
            "keys": own_keys(),
        }

    def unchanged(self) -> None:
        """Nothing moved, and the other job's answer is still its own."""
        assert self.look() == self.before
        assert by_name(self.broker.finalise("other", 1))["model.safetensors"] == MODEL


@contextmanager
def nothing_else_changes(bench: Bench, broker: Broker) -> Iterator[Surroundings]:
    around = Surroundings.beside(bench, broker)
    yield around
    around.unchanged()


def files_of(folder: Path) -> dict[str, tuple[str, int, int, float]]:
    """Content, mode, owner and time of each file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), *os.stat(path)[0:5:4], path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def own_keys() -> list[str]:
    """The keys that this machine's kernel shows to us."""
    path = Path("/proc/keys")
    return (
        sorted(line.split()[8] for line in path.read_text().splitlines() if "patient" in line) if path.exists() else []
    )
