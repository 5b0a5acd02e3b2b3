"""An installed node and an installed hub, each in its machine, spoken to as their operators would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.machine import eventually
from tests.install.machine import Machine

COMMAND = "/usr/local/bin/cloister"
INSTALLER = "/opt/cloister/current/install.sh"
HUB_USER = "cloister-hub"
PORT = 8443
LARGE = 1 << 20
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
        target.unlink(missing_ok=True)
        if file.stat().st_size > LARGE and file.stat().st_dev == target.parent.stat().st_dev:
            target.hardlink_to(file)  # a bundle has half a gigabyte, and is read alone
        else:
            shutil.copyfile(file, target)
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

    def run(self, *words: str | Path, check: bool = True, stdin: str = "") -> Done:
        return self.machine.run(
            "runuser", "-u", HUB_USER, "--", COMMAND, "hub", *words, "--config", self.config, check=check, stdin=stdin
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
        """One command each side: the node shows six words, which the hub's operator types. Seconds until connected."""
        began, said = time.monotonic(), self.machine.path("/root/enrol.said")
        command = f"{COMMAND} node enrol --config {self.config}"
        with ThreadPoolExecutor(1) as pool:
            enrolling = pool.submit(self.machine.shell, f"{command} 2>/root/enrol.said")

            def shown() -> str | None:
                found = re.search(r"^    ([a-z]+(?:[ -][a-z]+){5})$", said.read_text() if said.exists() else "", re.M)
                if found is None and enrolling.done():
                    raise AssertionError(f"no words were shown: {said.read_text() if said.exists() else ''}")
                return found.group(1) if found else None

            words = eventually(shown, within_s=120, what="the six words")
            hub.run("node", "approve", "--site", self.site, stdin=f"{words}\n")
            enrolling.result()
        eventually(self.connected, within_s=300, what="the node's connection to the hub")
        return time.monotonic() - began
