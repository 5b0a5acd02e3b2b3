"""A machine's way out, where a test gives it one: a cable to another machine, or a proxy to package indexes."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.install.machine import Machine

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
PROXY_PORT = 3128


def join(one: Machine, other: Machine, *, network: str = "10.77.0") -> None:
    """A virtual cable between two machines: `.1` and `.2`, each with the other's name in /etc/hosts.

    It goes with either machine, so a reboot takes joining again, as a cable would not.
    """
    ends = ((one, "1"), (other, "2"))
    subprocess.run(
        ["ip", "link", "add", "name", "cable0", "netns", str(one.leader()),
         "type", "veth", "peer", "name", "cable0", "netns", str(other.leader())],
        check=True,
    )  # fmt: skip
    for machine, last in ends:
        machine.run("ip", "address", "add", f"{network}.{last}/24", "dev", "cable0")
        machine.run("ip", "link", "set", "cable0", "up")
    for machine in (one, other):
        hosts = machine.path("/etc/hosts")
        kept = [line for line in hosts.read_text().splitlines() if network not in line] if hosts.exists() else []
        hosts.write_text("\n".join([*kept, *(f"{network}.{last} {each.name}" for each, last in ends)]) + "\n")


def inside(pid: int) -> socket.socket:
    """A listening socket in another process's network, held by this one: a thread goes there and comes back."""
    found: list[socket.socket | OSError] = []

    def go() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(there, NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
            found.append(socket.create_server(("127.0.0.1", PROXY_PORT)))
        except OSError as error:
            found.append(error)
        finally:
            os.close(there)

    thread = threading.Thread(target=go)  # its network namespace ends with the thread
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


@contextmanager
def proxied(machine: Machine) -> Iterator[dict[str, str]]:
    """An HTTP proxy on the machine's own loopback, as many hospitals have one; yields the variables that name it."""
    listening = inside(machine.leader())
    stopping = threading.Event()

    def accept() -> None:
        while not stopping.is_set():
            if select.select([listening], [], [], 0.2)[0]:
                client, _ = listening.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        address = f"http://127.0.0.1:{PROXY_PORT}"
        yield {"http_proxy": address, "https_proxy": address, "HTTP_PROXY": address, "HTTPS_PROXY": address}
    finally:
        stopping.set()
        thread.join()
        listening.close()


def serve(client: socket.socket) -> None:
    """One connection: CONNECT, or a request with a whole address."""
    with client:
        client.settimeout(60)
        try:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 65536:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            verb, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            first = b""
            if verb == "CONNECT":
                host, _, port = target.rpartition(":")
            else:
                where, _, path = target.removeprefix("http://").partition("/")
                host, _, port = where.partition(":")
                rest = head.split(b"\r\n", 1)[1].replace(b"Connection: keep-alive", b"Connection: close")
                first = f"{verb} /{path} {version}\r\n".encode("latin-1") + rest
            with socket.create_connection((host, int(port or 80)), timeout=60) as server:
                if verb == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 connected\r\n\r\n")
                else:
                    server.sendall(first)
                carry(client, server)
        except (OSError, ValueError):
            return  # whoever asked sees a closed connection


def carry(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 120)[0] or [None]:
            data = ready.recv(65536) if ready else b""
            if not data:
                return
            (other if ready is one else one).sendall(data)
