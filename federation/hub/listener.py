"""The hub's listening sockets: strangers share a small waiting room, and never the places of enrolled sites.

1. Whoever connects is a stranger until its handshake has shown a certificate in force. That takes seconds at most,
   and whoever drips or is silent is cut off then.
2. Strangers together, and those of one address (of one /64 in IPv6), have a number of places. They are not queued and
   a newcomer is never refused: the stranger that has waited longest gives way, of the newcomer's address where that is
   full, else of the address that has the most. An honest handshake is over long before it is the oldest.
   Addresses from which a site came in have a waiting room of their own: no stranger from elsewhere has a place in it.
3. A site has a number of connections; its newest ends its oldest. All of them together leave file descriptors over.
4. When descriptors run out all the same, strangers give way.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from federation import tls

log = logging.getLogger("cloister.hub")

_BACKLOG = 1024
_OPEN_FILES = 65_536
# besides connections: the database, the SuperLink's socket, logs
_SPARE_FILES = 64
# a site's request holds its own descriptor and one to the SuperLink
_FILES_A_CONNECTION = 2
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BREATH_S = 0.05
_SHUTDOWN_S = 2.0
# a hospital has a handful
_ADDRESSES_KNOWN = 1024


@dataclass(frozen=True)
class Limits:
    """How long a handshake may take, how many strangers there may be, and how many connections a site may have."""

    handshake_s: float
    strangers: int
    strangers_per_address: int
    connections_per_site: int

    def within(self, open_files: int, sites: int) -> Limits:
        """The same, within what the process may open: an eighth for each waiting room, the rest for `sites`."""
        strangers = max(8, min(self.strangers, open_files // 8))
        left = (open_files - _SPARE_FILES - 2 * strangers) // (_FILES_A_CONNECTION * max(1, sites))
        connections = max(4, min(self.connections_per_site, left))
        return Limits(self.handshake_s, strangers, min(self.strangers_per_address, strangers), connections)


class WaitingRoom:
    """Who has connected and shown no certificate yet, by address, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Task[None], None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, address: str, task: asyncio.Task[None], limits: Limits) -> None:
        """Give a newcomer a place; somebody else's, where there is none."""
        if len(self._waiting.get(address, ())) >= limits.strangers_per_address:  # (2)
            self._end_oldest(address)
        elif self._count >= limits.strangers:
            self.make_room()
        self._waiting.setdefault(address, {})[task] = None
        self._count += 1

    def make_room(self) -> None:
        """End the oldest stranger of the address that has the most."""
        if self._waiting:
            self._end_oldest(max(self._waiting, key=lambda address: len(self._waiting[address])))

    def leave(self, address: str, task: asyncio.Task[None]) -> None:
        here = self._waiting.get(address, {})
        if task in here:
            del here[task]
            self._count -= 1
            if not here:
                del self._waiting[address]

    def end_all(self) -> None:
        while self._waiting:
            self.make_room()

    def _end_oldest(self, address: str) -> None:
        oldest = next(iter(self._waiting[address]))
        self.leave(address, oldest)
        oldest.cancel()


class Listener:
    """Accepts, shakes hands, and asks `recognise` whose connection it is.

    `recognise` names the site of a connection that may stay, none for one that may say no more than a request, and
    raises `LookupError` for one that may not even do that.
    """

    def __init__(
        self,
        context: Callable[[], tls.Context],
        protocol: Callable[[], asyncio.Protocol],
        recognise: Callable[[asyncio.BaseTransport], Awaitable[str | None]],
        limits: Callable[[int], Limits],
    ) -> None:
        self._context = context
        self._protocol = protocol
        self._recognise = recognise
        self._limits = limits
        self._open_files = _raise_open_files()
        self._strangers, self._familiar = WaitingRoom(), WaitingRoom()
        self._known: dict[str, None] = {}
        self._held: dict[str, dict[asyncio.Transport, None]] = {}
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.create_server(address, family=family, backlog=_BACKLOG)
            listening.setblocking(False)
            self._sockets.append(listening)
        self._accepting = [loop.create_task(self._accept(each)) for each in self._sockets]

    async def close(self) -> None:
        """Take no more; strangers go. Connections of sites are their protocol's to end."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._strangers.end_all()
        self._familiar.end_all()
        for listening in self._sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:  # (4)
                    log.warning("no file descriptors are left; strangers give way")
                    self._strangers.make_room()
                await asyncio.sleep(_BREATH_S)
                continue
            origin = origin_of(str(address[0]))
            room = self._familiar if origin in self._known else self._strangers
            task = loop.create_task(self._greet(connection, origin, room))
            room.admit(origin, task, self._limits(self._open_files))
            # a waiting connection is accepted without a pause; everybody else has a turn, the greeting first
            await asyncio.sleep(0)

    async def _greet(self, connection: socket.socket, origin: str, room: WaitingRoom) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        limits, transport = self._limits(self._open_files), None
        ends = loop.time() + limits.handshake_s
        try:
            transport, _ = await loop.connect_accepted_socket(  # (1)
                self._protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=limits.handshake_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
            site = await self._recognise(transport)
            if site is not None:
                self._keep(site, transport, limits)
                self._know(origin)
                return
            while not transport.is_closing() and loop.time() < ends:
                await asyncio.sleep(_BREATH_S)
            transport.abort()
        except asyncio.CancelledError:  # it gave way
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            _abort(transport)
        except (OSError, LookupError):
            _abort(transport)
        except Exception:
            log.exception("a connection met an error nobody foresaw")
            _abort(transport)
        finally:
            room.leave(origin, task)

    def _know(self, origin: str) -> None:
        self._known.pop(origin, None)
        self._known[origin] = None
        if len(self._known) > _ADDRESSES_KNOWN:
            del self._known[next(iter(self._known))]

    def _keep(self, site: str, transport: asyncio.Transport, limits: Limits) -> None:
        held = self._held.setdefault(site, {})
        for gone in [each for each in held if each.is_closing()]:
            del held[gone]
        while len(held) >= limits.connections_per_site:  # (3)
            oldest = next(iter(held))
            del held[oldest]
            oldest.abort()
        held[transport] = None


def _abort(transport: asyncio.Transport | None) -> None:
    if transport is not None:
        transport.abort()


def origin_of(address: str) -> str:
    """Whose places a connection takes: an IPv4 address, or an IPv6 network of 64 bits, which one machine may fill."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _raise_open_files() -> int:
    """Take as many file descriptors as this process may have; how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
