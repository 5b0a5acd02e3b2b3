"""An installation from the tree and a package index, through a proxy on the machine's own loopback."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.install.installed import Hub
from tests.install.machine import Machine
from tests.install.network import proxied
from tests.install.releases import REPOSITORY
from tests.install.roots import CannotMake, System

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def install_online(system: System) -> dict[str, Any]:
    """A hub out of a checkout. Raises `CannotMake` where no index is reached from here."""
    with Machine(f"online-{system.suite}-{os.getpid()}", system) as machine:
        hub = Hub(machine)
        tree = machine.folder / "shared" / "tree"
        tree.mkdir()
        packed = subprocess.run(["git", "-C", str(REPOSITORY), "archive", "HEAD"], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=True)
        machine.put(AUTHORITIES, AUTHORITIES)  # a proxy may open TLS with an authority of the house
        with proxied(machine) as variables:
            began = time.monotonic()
            done = machine.run(
                "/mnt/tree/deploy/install.sh", "hub", "--name", "online-hub", "--host", "hub.story.test", "--yes",
                "--committee-key", "11" * 32, environment=variables, within_s=1800, check=False,
            )  # fmt: skip
            if "the package index cannot be reached" in done.stderr:
                raise CannotMake("no package index answers from here")
            assert done.returncode == 0, done.stderr[-3000:]
            took = time.monotonic() - began
        assert hub.active(), hub.journal()
        return {"install_online_s": round(took, 1)}
