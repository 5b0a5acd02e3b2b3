"""An installation on a server that has no engine, no python3-venv and no network: the bundle brings all of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.end_to_end.machine import eventually
from tests.install.files import changes
from tests.install.installed import PORT, Node
from tests.install.machine import Machine
from tests.install.roots import System
from tests.install.story import PATIENCE_S, SITE


def install_bare(system: System, bundle: Path, without: Path, release_key: Path) -> dict[str, Any]:
    """`without` is a bundle that brings no Debian package: it is refused there, with the cure."""
    with Machine(f"bare-{system.suite}-{os.getpid()}", system, engine=False) as machine:
        node = Node(machine, SITE)
        with machine.path("/etc/hosts").open("a") as file:
            file.write("10.77.0.1 hub.story.test\n")
        inside, key, poor = node.hand(bundle), node.hand(release_key), node.hand(without)
        assert machine.run("sh", "-c", "command -v docker podman", check=False).stdout == "", "nothing is there before"
        answers = ("--release-key", key, "--site", SITE, "--yes", "--hub", f"hub.story.test:{PORT}", "--committee-key",
                   "11" * 32, "--steward-key", "22" * 32, "--source-root", "/srv/pacs")  # fmt: skip
        before = changes(machine)
        refused = machine.run(node.unpacked(poor), "node", "--bundle", poor, *answers, check=False)
        assert refused.returncode == 5 and "engine: none answers" in refused.stderr, refused
        assert "apt-get install docker.io" in refused.stderr and changes(machine) == before, refused
        (machine.folder / "shared" / without.name).unlink()
        began = time.monotonic()
        machine.run(node.unpacked(inside), "node", "--bundle", inside, *answers, within_s=1800)
        took = time.monotonic() - began
        eventually(node.active, within_s=PATIENCE_S, what="the node's services")
        driver = machine.run("docker", "info", "--format", "{{.DriverStatus}}").stdout
        assert "io.containerd.snapshotter" not in driver, "what the bundle brings names images as we do"
        return {"install_bare_s": round(took, 1), "bare_refused_ok": True}
