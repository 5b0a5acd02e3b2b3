"""Strangers at the hub's port, silent or slow, and many: whoever is enrolled gets in. Real hub, real sockets.

The hub has 256 open files here, so that a few hundred connections stand for the thousand that are its end elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation import pki
from federation.hub.listener import Limits, WaitingRoom, origin_of
from tests.federation.ground import Town, found
from tests.federation.test_ingress import ask, plain_context

FILES, HANDSHAKE_S, ROUNDS = 256, 2.0, 8
# a stranger's ClientHello, dripped byte by byte
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    limits = f"handshake_s = {HANDSHAKE_S}\nconnections_per_site = 12"
    town = found(tmp_path_factory.mktemp("town"), ingress=limits)
    town.start(files=FILES)
    yield town
    town.stop()


class Crowd:
    """Strangers who come again when they are put out, `again` at a time, twenty times a second: `many` connections from
    `addresses`, some dripping."""

    def __init__(self, town: Town, many: int, addresses: int, again: int = 50) -> None:
        self._again = again
        self._port = town.config.ingress.port
        self._many, self._addresses = many, addresses
        self._sockets: list[socket.socket] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._come_again)
        self.opened = 0

    def __enter__(self) -> Crowd:
        self._thread.start()
        deadline = time.monotonic() + 20
        while self.opened < self._many:
            assert time.monotonic() < deadline, self.opened
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _come_again(self) -> None:
        while not self._ending.is_set():
            alive = []
            for number, each in enumerate(self._sockets):
                if self._is_put_out(each, drips=number % 3 == 0):
                    each.close()
                else:
                    alive.append(each)
            self._sockets = alive
            pace = 50 if self.opened < self._many else self._again
            for _ in range(min(pace, self._many - len(alive))):
                with contextlib.suppress(OSError):
                    self._sockets.append(self._one())
            time.sleep(0.05)

    def _one(self) -> socket.socket:
        self.opened += 1
        source = ("127.0.0.1" if self._addresses == 1 else f"127.0.1.{1 + self.opened % self._addresses}", 0)
        stranger = socket.create_connection(("127.0.0.1", self._port), 5, source_address=source)
        stranger.setblocking(False)
        return stranger

    def _is_put_out(self, stranger: socket.socket, *, drips: bool) -> bool:
        try:
            if drips:
                stranger.send(HELLO[:1])
            return stranger.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def test_strangers_from_many_addresses_do_not_keep_an_enrolled_site_out(town: Town) -> None:
    context = plain_context(town, "aachen")
    assert ask(town, context, "GET", "/v1/control/none")[0] == 404
    with Crowd(town, 3 * FILES, addresses=40) as crowd:
        for _ in range(ROUNDS):
            assert ask(town, context, "GET", "/v1/control/none")[0] == 404
            time.sleep(0.1)
    assert crowd.opened >= 3 * FILES
    assert b"no file descriptors" not in (town.folder / "hub.log").read_bytes(), "their places are below the limit"


def test_strangers_at_the_sites_own_address_do_not_keep_it_out(town: Town) -> None:
    """As behind one address for a clinic: a handshake takes milliseconds, so the oldest is hardly ever a site's."""
    context, tries = plain_context(town, "aachen"), 0
    with Crowd(town, 3 * FILES, addresses=1, again=2):
        for _ in range(ROUNDS):
            while True:
                tries += 1
                with contextlib.suppress(OSError):
                    assert ask(town, context, "GET", "/v1/control/none")[0] == 404
                    break
            time.sleep(0.1)
    assert tries <= ROUNDS + 4


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "slow"])
def test_a_stranger_is_cut_off_after_seconds(town: Town, drips: bool) -> None:
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", town.config.ingress.port), 20) as stranger:
        stranger.settimeout(0.2)
        while time.monotonic() - begun < 20:
            try:
                if drips:
                    stranger.send(HELLO[:1] if time.monotonic() - begun < 0.2 else b"")
                if stranger.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert HANDSHAKE_S * 0.8 < time.monotonic() - begun < HANDSHAKE_S + 5


def test_a_connection_that_stands_is_untouched_by_strangers(town: Town) -> None:
    context = plain_context(town, "bergen")
    with (
        socket.create_connection(("127.0.0.1", town.config.ingress.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stands,
    ):
        stands.sendall(b"GET /v1/control/events HTTP/1.1\r\nhost: hub\r\n\r\n")
        assert stands.recv(12) == b"HTTP/1.1 200"
        with Crowd(town, 2 * FILES, 20):
            time.sleep(HANDSHAKE_S)
        stands.settimeout(15)
        stands.sendall(b"")
        stands.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                assert stands.recv(1 << 16) != b"", "it was ended"


def test_one_sites_connections_leave_the_others_theirs(town: Town) -> None:
    """Somebody with one certificate, or a node gone wrong, opens all it can."""
    context = plain_context(town, "coimbra")
    with contextlib.ExitStack() as opened:
        channels = []
        for _ in range(40):
            plain = socket.create_connection(("127.0.0.1", town.config.ingress.port), 10)
            channels.append(opened.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1")))
            channels[-1].settimeout(0.05)
            assert ask(town, plain_context(town, "bergen"), "GET", "/v1/control/none")[0] == 404
        time.sleep(0.5)
        standing = [channel for channel in channels if _stands(channel)]
    assert len(standing) <= town.config.ingress.connections_per_site and standing[-1] is channels[-1]


def _stands(channel: ssl.SSLSocket) -> bool:
    try:
        return channel.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_a_certificate_of_an_ended_site_gives_no_place(town: Town, tmp_path: Path) -> None:
    """Ours by its signature, in force by no record: put out before it says a word."""
    key, now = pki.new_key(), town.hub.clock()
    certificate = town.hub.authority.issue_node(pki.signing_request(key, "nobody"), "nobody", now)
    (tmp_path / "tls.crt").write_bytes(pki.certificate_pem(certificate))
    (tmp_path / "tls.key").write_bytes(pki.key_pem(key))
    context = ssl.create_default_context(cafile=str(town.hub.authority.ca))
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with (
        socket.create_connection(("127.0.0.1", town.config.ingress.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as channel,
        contextlib.suppress(ConnectionError),
    ):
        assert channel.recv(1) == b""


async def test_the_longest_there_of_who_has_most_gives_way() -> None:
    limits, room = Limits(1.0, 6, 4, 1), WaitingRoom()

    def come(address: str) -> asyncio.Task[None]:
        task = asyncio.create_task(asyncio.sleep(60))
        room.admit(address, task, limits)
        return task

    few = [come("a") for _ in range(2)]
    many = [come("b") for _ in range(5)]
    site = come("c")
    assert len(room) == 6
    await asyncio.sleep(0)
    assert [task.cancelled() for task in many] == [True, True, False, False, False]
    assert not any(task.cancelled() for task in (*few, site))
    room.end_all()
    assert len(room) == 0


def test_an_ipv6_network_is_one_stranger() -> None:
    assert origin_of("2001:db8::1") == origin_of("2001:db8::ffff:1") != origin_of("2001:db8:0:1::1")
    assert (
        origin_of("::ffff:10.0.0.1") == origin_of("10.0.0.1") == "10.0.0.1" and origin_of("fe80::1%eth0") != "fe80::1"
    )


def test_limits_leave_file_descriptors_for_everybody() -> None:
    wanted = Limits(5.0, 256, 64, 64)
    assert wanted.within(65_536, 30) == wanted
    for files in (256, 1024, 4096):
        for sites in (1, 3, 20):
            limits = wanted.within(files, sites)
            if limits.connections_per_site > 4:
                assert 2 * limits.strangers + 2 * sites * limits.connections_per_site < files
