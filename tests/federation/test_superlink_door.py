"""Another user of the hub's machine at the SuperLink: its Control and Runtime APIs ask nobody for a credential."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.federation.ground import Town, found
from tests.sim.users import NOBODY, as_user

# any number that is nobody's here
HUB_USER = 61_234

# What an intruder runs: the requests need no library of ours, and no credential.
INTRUDER = """
import json, socket, sys
path, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
found = {}
for name in [path, *ports]:
    for call in ("control/list-runs", "control/stop-run", "runtime/acquire-task"):
        try:
            door = socket.socket(socket.AF_UNIX if name == path else socket.AF_INET)
            door.settimeout(5)
            door.connect(path if name == path else ("127.0.0.1", name))
            head = f"POST /v1/{call} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
            head += "Content-Type: application/protobuf\\r\\nContent-Length: 0\\r\\n\\r\\n"
            door.sendall(head.encode())
            found[f"{name} {call}"] = door.recv(20).decode("ascii", "replace").split("\\r")[0]
        except OSError as error:
            found[f"{name} {call}"] = type(error).__name__
print(json.dumps(found))
"""


@pytest.fixture
def town() -> Iterator[Town]:
    if os.geteuid() != 0:
        pytest.skip("takes root, to become others")
    # a folder that anybody may look into: what keeps others out is the hub's own
    root = Path(tempfile.mkdtemp(prefix="town-"))
    root.chmod(0o755)
    town = found(root)
    # as a killed hub leaves one, or somebody who was there before: the new one is the hub's, and closed
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(town.config.state_dir / "superlink.stale"))
    left = town.config.state_dir / "superlink"
    left.mkdir()
    (town.config.state_dir / "superlink.stale").rename(left / "superlink.sock")
    (left / "superlink.sock").chmod(0o666)
    for path in (root, *root.rglob("*")):
        os.chown(path, HUB_USER, HUB_USER)
    town.start(uid=HUB_USER)
    yield town
    town.stop()
    shutil.rmtree(root)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ports(pid: int) -> set[int]:
    """The TCP ports that a process listens at."""
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in held}


def intrude(uid: int, path: Path, *tried: int) -> dict[str, Any]:
    command = as_user([sys.executable, "-c", INTRUDER, str(path), *map(str, tried)], uid)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def test_another_user_neither_lists_nor_stops_flower_runs(town: Town) -> None:
    assert town.process is not None
    hub, folder = town.process.pid, town.config.state_dir / "superlink"
    (superlink,) = children(hub)
    assert ports(superlink) == set() and ports(hub) == {town.config.ingress.port}
    door = folder / "superlink.sock"
    assert door.stat().st_mode & 0o777 == 0o600 and door.stat().st_uid == HUB_USER
    own = intrude(HUB_USER, door)
    assert own[f"{door} control/list-runs"] == "HTTP/1.1 200 OK", "nothing but the socket's owner keeps anybody out"
    for uid in (NOBODY, HUB_USER + 1):
        said = intrude(uid, door, town.config.ingress.port)
        assert {
            said[f"{door} {call}"] for call in ("control/list-runs", "control/stop-run", "runtime/acquire-task")
        } == {"PermissionError"}
        assert not [answer for answer in said.values() if "200" in answer]
    # the folders opened by a careless hand: the socket is closed by itself
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    assert set(intrude(NOBODY, door).values()) == {"PermissionError"}
