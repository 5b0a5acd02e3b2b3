"""A second dockerd, for tests that kill, freeze, fill or configure an engine: the one that others use is left alone.

Everything it writes lies in a memory file system of a few hundred MB, so that its disk can be filled too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.containers.bench import ENGINE_URL, REPO

READY_S = 60.0
IMAGES = ("cloister-sentinel:latest", "cloister-attacker:latest")
DISK = "size=640m"


class Spare:
    """A dockerd of the tests' own, with its own folders, socket, containerd and control group."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any] | None = None, programs: tuple[Path, ...] = ()
    ) -> None:
        """`programs` are folders in which its own programs are looked for first."""
        self.folder = folder
        self._path = os.pathsep.join((*map(str, programs), os.environ["PATH"]))
        self.socket = folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.disk = folder / "disk"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"{DISK},mode=0711", "none", self.disk], check=True)
        (folder / "daemon.json").write_text(json.dumps(settings or {}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with whatever containers it had, and wait until it answers."""
        command = [
            "dockerd", f"--config-file={self.folder / 'daemon.json'}", f"--data-root={self.disk}",
            f"--exec-root={self.folder / 'exec'}", f"--host={self.url}", f"--pidfile={self.folder / 'pid'}",
            "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
            f"--cgroup-parent=/cloister-spare-{os.getpid()}",
        ]  # fmt: skip
        (self.folder / "pid").unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            # env(1), for it looks for dockerd in the PATH that it sets
            command = ["env", f"PATH={self._path}", *command]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while not self.answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def answers(self) -> bool:
        ping = ["python3", REPO / "deploy/lib/ping.py", self.socket]
        return self.socket.exists() and subprocess.run(ping, check=False, timeout=20).returncode == 0

    def load(self) -> None:
        """Take the images over from the engine that has them, by their ids."""
        with subprocess.Popen(["docker", "-H", ENGINE_URL, "save", *IMAGES], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "-H", self.url, "load", "--quiet"], stdin=save.stdout, check=True, capture_output=True
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; after one that ends it, wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._process.wait(60)
            self._end_containerd(number)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        subprocess.run(["umount", "--recursive", self.disk], check=True)

    def _end_containerd(self, number: signal.Signals) -> None:
        """A killed dockerd leaves its containerd behind, and the next one would find another's process number."""
        file = self.folder / "exec" / "containerd" / "containerd.pid"
        if number != signal.SIGKILL or not file.exists():
            return
        pid = int(file.read_text())
        if Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text().strip() == "containerd":
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        file.unlink(missing_ok=True)
