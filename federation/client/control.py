"""The link's end of the control channel: HTTP over the same mutual TLS and the same port as Flower."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import aiohttp

from federation import control, protocol, tls
from federation.client.hub_errors import HubApart, HubBusy, HubUnreachable
from federation.control import ControlMessage
from mediator.errors import CloisterError, Code, Denied, Malformed, Reason

log = logging.getLogger("cloister.link")

M = TypeVar("M", bound=ControlMessage)

# the hub says something at least every 10 s; three of them missed, and the stream is dead
_SILENCE_S = 30.0
_ANSWER_S = 30.0
# RFC 9110 section 5.6.7
_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class ControlChannel:
    """Requests and the events stream. Every method may raise `HubUnreachable`, or `Denied` when the hub says no."""

    def __init__(self, hub: str, context: tls.Context, spoken: int = protocol.PROTOCOL) -> None:
        self._hub = hub
        self._spoken = spoken
        self._headers = {protocol.HEADER: str(spoken)}
        self._context = context
        connector = aiohttp.TCPConnector(ssl=context, keepalive_timeout=30.0)
        self._session = aiohttp.ClientSession(
            connector=connector, trust_env=False, auto_decompress=False, headers=self._headers
        )
        # the hub's time with its newest answer, and when that came
        self._time: tuple[datetime, float] | None = None
        self._heard = asyncio.Event()

    async def close(self) -> None:
        await self._session.close()

    async def events(self) -> AsyncIterator[control.ControlEvent]:
        """What the hub says, as it says it, until the stream ends."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_S, sock_read=_SILENCE_S)
        try:
            async with self._session.get(
                self._hub + control.EVENTS,
                timeout=timeout,
                allow_redirects=False,
                read_bufsize=1 << 18,
                headers={control.ALARMS_HEADER: "1"},
            ) as response:
                await self._check(response)
                async for line in _lines(response.content):
                    try:
                        event = control.decode(control.ControlEvent, line)
                    except Malformed as error:  # it ends this line, and not those that come after it
                        log.warning("the hub said something that is no event: %s", error.message)
                        continue
                    yield event
        except CloisterError:
            raise
        except Exception as error:
            raise HubUnreachable(f"the hub's events stream broke ({type(error).__name__})") from error

    async def ask(self, path: str, message: ControlMessage, answer: type[M]) -> M:
        """One request and its answer."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self._session.post(
                self._hub + path, data=control.encode(message), timeout=timeout, allow_redirects=False
            ) as response:
                await self._check(response)
                return control.decode(answer, await _body(response))
        except CloisterError:
            raise
        except Exception as error:
            raise HubUnreachable(f"the hub does not answer ({type(error).__name__})") from error

    async def show_certificate(self) -> None:
        """Show the certificate of this moment over a connection of its own, which ends the one before it."""
        connector = aiohttp.TCPConnector(ssl=self._context, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, trust_env=False, headers=self._headers) as session,
                session.get(self._hub + control.CERTIFICATE, timeout=timeout, allow_redirects=False) as response,
            ):
                await self._check(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HubUnreachable(f"the hub does not answer ({type(error).__name__})") from error

    async def hello(self) -> None:
        """Ask which protocol the hub speaks. Raises `HubApart` where it is too far from ours."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self._session.get(self._hub + control.HELLO, timeout=timeout, allow_redirects=False) as response:
                if response.status == 404:  # protocol 1 has no such question
                    self._agree(response)
                else:
                    await self._check(response)
        except CloisterError:
            raise
        except Exception as error:
            raise HubUnreachable(f"the hub does not answer ({type(error).__name__})") from error

    def _agree(self, response: aiohttp.ClientResponse) -> None:
        said = response.headers.get(protocol.HEADER)
        if said is None and response.status >= 500:  # whoever answers so need not be the hub
            return
        hub = protocol.read(said)
        if not protocol.together(hub, self._spoken):
            raise HubApart(protocol.words(hub=hub, node=self._spoken), hub_is_older=hub < self._spoken)

    async def time(self) -> datetime:
        """What time it is now at the hub, as its answers say over TLS, to a second; waits for the first of them."""
        await self._heard.wait()
        assert self._time is not None
        said, at_s = self._time
        return said + timedelta(seconds=asyncio.get_running_loop().time() - at_s)

    def _hear_time(self, response: aiohttp.ClientResponse) -> None:
        try:
            said = datetime.strptime(response.headers.get("date", ""), _HTTP_DATE).replace(tzinfo=UTC)
        except ValueError:
            return
        self._time = (said, asyncio.get_running_loop().time())
        self._heard.set()

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        self._agree(response)
        self._hear_time(response)
        if response.status == 200:
            return
        if 400 <= response.status < 500:
            problem = control.decode(control.Problem, await _body(response))
            code = problem.code if problem.code in Code.__members__.values() else Code.MALFORMED
            raise Denied(Reason(Code(code), "the hub refused"))
        kind = HubBusy if response.status == 503 else HubUnreachable
        raise kind(f"the hub answers with HTTP {response.status}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > control.MAX_MESSAGE_BYTES:
            raise Malformed("an answer over the limit")
    return bytes(body)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Line by line; one over the limit is left out, and those after it are not."""
    rest, too_long = bytearray(), False
    async for piece in stream.iter_any():
        rest += piece
        *lines, tail = bytes(rest).split(b"\n")
        for line in lines:
            if not too_long and len(line) <= control.MAX_MESSAGE_BYTES:
                yield line
            else:
                log.warning("the hub said a line over the limit")
            too_long = False
        too_long = too_long or len(tail) > control.MAX_MESSAGE_BYTES
        rest = bytearray(b"" if too_long else tail)
