"""An installation on a server that has no engine, no python3-venv and no network: the bundle brings all of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.machine import eventually
from tests.install.installed import PORT, Node
from tests.install.machine import Machine
from tests.install.roots import System
from tests.install.story import SITE


def install_bare(system: System, bundle: Path, release_key: Path) -> dict[str, Any]:
    with Machine(f"bare-{system.suite}-{os.getpid()}", system, engine=False) as machine:
        node = Node(machine, SITE)
        with machine.path("/etc/hosts").open("a") as file:
            file.write("10.77.0.1 hub.story.test\n")
        inside, key = node.hand(bundle), node.hand(release_key)
        assert machine.run("sh", "-c", "command -v docker podman", check=False).stdout == "", "nothing is there before"
        began = time.monotonic()
        machine.run(
            node.unpacked(inside), "node", "--bundle", inside, "--release-key", key, "--site", SITE, "--yes",
            "--hub", f"hub.story.test:{PORT}", "--committee-key", "11" * 32, "--steward-key", "22" * 32,
            "--source-root", "/srv/pacs", within_s=900,
        )  # fmt: skip
        took = time.monotonic() - began
        eventually(node.active, within_s=60, what="the node's services")
        return {"install_bare_s": round(took, 1)}
