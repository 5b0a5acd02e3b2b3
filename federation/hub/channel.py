"""The hub's end of the control channel: what nodes are told at once, and what they bring."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from aiohttp import web
from sqlalchemy import select

from federation import control
from federation.hub import runs
from federation.hub.database import note, note_refused
from federation.hub.ingress import PEER, SERIAL, reply
from federation.hub.peers import Peer
from federation.hub.refusals import Allowance
from federation.hub.state import HubState
from federation.hub.tables import EnvelopeRow, EventRow, HubInstructionRow, RunRow
from mediator.canonical import print_time
from mediator.errors import Code, Denied, NotNow, Reason
from mediator.signatures import open_signed
from mediator.types import ReleaseEnvelope

log = logging.getLogger("cloister.hub")

# a node takes three of these missed for a dead stream
_HEARTBEAT_S = 10.0
# that a site is there is written down this often; `cloister hub check` calls silent who was not for an hour
_NOTED_EVERY_S = 600.0
# each is kept for good (a kilobyte); a site makes one every quarter of an hour, and one whenever its staff ask for it
_CHECKPOINTS_PER_DAY = 2_000


class _Stream:
    """One site's open events stream: what it has been sent, and what it is to be told."""

    def __init__(self, *, hears_alarms: bool) -> None:
        self.hears_alarms = hears_alarms
        self.alarm = hears_alarms
        self.alarms_told = 0
        self.sequence = 0
        self.said = 0.0
        self.noted = 0.0
        self.wake = False
        self.ended = False
        self.stir = asyncio.Event()


class Channel:
    """Handlers of `/v1/control/*`. `nudge` is told the run of every envelope received."""

    def __init__(self, hub: HubState, nudge: Callable[[str], None]) -> None:
        self._hub = hub
        self._nudge = nudge
        self._streams: dict[str, _Stream] = {}
        self._checkpoints_left = Allowance(_CHECKPOINTS_PER_DAY)
        self._loop = asyncio.get_running_loop()

    def attach(self, app: web.Application) -> None:
        app.router.add_get(control.HELLO, self._hello)
        app.router.add_get(control.EVENTS, self._events)
        app.router.add_post(control.RELEASES, self._releases)
        app.router.add_post(control.CHECKPOINTS, self._checkpoints)
        app.router.add_post(control.WITNESS, self._witness)
        app.router.add_post(control.RENEW, self._renew)
        app.router.add_get(control.CERTIFICATE, self._certificate)
        app.router.add_post(control.INVENTORY, self._inventory)

    def publish(self) -> None:
        """Documents may have come in: every stream that lacks one looks."""
        newest = self._hub.documents.newest_sequence()
        for stream in self._streams.values():
            if stream.sequence < newest:
                stream.stir.set()

    def wake(self, sites: Iterable[str]) -> None:
        """Tell sites that an instruction waits. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake_now, list(sites))

    def alarm(self, site: str) -> None:
        """Tell a site that its certificate may be in other hands."""
        if (stream := self._streams.get(site)) and stream.hears_alarms:
            stream.alarm = True
            stream.stir.set()

    def close(self) -> None:
        """End every stream, so that the listener can close."""
        for stream in self._streams.values():
            stream.ended = True
            stream.stir.set()

    def _wake_now(self, sites: Iterable[str]) -> None:
        for site in sites:
            if stream := self._streams.get(site):
                stream.wake = True
                stream.stir.set()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        peer, stream = request[PEER], _Stream(hears_alarms=control.ALARMS_HEADER in request.headers)
        if older := self._streams.get(peer.site):
            older.ended = True
            older.stir.set()
        self._streams[peer.site] = stream
        await asyncio.to_thread(self._hub.registry.seen, peer.site)
        stream.noted = self._loop.time()
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        log.info("%s is connected", peer.site)
        try:
            while not stream.ended:
                await self._say(response, stream, peer.site)
        except ConnectionError:
            pass  # the node hung up
        finally:
            if self._streams.get(peer.site) is stream:
                del self._streams[peer.site]
                log.info("%s is gone", peer.site)
        return response

    async def _say(self, response: web.StreamResponse, stream: _Stream, site: str) -> None:
        stream.stir.clear()
        events = []
        for sequence, text in await asyncio.to_thread(self._hub.documents.after, stream.sequence):
            stream.sequence = max(stream.sequence, sequence)
            try:
                events.append(control.ControlEvent(kind="document", text=text))
            except ValueError:  # a row that no message can carry must not keep those behind it from every site
                await asyncio.to_thread(self._set_aside, sequence)
        # after the documents: a site that cannot write an alarm down still needs its revocation lists
        if stream.alarm:
            stream.alarm = False
            for alarm in await asyncio.to_thread(self._hub.overview.raised, site):
                if alarm["sequence"] > stream.alarms_told:
                    stream.alarms_told = alarm["sequence"]
                    events.append(control.ControlEvent(kind="alarm", text=f"{alarm['code']}.{alarm['sequence']}"))
        if stream.wake:
            stream.wake = False
            events.append(control.ControlEvent(kind="wake"))
        if not events and self._loop.time() - stream.said >= _HEARTBEAT_S:
            newest = await asyncio.to_thread(self._hub.documents.newest_revocations)
            events.append(
                control.ControlEvent(kind="document", text=newest) if newest else control.ControlEvent(kind="alive")
            )
        for event in events:
            await response.write(control.encode(event) + b"\n")
            stream.said = self._loop.time()
        if self._loop.time() - stream.noted >= _NOTED_EVERY_S:  # a site may be connected for weeks
            stream.noted = self._loop.time()
            await asyncio.to_thread(self._hub.registry.seen, site)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(stream.said + _HEARTBEAT_S):
                await stream.stir.wait()

    def _set_aside(self, sequence: int) -> None:
        """Note, once, that a document is in the database and goes out to nobody."""
        about = f"document/{sequence}"
        with self._hub.database.write() as session:
            told = select(EventRow.sequence).where(EventRow.action == "document_send", EventRow.object == about)
            if session.scalar(told.limit(1)) is None:
                log.error("document %d cannot be sent and is set aside", sequence)
                note(session, self._hub.clock(), "hub", "document_send", about, "failed", Code.MALFORMED)

    async def _releases(self, request: web.Request) -> web.Response:
        release = control.decode(control.ReleaseMessage, await request.read())
        run, known = await asyncio.to_thread(self._take_envelope, request[PEER], release.envelope)
        self._nudge(run)
        return reply(control.Stored(outcome="known" if known else "stored"))

    def _take_envelope(self, peer: Peer, text: str) -> tuple[str, bool]:
        """Keep a release envelope; returns its run, and whether it was known.

        1. The site's own release key signed it, and it names this site.
        2. It answers an instruction that this hub sent to this site.
        3. It is the first for that instruction, or the very same again.
        4. It has not expired, its run is being conducted and its permit is in force: what waited at the site past any
           of these is not taken.
        """
        envelope = open_signed(ReleaseEnvelope, text, peer.release_keys).document  # (1)
        now = self._hub.clock()
        with self._hub.database.write() as session:
            asked = session.get(HubInstructionRow, (peer.site, envelope.instruction))
            known = session.get(EnvelopeRow, (peer.site, envelope.instruction))
            fault = None
            if envelope.site != peer.site:  # (1)
                fault = Reason(Code.INSTRUCTION_MISADDRESSED, "an envelope of another site")
            elif asked is None:  # (2)
                fault = Reason(Code.RUN_ORDER_MISSING, "this hub sent no such instruction")
            elif known is not None and known.text != text:  # (3)
                fault = Reason(Code.INSTRUCTION_REPLAYED, "another envelope was received for this instruction")
            elif now >= envelope.expires:  # (4)
                fault = Reason(Code.INSTRUCTION_EXPIRED, "the envelope has expired")
            elif (run := session.get_one(RunRow, asked.run)).state not in runs.OPEN:  # (4)
                fault = Reason(Code.STOPPED, "nobody conducts this run now")
            elif ended := self._hub.documents.ended(run.permit, run.permit_version):  # (4)
                fault = ended[0]
            if fault is not None:
                note_refused(self._hub.database, session, now, peer.site, "release", envelope.instruction, fault.code)
            elif known is None:
                session.add(
                    EnvelopeRow(
                        site=peer.site,
                        instruction=envelope.instruction,
                        root=envelope.root,
                        size_bytes=envelope.size_bytes,
                        received=print_time(now),
                        text=text,
                    )
                )
        if fault is not None:
            raise Denied(fault)
        return envelope.run, known is not None

    async def _checkpoints(self, request: web.Request) -> web.Response:
        message = control.decode(control.CheckpointMessage, await request.read())
        if not self._checkpoints_left.take(self._hub.clock(), request[PEER].site):
            raise NotNow("this site has shown its checkpoints of today")
        sign, key = self._hub.witness.sign, self._hub.witness_key
        witness = await asyncio.to_thread(sign, request[PEER], message.checkpoint, message.proof, key)
        return reply(control.WitnessedMessage(witness=witness))

    async def _witness(self, request: web.Request) -> web.Response:
        control.decode(control.WitnessQuestion, await request.read())
        witness = await asyncio.to_thread(self._hub.witness.held, request[PEER].site)
        return reply(control.WitnessedMessage(witness=witness))

    async def _renew(self, request: web.Request) -> web.Response:
        message = control.decode(control.Renewal, await request.read())
        site, renew = request[PEER].site, self._hub.certificates.renew
        try:
            certificate = await asyncio.to_thread(renew, site, request[SERIAL], message.request)
        finally:
            self.alarm(site)
        self._hub.notify()
        return reply(control.Renewed(certificate=certificate))

    async def _hello(self, _request: web.Request) -> web.Response:
        """What is asked stands in the headers (`Ingress`)."""
        return reply(control.Stored(outcome="known"))

    async def _certificate(self, _request: web.Request) -> web.Response:
        """A link shows its new certificate, which is all that it takes (`Ingress`)."""
        return reply(control.Stored(outcome="stored"))

    async def _inventory(self, request: web.Request) -> web.Response:
        message = control.decode(control.Inventory, await request.read())
        await asyncio.to_thread(self._hub.registry.take_inventory, request[PEER].site, message)
        return reply(control.Stored(outcome="stored"))
