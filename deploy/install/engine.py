"""The container engine as the installer sees it: what it is, and whether it has an image. Over its Unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from . import layout
from .machine import Machine
from .talk import BROKEN, Fault

DEFAULT = "unix:///run/docker.sock"
# where an engine keeps what its users gave it; removing a package leaves it, purging one deletes all of it
_KEEPS = ("/var/lib/docker", "/var/lib/containers")
_OTHERS = (
    "/var/lib/docker/containers", "/var/lib/docker/volumes",
    "/var/lib/containers/storage/overlay-containers", "/var/lib/containers/storage/volumes",
)  # fmt: skip
# Podman looks its packages up at the first question, which took a slow machine twenty seconds
_ANSWER_S, _LOAD_S = 60.0, 600.0
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock")


# Docker from 29 on begins with containerd's image store, which names images by their manifests. We name them by their
# configuration: what was verified and approved is then what runs.
DAEMON = "/etc/docker/daemon.json"
CLASSIC_STORE = '{"features": {"containerd-snapshotter": false}}\n'
CLASSIC_CURE = f"write {CLASSIC_STORE.strip()} to {DAEMON}, and restart docker: its images are then given to it anew"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Engine:
    """An engine behind a socket of the machine's."""

    def __init__(self, machine: Machine, url: str) -> None:
        if not url.startswith("unix:///"):
            raise Fault(f"{url} is no engine's socket", "unix:///run/docker.sock is one", 2)
        self.url = url
        self._path = machine.at(url.removeprefix("unix://"))

    def ask(self, path: str) -> dict[str, Any]:
        """One answer of the engine's, or nothing where it does not answer or has no such thing."""
        code, body = self._request("GET", path)
        if code != 200:
            return {}
        with contextlib.suppress(ValueError):
            plain = json.loads(body)
            return plain if isinstance(plain, dict) else {}
        return {}

    def has(self, image: str) -> bool:
        return bool(self.ask(f"/images/{image}/json"))

    def load(self, archive: Path) -> None:
        """Give the engine an archive of an image. Raises `Fault`."""
        with archive.open("rb") as file:
            code, body = self._request("POST", "/images/load?quiet=1", file)
        if code != 200 or b'"error"' in body:
            raise Fault(f"the engine did not take {archive.name} in ({code or 'no answer'})", "is its disk full?")

    def remove(self, image: str) -> None:
        self._request("DELETE", f"/images/{image}?force=1")

    def _request(self, method: str, path: str, body: IO[bytes] | None = None) -> tuple[int, bytes]:
        connection = _Connection(self._path, _LOAD_S if body else _ANSWER_S)
        headers = {"Content-Type": "application/x-tar"} if body else {}
        if body is not None:
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(8 << 20)
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def has_classic_store(info: Mapping[str, Any]) -> bool:
    """Whether an engine names images by their configuration, as far as it says how it keeps them."""
    return "io.containerd.snapshotter" not in json.dumps(info.get("DriverStatus") or [])


def find_engine(machine: Machine) -> str | None:
    """The URL of the first socket behind which an engine answers."""
    for path in _SOCKETS:
        if Engine(machine, f"unix://{path}").ask("/version"):
            return f"unix://{path}"
    return None


def configured_engine(machine: Machine) -> str | None:
    """The URL of the engine that the node's configuration names, where there is one that can be read."""
    try:
        named = tomllib.loads(machine.text(layout.configuration("node")))["engine"]["socket"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) else None


def kept_by_engines(machine: Machine) -> list[str]:
    """The folders of engines that are there, whoever made them."""
    return [each for each in _KEEPS if machine.at(each).exists()]


def kept_for_others(machine: Machine) -> str | None:
    """Where an engine keeps containers or volumes, if one does. Images alone are nobody's loss."""
    for each in _OTHERS:
        folder = machine.at(each)
        if folder.is_dir() and any(inside.is_dir() for inside in folder.iterdir()):
            return each
    return None


def image_of(archive: Path) -> str:
    """The id of the image in an archive: the SHA-256 of its configuration, as the archive's own list names it."""
    try:
        with tarfile.open(archive) as tar:
            listing = tar.extractfile("manifest.json")
            config = str(json.loads(listing.read(1 << 20) if listing else b"")[0]["Config"])
    except (OSError, tarfile.TarError, KeyError, IndexError, ValueError, TypeError):
        raise Fault(f"{archive.name} is no archive of an image", "", BROKEN) from None
    return f"sha256:{config.rpartition('/')[2].removesuffix('.json')}"
