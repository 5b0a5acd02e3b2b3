"""An installed node and an installed hub, each in its machine, spoken to as their operators would."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.machine import eventually
from tests.install.machine import Machine

COMMAND = "/usr/local/bin/cloister"
INSTALLER = "/opt/cloister/current/install.sh"
HUB_USER = "cloister-hub"
PORT = 8443
Done = subprocess.CompletedProcess[str]


@dataclass
class Installed:
    """A role on a machine. `shared` is the machine's /mnt, where this machine lays files down for it."""

    machine: Machine
    role: str

    @property
    def config(self) -> str:
        return f"/etc/cloister/{self.role}.toml"

    def hand(self, file: Path) -> str:
        """Lay a file where the machine finds it; its path inside."""
        target = self.machine.folder / "shared" / file.name
        target.write_bytes(file.read_bytes())
        target.chmod(0o644)
        return f"/mnt/{file.name}"

    def unpacked(self, bundle: str) -> str:
        """`install.sh` out of a bundle, as whoever has nothing else gets it: a bundle is a plain tar."""
        into = f"/tmp/{Path(bundle).stem}"  # the machine's own
        self.machine.shell(
            f"mkdir -p {into} && tar -xf {bundle} -C {into} --wildcards install.sh 'install/*' release-keys.txt"
        )
        return f"{into}/install.sh"

    def units(self) -> list[str]:
        """Every unit of ours that stands installed."""
        said = self.machine.shell("cd /etc/systemd/system && ls cloister-*.service 2>/dev/null", check=False).stdout
        return said.split()

    def exposure(self) -> dict[str, float]:
        """`systemd-analyze security`, per unit."""
        found = {}
        for unit in self.units():
            said = self.machine.run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
            if match := re.search(r"Overall exposure level for \S+: ([0-9.]+)", said):
                found[unit] = float(match.group(1))
        return found

    def active(self) -> bool:
        """Every service of ours runs."""
        units = self.units()
        return bool(units) and self.machine.run("systemctl", "is-active", *units, check=False).returncode == 0

    def version(self) -> str:
        return Path(self.machine.run("readlink", "/opt/cloister/current").stdout.strip()).name

    def journal(self) -> str:
        return self.machine.shell("journalctl --no-pager -u 'cloister-*' | tail -60", check=False).stdout


class Hub(Installed):
    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, "hub")

    def run(self, *words: str | Path, check: bool = True) -> Done:
        return self.machine.run(
            "runuser", "-u", HUB_USER, "--", COMMAND, "hub", *words, "--config", self.config, check=check
        )

    def public_key(self, purpose: str) -> str:
        """What its operator reads to the hospitals."""
        return self.machine.run("cat", f"/var/lib/cloister/hub/keys/{purpose}.pub").stdout.strip()

    def ended(self, run: str, *, within_s: float) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            shown: dict[str, Any] = json.loads(self.run("run", "show", run, "--json").stdout)
            return shown if shown["state"] in ("done", "stopped") else None

        return eventually(over, within_s=within_s, what=f"the end of {run}")


class Node(Installed):
    def __init__(self, machine: Machine, site: str) -> None:
        super().__init__(machine, "node")
        self.site = site

    def run(self, *words: str | Path, check: bool = True) -> Done:
        return self.machine.run(COMMAND, "node", *words, "--config", self.config, check=check)

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def connected(self) -> bool:
        said = self.run("status", "--json", check=False)
        return said.returncode == 0 and json.loads(said.stdout)["hub"]["connected"] is True

    def enrol(self, hub: Hub) -> float:
        """By two files, the id read out; seconds until the node is connected."""
        began = time.monotonic()
        request = self.json("enrol", "request", "--out", "/root/request.json")["request_id"]
        self.machine.get("/root/request.json", hub.machine.folder / "shared" / "request.json")
        hub.machine.shell(f"install -o {HUB_USER} -m 0600 /mnt/request.json /tmp/request.json")
        hub.run("node", "approve", "/tmp/request.json", "--request-id", request, "--out", "/tmp/bundle.json")
        hub.machine.get("/tmp/bundle.json", self.machine.folder / "shared" / "bundle.json")
        self.run("enrol", "install", "/mnt/bundle.json")
        eventually(self.connected, within_s=60, what="the node's connection to the hub")
        return time.monotonic() - began
