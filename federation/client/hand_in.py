"""Enrolment by six words: the node's offer at the hub's port, again and again until the operator has typed them.

Nothing that comes back is believed before it opens: by the secret that only who was told the words can know, and then
by the hub key that this node's configuration trusts (`federation.client.enrolment.open_answer`).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from federation import control, introduction, protocol, tls
from federation.client.enrolment import load
from mediator.errors import CloisterError, Malformed, NotNow

# the operator is still typing
_AGAIN_S = 1.5
# a hub cuts a stranger off after seconds
_ANSWER_S = 20.0
MAX_WAIT_S = 1800.0

_PROTOCOL = {protocol.HEADER: str(protocol.PROTOCOL)}

# what a hub, or whoever answers in its place, gives for a reason: none of it is acted upon
_REASONS: Mapping[str, str] = {
    "no_such_words": "the hub is enrolling somebody, but was not told these words yet",
    "other_hub": "the hub says that the keys in this node's configuration are not its own: compare hub and witnesses in"
    " its trust section with the operator",
    "another_site": "the hub's operator expects another site with these words",
    "refused": "the hub refuses this request; its operator is told why",
}
CLOSED = "the hub enrols nobody now: its operator has not typed the words yet"


@dataclass(frozen=True)
class Offer:
    """A request on its way to a hub, and the words for it."""

    text: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, request: bytes, hub_keys: list[str], witness_keys: list[str]) -> Offer:
        offer = control.EnrolmentOffer(request=request.decode("utf-8"), hub_keys=hub_keys, witness_keys=witness_keys)
        return cls(control.encode(offer).decode("utf-8"), introduction.new_secret())

    @property
    def code(self) -> bytes:
        return introduction.code_of(self.secret, self.text)

    @property
    def words(self) -> str:
        return introduction.words_of(self.code)

    def handed_in(self) -> control.HandIn:
        sealed = introduction.seal(self.code, self.secret, self.text)
        return control.HandIn(offer=self.text, sealed=sealed.hex())

    def opened(self, out: control.HandOut) -> bytes:
        """The hub's answer. Raises `Malformed` for one of somebody who was not told the words."""
        if not hmac.compare_digest(introduction.answer_tag(self.secret, out.answer), out.tag):
            raise Malformed("somebody answers in the hub's place, who was not told the words")
        return out.answer.encode("utf-8")


async def hand_in(hub: str, offer: Offer, wait_s: float, tell: Callable[[str], None]) -> bytes:
    """The hub's answer to `offer`, tried for `wait_s`. `tell` hears why it is not there yet, once for each reason.

    Raises `NotNow` when the time is over.
    """
    ends, told = asyncio.get_running_loop().time() + wait_s, ""
    connector = aiohttp.TCPConnector(ssl=tls.unverified_context(), force_close=True)
    async with aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False) as session:
        while True:
            try:
                return offer.opened(await _once(session, hub, offer.handed_in()))
            except CloisterError as error:
                reason = error.message
            if reason != told:
                tell(reason)
                told = reason
            if asyncio.get_running_loop().time() + _AGAIN_S > ends:
                raise NotNow(f"not enrolled: {reason}", hint="do it again while you telephone; the words are new ones")
            await asyncio.sleep(_AGAIN_S)


async def knock(folder: Path) -> str:
    """Show the hub the certificate that was just installed in `folder`. Raises `NotNow` when it does not let us in."""
    own = load(folder)
    connector = aiohttp.TCPConnector(ssl=tls.client_context(own.ca, own.certificate, own.key), force_close=True)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=False) as session,
            session.get(
                own.bundle.hub + control.CERTIFICATE, timeout=timeout, allow_redirects=False, headers=_PROTOCOL
            ) as response,
        ):
            status = response.status
    except Exception as error:
        raise NotNow(f"the hub does not answer: {type(error).__name__}") from error
    if status != 200:
        raise NotNow(f"the hub answers with HTTP {status}")
    return ""


async def _once(session: aiohttp.ClientSession, hub: str, handed: control.HandIn) -> control.HandOut:
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    try:
        async with session.post(
            hub + control.ENROL, data=control.encode(handed), timeout=timeout, allow_redirects=False
        ) as response:
            body = await response.content.read(control.MAX_MESSAGE_BYTES)
            while not response.content.at_eof():
                body += await response.content.read(control.MAX_MESSAGE_BYTES)
                if len(body) > control.MAX_MESSAGE_BYTES:
                    raise Malformed("what answers at the hub's address says too much")
            status = response.status
    except CloisterError:
        raise
    except Exception as error:
        raise NotNow(_why(error)) from error
    if status == 200:
        return control.decode(control.HandOut, body)
    try:
        code = control.decode(control.Problem, body).code
    except Malformed:
        code = ""
    raise NotNow(_REASONS.get(code, f"the hub answers with HTTP {status}"))


def _why(error: Exception) -> str:
    """What a connection that came to nothing means to the person at the keyboard."""
    if tls.failure(error) == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
        return CLOSED
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the hub's name has no address: see host in the configuration's hub section, and the machine's resolver"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nothing answers at the hub's address: see host and port in the configuration, the firewall, the hub"
    if isinstance(error, TimeoutError):
        return "no answer from the hub's address: see the firewall; this one port is needed, outbound"
    # a hub that asks for a certificate may cut the connection before its word for that has arrived
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
        return CLOSED
    return f"what answers at the hub's address is no hub ({type(error).__name__})"
