"""Proof that a real part refused: a record in a node's own audit log, or the alert on a real TLS connection."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TLS_WITHIN_S = 10.0


@dataclass(frozen=True)
class Refused:
    """A refusal as the node wrote it down."""

    site: str
    sequence: int
    code: str
    action: str

    def plain(self) -> dict[str, object]:
        return {"site": self.site, "audit_sequence": self.sequence, "action": self.action, "code": self.code}


def records(audit_dir: Path, after: int = -1) -> Iterator[dict[str, object]]:
    """The audit records of a folder with a sequence number above `after`, in order.

    A line that the node is still writing has no end yet and is left for the next look.
    """
    for segment in sorted(audit_dir.glob("segment-*.jsonl")):
        for line in segment.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            record: dict[str, object] = json.loads(line)
            if _sequence(record) > after:
                yield record


def last_sequence(audit_dir: Path) -> int:
    """The newest record's number, -1 for an empty log."""
    return max((_sequence(record) for record in records(audit_dir)), default=-1)


def find_refusal(
    site: str, found: Iterable[dict[str, object]], codes: Iterable[str], about: str = ""
) -> Refused | None:
    """The first record that says *refused* with one of `codes`, of an object whose name begins with `about`."""
    wanted = set(codes)
    for record in found:
        named = str(record.get("object", "")).startswith(about)
        if named and record.get("verdict") == "refused" and record.get("code") in wanted:
            return Refused(site, _sequence(record), str(record["code"]), str(record.get("action", "")))
    return None


def find_done(found: Iterable[dict[str, object]], action: str) -> int | None:
    """The number of the first record that says `action` was done."""
    for record in found:
        if record.get("action") == action and record.get("verdict") == "done":
            return _sequence(record)
    return None


def wait_for(look: Callable[[], Refused | None], *, within_s: float) -> Refused | None:
    """Look again and again until there is evidence or time is up."""
    deadline = time.monotonic() + within_s
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def alert_without_certificate(host: str, port: int, ca_file: Path) -> str:
    """What TLS says to a client that trusts the hub's CA and shows no certificate: the alert's name, or ''.

    In TLS 1.3 the client's handshake ends before the server has looked for a certificate, so the alert comes with the
    first read. Nothing is sent before it: a server that closes with unread bytes resets the connection, alert and all.
    """
    context = _context(ca_file)
    try:
        with _connected(host, port, context) as channel:
            channel.recv(1)
    except ssl.SSLError as refused:
        return refused.reason or str(refused)
    except OSError:
        pass
    return ""


def status_with_certificate(host: str, port: int, ca_file: Path, certificate: Path, key: Path) -> int:
    """The positive control: the HTTP status that a node's own certificate gets on the same socket (0: none)."""
    context = _context(ca_file)
    context.load_cert_chain(certificate, key)
    try:
        with _connected(host, port, context) as channel:
            channel.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
            words = channel.recv(4096).split(b" ", 2)
    except OSError:
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _context(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@contextmanager
def _connected(host: str, port: int, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((host, port), timeout=TLS_WITHIN_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as channel,
    ):
        yield channel


def _sequence(record: dict[str, object]) -> int:
    number = record.get("sequence")
    return number if isinstance(number, int) else -1
