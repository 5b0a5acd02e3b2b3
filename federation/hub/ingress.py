"""The hub's one port: mutual TLS in front of the SuperLink's Fleet API and of our control channel.

1. A handshake needs a certificate of our authority that is not revoked (`federation.tls`), TLS 1.3.
2. Every request is looked up again by that certificate's serial number and its expiry, so that a connection opened
   before a revocation, a renewal or an expiry ends with it; `refresh` closes such connections at once as well.
3. Of Flower, eight Fleet calls go through. Its Control and Runtime APIs answer without any credential and stay
   unreachable (`federation.hub.superlink`); registering is the operator's; app bundles are nobody's.
4. The `flwr-public-key` header must be the key this very site was enrolled with: Flower signs only a timestamp, so
   another site's captured header would pass there.
5. No body is larger than 16 MB: the SuperLink reads whole bodies into memory.
6. Strangers keep nobody else out (`federation.hub.listener`).
7. A site whose link speaks a protocol more than one from ours (`federation.protocol`) gets nothing but that word: not
   now, since what it has to deliver is to be delivered once either side is upgraded.
8. While a site is being enrolled, and only then, who shows no certificate reaches one path (`Door`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

import aiohttp
from aiohttp import web

from federation import protocol, tls
from federation.control import ENROL, ControlMessage, Problem, encode
from federation.hub.certificates import Credential, Standing
from federation.hub.listener import Limits, Listener
from federation.hub.peers import Peer
from federation.pki import serial_of
from mediator.errors import CloisterError, Code, Denied, Ended, IntegrityBroken, Malformed, NotNow, Reason, UsageFault

log = logging.getLogger("cloister.hub")

MAX_BODY_BYTES = 16 << 20
# uvicorn closes idle connections after 5 s; one it closes under our request would be a 502
_UPSTREAM_IDLE_S = 3.0
_UPSTREAM_S = 90.0
# `pull-messages` hands a message out once: repeating it could lose one
FLEET_CALLS = frozenset(
    {
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "pull-object",
        "confirm-message-received",
        "push-messages",
        "push-object",
    }
)
_FORWARDED = ("content-type", "accept")
_STATUS: Mapping[type[CloisterError], int] = {
    Denied: 403, Ended: 403, Malformed: 400, IntegrityBroken: 409, NotNow: 503, UsageFault: 400,
}  # fmt: skip
_REFUSED = Denied(Reason(Code.SITE_NOT_NAMED, "this certificate is not in force"))
_REPLACED = Denied(Reason(Code.CERTIFICATE_REPLACED, "another certificate has taken this one's place"))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PEER: web.RequestKey[Peer] = web.RequestKey("peer", Peer)
SERIAL: web.RequestKey[int] = web.RequestKey("serial", int)
# no certificate has this number (RFC 5280 section 4.1.2.2)
_NONE = -1


class Book(Protocol):
    """Where the door looks up certificates (`federation.hub.certificates.Certificates`)."""

    def standing(self) -> Standing: ...
    def take_up(self, serial: int) -> None: ...
    def shown_after_end(self, serial: int) -> str | None: ...


class Door(Protocol):
    """What is there for who has no certificate yet (`federation.hub.enrolment_door.EnrolmentDoor`)."""

    @property
    def is_open(self) -> bool: ...
    async def hand_in(self, request: web.Request) -> web.Response: ...


class Ingress:
    """The listener. `superlink` is the SuperLink's socket, `alarm` is called with a site whose replaced certificate was
    shown, `speaks` with the protocol that a site's link says it speaks; `spoken` is our own."""

    def __init__(
        self,
        context: tls.ServerContext,
        superlink: Path,
        *,
        book: Book,
        door: Door,
        clock: Callable[[], datetime],
        alarm: Callable[[str], None],
        limits: Limits,
        speaks: Callable[[str, int], None],
        spoken: int = protocol.PROTOCOL,
    ) -> None:
        self._context = context
        self._book = book
        self._door = door
        self._clock = clock
        self._alarm = alarm
        self._superlink = superlink
        self._limits = limits
        self._speaks = speaks
        self._spoken = spoken
        self._heard: dict[str, int] = {}
        self._standing = Standing()
        self._sites = 0
        self._listener: Listener | None = None
        self._taking_up = asyncio.Lock()
        self.app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_answer_errors, self._authenticate])
        self.app.router.add_post("/v1/fleet/{call}", self._fleet)
        self.app.router.add_post(ENROL, door.hand_in)
        self.app.on_response_prepare.append(self._say_protocol)
        self._runner: web.AppRunner | None = None
        self._upstream: aiohttp.ClientSession | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `NotNow` when the port is in use, `UsageFault` when it cannot be had at all."""
        connector = aiohttp.UnixConnector(str(self._superlink), keepalive_timeout=_UPSTREAM_IDLE_S, limit=0)
        timeout = aiohttp.ClientTimeout(total=_UPSTREAM_S)
        self._upstream = aiohttp.ClientSession(
            connector=connector, timeout=timeout, trust_env=False, auto_decompress=False
        )
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        assert self._runner.server is not None
        self._listener = Listener(self._handshake, self._runner.server, self._recognise, self._within)
        try:
            await self._listener.start(host, port)
        except OSError as error:
            await self.close()
            if error.errno == errno.EADDRINUSE:
                raise NotNow(f"port {port} is in use", hint="is another hub running? see [ingress] port") from error
            raise UsageFault(f"cannot listen on port {port} ({error.strerror})") from error

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._upstream is not None:
            await self._upstream.close()

    def refresh(self, standing: Standing, *, reload: bool = False) -> None:
        """Take the certificates in force; with `reload`, the revocation list too. Others' connections end now.

        What was read before what is held already says nothing: it only came later.
        """
        standing = self._standing if standing.number < self._standing.number else standing
        self._standing = standing
        self._sites = len({shown.peer.site for shown in standing.in_force.values()})
        if reload:
            self._context.reload()
        server = self._runner.server if self._runner is not None else None
        for connection in list(server.connections) if server is not None else []:
            transport = connection.transport
            serial = self._serial(transport) if transport is not None else _NONE
            # who has none waits for its answer, for the few seconds of a stranger
            if transport is not None and serial != _NONE and serial not in standing.in_force:
                transport.abort()

    def _handshake(self) -> tls.Context:
        return self._context.for_newcomers if self._door.is_open else self._context.context  # (8)

    def _within(self, open_files: int) -> Limits:
        return self._limits.within(open_files, self._sites)

    async def _recognise(self, transport: asyncio.BaseTransport) -> str | None:
        """The site of a new connection; none for a certificate that was replaced, which is told so, and for who has
        none while a site is being enrolled. Raises `LookupError` for any other."""
        serial = self._serial(transport)
        if serial == _NONE:  # (8)
            if not self._door.is_open:
                raise LookupError
            return None
        await self._read_up(serial)
        if serial in self._standing.ended:
            return None
        return self._standing.in_force[serial].peer.site

    async def _read_up(self, serial: int) -> None:
        """Ask the book about a certificate that is not known: it may have been issued a moment ago."""
        if serial not in self._standing.in_force and serial not in self._standing.ended:
            self.refresh(await asyncio.to_thread(self._book.standing))

    @staticmethod
    def _serial(transport: asyncio.BaseTransport) -> int:
        session = transport.get_extra_info("ssl_object")
        der = session.getpeercert(binary_form=True) if session is not None else None
        return serial_of(der) if der else _NONE

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            serial = self._serial(request.transport) if request.transport is not None else _NONE
            if (request.path == ENROL) != (serial == _NONE) or (serial == _NONE and not self._door.is_open):
                raise _REFUSED
            if serial == _NONE:  # (8)
                answer = await handler(request)
                answer.force_close()
                return answer
            request[PEER], request[SERIAL] = (await self._admit(serial)).peer, serial  # (2)
            await self._agree(request)  # (7)
        except Denied as error:
            answer = _answer(error)
            answer.force_close()
            return answer
        return await handler(request)

    async def _admit(self, serial: int) -> Credential:
        await self._read_up(serial)
        shown = self._standing.in_force.get(serial)
        if shown is not None and shown.fresh:
            async with self._taking_up:
                await asyncio.to_thread(self._book.take_up, serial)
                self.refresh(await asyncio.to_thread(self._book.standing))
            shown = self._standing.in_force.get(serial)
        if shown is None and serial in self._standing.ended:
            if (site := await asyncio.to_thread(self._book.shown_after_end, serial)) is not None:
                self._alarm(site)
            raise _REPLACED
        if shown is None or self._clock() >= shown.expires:
            raise _REFUSED
        return shown

    async def _agree(self, request: web.Request) -> None:
        """Raises `NotNow` for a site that speaks another protocol. Flower's calls carry no word of ours: for them it
        is what the site's link said last."""
        site = request[PEER].site
        if request.path.startswith("/v1/control/"):
            heard = protocol.read(request.headers.get(protocol.HEADER))
            if self._heard.get(site) != heard:
                self._heard[site] = heard
                if not protocol.together(self._spoken, heard):
                    log.error("%s: %s", site, protocol.words(hub=self._spoken, node=heard))
                await asyncio.to_thread(self._speaks, site, heard)
        heard = self._heard.get(site, self._spoken)
        if not protocol.together(self._spoken, heard):
            raise NotNow(protocol.words(hub=self._spoken, node=heard))

    async def _say_protocol(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[protocol.HEADER] = str(self._spoken)

    async def _fleet(self, request: web.Request) -> web.Response:
        call = request.match_info["call"]
        if call not in FLEET_CALLS:  # (3)
            raise web.HTTPNotFound
        given = request.headers.getall("flwr-public-key", [])
        if given != [request[PEER].flower_header]:  # (4)
            log.warning("%s used another site's Flower key, or none", request[PEER].site)
            raise Denied(Reason(Code.UNTRUSTED_KEY, "this Flower key is not the one this site was enrolled with"))
        body = await request.read()  # (5)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() in _FORWARDED or _flower(name)
        }
        return await self._forward(call, body, headers)

    async def _forward(self, call: str, body: bytes, headers: Mapping[str, str]) -> web.Response:
        assert self._upstream is not None
        tries = 1 if call == "pull-messages" else 2
        for left in reversed(range(tries)):
            try:
                url = f"http://superlink/v1/fleet/{call}"
                async with self._upstream.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    content = await answer.read()
                    kind = answer.headers.get("content-type", "application/octet-stream")
                    return web.Response(status=answer.status, body=content, headers={"content-type": kind})
            except (aiohttp.ClientError, TimeoutError):
                if not left:
                    break
        raise NotNow("the SuperLink does not answer")


def reply(message: ControlMessage) -> web.Response:
    """A message as an HTTP answer."""
    return web.Response(body=encode(message), content_type="application/json")


def _flower(name: str) -> bool:
    return name.lower().startswith("flwr-")


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _problem(error.status, "http", error.reason)
    except CloisterError as error:
        return _answer(error)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("a request failed in a way nobody foresaw")
        return _problem(500, "internal_error", "internal error")


def _answer(error: CloisterError) -> web.Response:
    return _problem(_status(error), _code(error), error.message)


def _problem(status: int, code: str, message: str) -> web.Response:
    problem = Problem(code=code, message=message[:400])
    return web.Response(status=status, body=encode(problem), content_type="application/json")


def _status(error: CloisterError) -> int:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return 500


def _code(error: CloisterError) -> str:
    return str(error.reasons[0].code) if isinstance(error, Denied) else error.code
