"""`cloister hub serve`: the SuperLink, the ingress and the runs, kept going until told to end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

from aiohttp import web

from federation import flower_log, pki, protocol, tls
from federation.hub.channel import Channel
from federation.hub.config import IngressConfig
from federation.hub.coordinator import Coordinator
from federation.hub.enrolment_door import EnrolmentDoor
from federation.hub.ingress import Ingress
from federation.hub.listener import Limits
from federation.hub.state import HubState, check_sockets
from federation.hub.superlink import SuperLinkProcess
from mediator.errors import CloisterError, NotNow

log = logging.getLogger("cloister.hub")

# a notice lost (a full socket buffer) costs this much, no more
_LOOK_EVERY_S = 1.0
_REVOCATIONS_EVERY = timedelta(hours=6)
_SERVER_MARGIN = timedelta(days=30)
# a site renews ten days before the end; one that has not for three is away or in trouble
_NODE_MARGIN = timedelta(days=7)
_AUTHORITY_MARGIN = timedelta(days=365)


async def serve_hub(
    hub: HubState, ready: Callable[[], None] | None = None, alive: Callable[[], None] = lambda: None
) -> None:
    """Run the hub until SIGTERM or SIGINT. `ready` is called once nodes may connect, `alive` each time that the main
    loop has come round. Raises `CloisterError`."""
    check_sockets(hub.config.state_dir)
    with _only_one(hub):
        ending = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        await Service(hub, alive=alive).run(ending, ready)


@contextlib.contextmanager
def _only_one(hub: HubState) -> Iterator[None]:
    """Hold the state folder's lock: a second hub would take the first one's sockets away. The kernel lets go of it when
    this process dies, however it dies. Raises `NotNow` where the hub runs."""
    descriptor = os.open(hub.notify_socket.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow(
                "this hub is running already", hint="stop it first, or give this one its own state_dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


class Service:
    """One running hub."""

    def __init__(
        self, hub: HubState, spoken: int = protocol.PROTOCOL, *, alive: Callable[[], None] = lambda: None
    ) -> None:
        flower_log.hand_over()
        self._hub = hub
        self._alive = alive
        authority = hub.authority
        self._superlink = SuperLinkProcess(hub.config.state_dir / "superlink", authority)
        self._context = tls.ServerContext(
            authority.ca, authority.server_certificate, authority.server_key, authority.crl
        )
        self._stir = asyncio.Event()
        self._door = EnrolmentDoor(hub.invitations, lambda: hub.identity, hub.clock, self._stir.set)
        self._ingress = Ingress(
            self._context,
            self._superlink.socket,
            book=hub.certificates,
            door=self._door,
            clock=hub.clock,
            alarm=self._alarm,
            limits=_limits(hub.config.ingress),
            speaks=hub.registry.speaks,
            spoken=spoken,
        )
        self._coordinator = Coordinator(hub, lambda: self._superlink.api, self._wake)
        self._channel = Channel(hub, self._coordinator.nudge)
        self._seen: tuple[object, ...] = ()

    @property
    def app(self) -> web.Application:
        """What is served at the hub's door."""
        return self._ingress.app

    async def run(self, ending: asyncio.Event, ready: Callable[[], None] | None) -> None:
        """Serve until `ending` is set."""
        self._renew_own()
        notices = self._listen_for_notices()
        try:
            await self._start_superlink()
            self._channel.attach(self.app)
            listen = self._hub.config.ingress
            await self._look()
            await self._ingress.start(listen.listen, listen.port)
            log.info("the hub listens at %s", listen.url)
            if ready is not None:
                ready()
            await self._keep_going(ending)
        finally:
            notices.close()
            with contextlib.suppress(OSError):
                os.unlink(self._hub.notify_socket)
            await asyncio.to_thread(self._coordinator.close)
            self._channel.close()
            await self._ingress.close()
            await asyncio.to_thread(self._superlink.stop)
            database = self._hub.database
            with contextlib.suppress(CloisterError):
                await asyncio.to_thread(database.refusals.sum_up, database.write, self._hub.clock(), closing=True)
            log.info("the hub has ended")

    async def _keep_going(self, ending: asyncio.Event) -> None:
        stop = asyncio.create_task(ending.wait())
        database, signed = self._hub.database, self._hub.clock()
        while not ending.is_set():
            stirred = asyncio.create_task(self._stir.wait())
            await asyncio.wait({stop, stirred}, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            stirred.cancel()
            self._stir.clear()
            if ending.is_set():
                return
            self._alive()
            try:
                if not timedelta(0) <= self._hub.clock() - signed <= _REVOCATIONS_EVERY:
                    self._renew_own()
                    signed = self._hub.clock()
                if not self._superlink.running:
                    log.error("the SuperLink has ended; starting it again")
                    await self._start_superlink()
                self._superlink.tidy()
                await asyncio.to_thread(database.refusals.sum_up, database.write, self._hub.clock())
                await self._look()
            except CloisterError as error:
                log.error("%s; trying again", error.message)
            except Exception:
                log.exception("an error nobody foresaw")

    async def _look(self) -> None:
        """Take up whatever changed in the state folder."""
        await asyncio.to_thread(self._door.refresh)
        authority = self._hub.authority
        standing = await asyncio.to_thread(self._hub.certificates.standing)
        lists = (authority.crl.stat().st_mtime_ns, authority.server_certificate.stat().st_mtime_ns)
        seen = (lists, standing.serials)
        if seen != self._seen:
            changed = not self._seen or self._seen[1] != seen[1]
            self._ingress.refresh(standing, reload=True)
            if changed:
                await self._enrol({shown.peer.flower_key for shown in standing.in_force.values()})
            self._seen = seen
        self._channel.publish()
        await asyncio.to_thread(self._coordinator.refresh)

    async def _enrol(self, keys: set[bytes]) -> None:
        api = self._superlink.api
        await asyncio.to_thread(api.enrol, keys)

    async def _start_superlink(self) -> None:
        await self._superlink.start()
        await asyncio.to_thread(self._superlink.api.stop_runs)
        self._seen = ()

    def _wake(self, sites: object) -> None:
        self._channel.wake(sites)  # type: ignore[arg-type]

    def _alarm(self, site: str) -> None:
        self._channel.alarm(site)

    def _renew_own(self) -> None:
        """A new revocation list, and a new certificate of our own a month before the old one ends."""
        authority, now = self._hub.authority, self._hub.clock()
        certificate = pki.parse_certificate(authority.server_certificate.read_text("ascii"))
        hosts = self._hub.config.ingress.hosts
        unnamed = not all(pki.names_host(certificate, host) for host in hosts)  # the configuration has grown
        if unnamed or certificate.not_valid_after_utc - now < _SERVER_MARGIN:
            authority.issue_server(hosts, now)
            log.info("the hub's own certificate was renewed")
        if (left := authority.certificate.not_valid_after_utc - now) < _AUTHORITY_MARGIN:
            log.warning("this hub's certificate authority ends in %d days; all sites are then enrolled anew", left.days)
        for site in self._hub.registry.near_their_end(_NODE_MARGIN):
            log.warning("the certificate of %s is near its end, and the site has not renewed it", site)
        self._hub.registry.sign_revocations()
        self._context.reload()

    def _listen_for_notices(self) -> socket.socket:
        path = self._hub.notify_socket
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(str(path))
        path.chmod(0o600)
        notices.setblocking(False)

        def take() -> None:
            with contextlib.suppress(BlockingIOError):
                notices.recv(16)
            self._stir.set()

        asyncio.get_running_loop().add_reader(notices.fileno(), take)
        return notices


def _limits(ingress: IngressConfig) -> Limits:
    return Limits(ingress.handshake_s, ingress.strangers, ingress.strangers_per_address, ingress.connections_per_site)
