"""python -m tests.bench.ports: the table of ports in deploy/docs/install.md, made of the two tables of processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from federation.hub import config as hub_config
from node.host.config import load_config
from node.host.hub_systemd import HubMachine
from node.host.hub_systemd import units as hub_units
from node.host.installed import Installed
from node.host.systemd import Machine, units

KEY = "1" * 64
RESOLVERS = "your resolvers"
HEAD = ("machine", "process", "direction", "port", "whom", "why")
NODE = f"""site = "st-anna"
state_dir = "/var/lib/cloister/node"
[hub]
host = "the hub"
port = 8443
[trust]
committee = ["{KEY}"]
stewards = ["{KEY}"]
hub = ["{KEY}"]
witnesses = ["{KEY}"]
[users]
core = "cloister-core"
intake = "cloister-intake"
broker = "cloister-broker"
link = "cloister-link"
[engine]
sentinel = "sha256:{"5" * 64}"
[intake]
source_roots = ["/srv"]
"""
HUB = f"""version = 1
name = "north"
state_dir = "/var/lib/cloister/hub"
[ingress]
port = 8443
hosts = ["hub.test"]
[trust]
committee_keys = ["{KEY}"]
"""
# what no process of ours does: the installer, once
BY_HAND = ("node, hub", "installer", "out", "TCP 443", "the package index", "an online installation or upgrade only")


def installed() -> dict[str, Installed]:
    """A node and a hub as they are installed when nothing is said of ports."""
    python = Path("/opt/cloister/current/venv/bin/python")
    with tempfile.TemporaryDirectory() as folder:
        node, hub = Path(folder) / "node.toml", Path(folder) / "hub.toml"
        node.write_text(NODE)
        hub.write_text(HUB)
        machine = Machine(python, Path("/etc/cloister/node.toml"), lambda _host: ("192.0.2.7",), resolvers=(RESOLVERS,))
        hubs = HubMachine(python, Path("/etc/cloister/hub.toml"), "cloister-hub")
        return {"node": units(load_config(node), machine), "hub": hub_units(hub_config.load_config(hub), hubs)}


def rows() -> Iterator[tuple[str, ...]]:
    """A row for each thing that a process needs of the network, and one for those that need nothing."""
    for machine, made in installed().items():
        for row in made.firewall:
            whom = "the hospitals" if row.direction == "in" else row.host
            yield (machine, row.process, row.direction, f"{row.protocol.upper()} {row.port}", whom, row.why)
        for direction in ("in", "out"):
            silent = [
                unit.removeprefix("cloister-").removesuffix(".service")
                for unit in made.units
                if not any(
                    f"cloister-{row.process}.service" == unit for row in made.firewall if row.direction == direction
                )
            ]
            if silent:
                yield (machine, ", ".join(silent), direction, "none", "nobody", "")
    yield BY_HAND


def table() -> str:
    """As it stands in the manual."""
    lines = [HEAD, ("---",) * len(HEAD), *rows()]
    return "\n".join("| " + " | ".join(line) + " |" if line[0] != "---" else "|" + "---|" * len(HEAD) for line in lines)


if __name__ == "__main__":
    print(table())
