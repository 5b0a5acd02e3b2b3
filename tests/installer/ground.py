"""A machine below a folder: its files, its programs, an engine behind a socket, and a product's versions."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.install.engine import Engine
from deploy.install.journal import read_installed
from deploy.install.machine import Machine
from deploy.install.main import install_from, parser
from deploy.install.sources import Source

HERE = Path(__file__).parent
SENTINEL_ID = f"sha256:{'5' * 64}"
KEY = "ab" * 32
ANSWERS = (
    "--site", "st-anna", "--hub", "127.0.0.1:9", "--committee-key", KEY, "--steward-key", "cd" * 32,
    "--source-root", "/srv/export",
)  # fmt: skip
HUB_ANSWERS = ("--name", "north", "--host", "hub.north.test", "--port", "18443", "--committee-key", KEY)

_PROGRAMS = (
    "systemctl", "systemd-sysusers", "systemd-tmpfiles", "userdel", "groupdel", "dpkg", "dpkg-query", "timedatectl",
)  # fmt: skip
_FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/passwd": "root:x:0:0::/root:/bin/bash\n",
    "etc/group": "root:x:0:\n",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
    "proc/self/mounts": "/dev/vda1 / ext4 rw,relatime 0 0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/module/apparmor/parameters/enabled": "Y\n",
    "proc/sys/user/max_user_namespaces": "1000\n",
}


def build(root: Path) -> Machine:
    """A Debian 12 with systemd and nothing of ours."""
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for folder in (
        "usr/bin",
        "run/lock",
        "opt",
        "var/lib",
        "var/tmp",
        "etc/systemd/system",
        "usr/local/bin",
        "var/log",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("var/log", "etc/sysusers.d", "etc/tmpfiles.d", "etc/logrotate.d", "fake/active", "fake/enabled"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in _PROGRAMS:
        program(root, name)
    return Machine(root)


def program(root: Path, name: str) -> None:
    write_script(root / "usr/bin" / name, (HERE / "programs.py.txt").read_text().replace("@ROOT@", str(root)))


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -ISB\n{text}")
    path.chmod(0o755)


def product(root: Path, version: str) -> str:
    text = (HERE / "product.py.txt").read_text()
    return text.replace("@ROOT@", str(root)).replace("@VERSION@", version)


def version_of(root: Path, version: str) -> Source:
    """A version that is put in place at once: no package, one script."""

    def fill(_machine: Machine, venv: Path) -> None:
        write_script(venv / "bin" / "cloister", product(root, version))

    def sentinel(_machine: Machine, engine: Engine, _program: Path) -> str:
        engine.load(root / "usr/bin/systemctl")  # any file will do for an engine that reads none
        return SENTINEL_ID

    return Source(
        version, True, f"{version}, of a test", HERE.parents[1] / "deploy", fill, sentinel, sentinel_id=SENTINEL_ID
    )


def put(machine: Machine, version: str, *words: str, role: str = "node") -> None:
    """`install.sh ROLE`, with the answers of a hospital."""
    answers = ANSWERS if role == "node" else HUB_ANSWERS
    kept = machine.at(f"/etc/cloister/{role}.toml").exists()
    options = parser().parse_args([role, *(() if kept else answers), *words])
    install_from(machine, options, version_of(machine.root, version), read_installed(machine))


def calls(machine: Machine) -> list[str]:
    """What the product was asked, in order."""
    path = machine.at("/fake/calls")
    return path.read_text().splitlines() if path.exists() else []


def running(machine: Machine) -> set[str]:
    return {each.name for each in machine.at("/fake/active").iterdir()}


def snapshot(root: Path) -> dict[str, str]:
    """Everything of a machine: kind, mode and content. What the test's own programs keep is no part of it."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith(("run/", "fake/programs", "fake/calls", "fake/kill", "fake/jobs")) or path.is_socket():
            continue
        if path.is_symlink():
            found[name] = f"link {os.readlink(path)}"
        elif path.is_dir():
            found[name] = f"folder {path.stat().st_mode:o}"
        else:
            found[name] = f"file {path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


class _Asked(http.server.BaseHTTPRequestHandler):
    """As much of an engine as the installer asks."""

    images: set[str]
    version: str
    store: str = "overlay2"
    # further answers, by path
    more: Mapping[str, object] = {}

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, code: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        name = self.path.removeprefix("/images/").removesuffix("/json")
        if self.path in self.more:
            self._answer(200, self.more[self.path])
        elif self.path == "/version":
            self._answer(200, {"Version": self.version, "Components": [{"Name": "Engine"}]})
        elif self.path == "/info":
            kept = [["driver-type", self.store]]
            self._answer(200, {"Runtimes": {"runc": {}}, "SecurityOptions": [], "DriverStatus": kept})
        elif name in self.images:
            self._answer(200, {"Id": SENTINEL_ID})
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.images |= {SENTINEL_ID}  # and no name: not every archive has one
        self._answer(200, {"stream": "Loaded"})

    def do_DELETE(self) -> None:
        name = self.path.removeprefix("/images/").partition("?")[0]
        self._answer(200 if name in self.images else 404, {})
        self.images.discard(name)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def engine(
    root: Path, version: str = "20.10.24", at: str = "run/docker.sock", more: Mapping[str, object] | None = None,
    store: str = "overlay2",
) -> Iterator[set[str]]:  # fmt: skip
    """An engine behind the machine's socket; the names of the images that it has. `more`: its answers, by path."""
    images: set[str] = set()
    handler = type("Asked", (_Asked,), {"images": images, "version": version, "more": more or {}, "store": store})
    path = root / at
    path.parent.mkdir(parents=True, exist_ok=True)
    server = _Server(str(path), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield images
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        path.unlink()
