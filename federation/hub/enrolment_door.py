"""Where a node without a certificate hands in its request: one path, and only while an invitation is open.

1. Without an open invitation nobody without a certificate passes the handshake (`federation.tls`).
2. With one, who has none is a stranger in the waiting room still, and is cut off with its time there
   (`federation.hub.listener`); it reaches this path alone, and says no more than a small body.
3. What does not open under an invitation's words is parsed no further, kept nowhere and written down once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from aiohttp import web

from federation import control
from federation.hub.ingress import reply
from federation.hub.invitations import Invitation, Invitations, Refused
from federation.hub.registry import HubIdentity
from mediator.errors import Malformed

log = logging.getLogger("cloister.hub")


class EnrolmentDoor:
    """`POST /v1/enrol`. `enrolled` is called when a site was let in."""

    def __init__(
        self,
        invitations: Invitations,
        identity: Callable[[], HubIdentity],
        clock: Callable[[], datetime],
        enrolled: Callable[[], None],
    ) -> None:
        self._invitations = invitations
        self._identity = identity
        self._clock = clock
        self._enrolled = enrolled
        self._live: Sequence[Invitation] = ()
        self._told: set[int] = set()

    @property
    def is_open(self) -> bool:
        now = self._clock()
        return any(each.expires > now for each in self._live)

    def refresh(self) -> None:
        """Look which invitations are open. Called whenever `hub.db` may have changed."""
        self._live = self._invitations.live()

    async def hand_in(self, request: web.Request) -> web.Response:
        handed = control.decode(control.HandIn, await _small_body(request), limit=2 * control.MAX_HAND_IN_BYTES)  # (2)
        try:
            given = await asyncio.to_thread(self._invitations.accept, handed, self._live, self._identity())
        except Refused as refused:
            self._tell(refused)
            problem = control.Problem(code=refused.said, message="this enrolment is refused")
            return web.Response(status=403, body=control.encode(problem), content_type="application/json")
        self._enrolled()
        return reply(given)

    def _tell(self, refused: Refused) -> None:
        if refused.site:
            log.warning("an enrolment of %s was refused (%s)", refused.site, refused.said)
            return
        newest = max((each.number for each in self._live), default=0)
        if newest not in self._told:  # (3)
            self._told = {newest}
            log.warning("somebody hands in an enrolment that no words fit; said once for each invitation")


async def _small_body(request: web.Request) -> bytes:
    body = bytearray()
    async for piece in request.content.iter_chunked(1 << 14):
        body += piece
        if len(body) > 2 * control.MAX_HAND_IN_BYTES:
            raise Malformed("a hand-in over the limit")
    return bytes(body)
