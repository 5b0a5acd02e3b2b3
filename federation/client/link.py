"""The link's main loop: six errands that each go on for ever, whatever becomes of the hub or of core.

    fleet        activate, heartbeat, pull, take apart, hand to core
    outbox       post the envelope, push exactly its objects, or one word of refusal
    events       permits, run orders and revocation lists, the moment the hub publishes them
    checkpoints  have the audit log's checkpoints witnessed
    renewal      a new certificate when two thirds of the old one's life are over
    time         what time it is at the hub

Nothing is lost on SIGKILL of either side: what the hub hands out once is noted before it is fetched (`LinkState`), what
core wants delivered stays in its outbox until we say so, and a push repeated has the same message id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime

from durable.below import read_file
from federation import control, flower_log, pki, tls
from federation.client import enrolment
from federation.client.control import ControlChannel
from federation.client.enrolment import LinkConfig
from federation.client.flower import (
    HEARTBEAT_INTERVAL_S,
    AnswerLost,
    Fleet,
    FlowerTask,
    HubUnreachable,
    NotActive,
    RunOver,
)
from federation.client.link_state import LinkState
from federation.client.ports import CorePort, OutgoingReply
from mediator import tensors
from mediator.errors import CloisterError, Code, Denied, HubCode, Malformed, NotNow, UsageFault
from mediator.ports import Clock
from mediator.signatures import open_signed
from mediator.types import ReleaseEnvelope

log = logging.getLogger("cloister.link")

_CHUNK_BYTES = 1 << 20
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.25, 15.0
# the hub looks for replies four times a second, and finds out that a node is away when it does
_AWAY_S = 1.5
_RENEWAL_CHECK_S = 3600.0
_TIME_EVERY_S = 60.0
# hub or core is away, or this process may not use core's socket: no message's fault, so it is tried again
_LATER = (NotNow, UsageFault)


async def run_link(config: LinkConfig, core: CorePort) -> None:
    """Run until cancelled; then tell the hub that this node goes offline. Raises `UsageFault` if not enrolled."""
    await Link(config, core).run()


def utc_now() -> datetime:
    return datetime.now(UTC)


class Link:
    """One node's link. `run` owns every connection it opens."""

    def __init__(self, config: LinkConfig, core: CorePort, clock: Clock = utc_now) -> None:
        flower_log.hand_over()
        self._config = config
        self._core = core
        self._clock = clock
        self._own = enrolment.load(config.folder)
        self._notes = LinkState(config.folder / "notes")
        self._wake = asyncio.Event()
        self._active = asyncio.Event()
        self._lost = False
        self._refused_as_replaced = 0
        self._open()

    def _open(self) -> None:
        self._context = tls.client_context(self._own.ca, self._own.certificate, self._own.key)
        hub, limit = self._own.bundle.hub, self._config.max_model_bytes
        self._fleet = Fleet(hub, self._context, self._own.flower_key, limit)
        self._channel = ControlChannel(hub, self._context)

    async def run(self) -> None:
        errands = {
            "fleet": self._pull_for_ever,
            "heartbeat": self._beat,
            "outbox": self._deliver,
            "events": self._listen,
            "checkpoints": self._witness,
            "renewal": self._renew,
            "time": self._tell_time,
        }
        try:
            async with asyncio.TaskGroup() as group:
                for name, errand in errands.items():
                    group.create_task(self._for_ever(name, errand), name=name)
        finally:
            await self._leave()

    async def _for_ever(self, name: str, errand: Callable[[], Coroutine[None, None, None]]) -> None:
        """Repeat an errand. One that ended in an error is tried again after a pause, one that nobody foresaw too: it
        would end the other errands with it."""
        wait_s, troubled = _BACKOFF_FIRST_S, False
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                await errand()
                troubled = False
            except Exception as error:
                if asyncio.get_running_loop().time() - begun > _BACKOFF_MOST_S:
                    wait_s, troubled = _BACKOFF_FIRST_S, False
                level = logging.DEBUG if troubled else logging.WARNING
                if isinstance(error, CloisterError):
                    log.log(level, "%s: %s; trying again", name, error.message)
                else:
                    log.log(level, "%s: an error nobody foresaw; trying again", name, exc_info=error)
                troubled = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _BACKOFF_MOST_S) if troubled else _BACKOFF_FIRST_S

    # --- from the hub to core ---------------------------------------------------------------------------------

    async def _pull_for_ever(self) -> None:
        self._active.clear()
        await self._core.hello(self._config.software, False)
        if self._lost:
            await self._be_away()
        node_id = await asyncio.to_thread(self._fleet.activate, self._notes.node_id)
        self._notes.node_id = node_id
        self._active.set()
        await self._core.hello(self._config.software, True)
        log.info("connected to the hub at %s", self._own.bundle.hub)
        for name, note in self._notes.pending():
            await self._handle(name, note)
        pause_s = self._config.poll_fast_s
        while self._active.is_set():
            try:
                pulled = await asyncio.to_thread(self._fleet.pull)
            except AnswerLost:
                self._lost = True
                raise
            if pulled is not None:
                await self._handle(self._notes.add(pulled), pulled)
                pause_s = self._config.poll_fast_s
                continue
            if await self._woken(pause_s):
                pause_s = self._config.poll_fast_s
            else:
                pause_s = min(pause_s * 2, self._config.poll_slow_s)
        raise NotActive("the hub has forgotten this node")

    async def _be_away(self) -> None:
        """Go offline for a moment. A message is handed out once; the answer that was lost may have held one, and the
        hub asks a node again only after it was away."""
        with contextlib.suppress(NotActive):  # a hub that does not know this node has forgotten its messages too
            await asyncio.to_thread(self._fleet.deactivate)
            await asyncio.sleep(_AWAY_S)
        self._lost = False

    async def _woken(self, pause_s: float) -> bool:
        try:
            await asyncio.wait_for(self._wake.wait(), pause_s)
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _handle(self, name: str, note: bytes) -> None:
        """Serve one message to its end. Only what is nobody's fault (`_LATER`) leaves it for another time; anything
        else, foreseen or not, ends this message with an answer, because it would only happen again."""
        try:
            await self._hand_over(await self._fetch(note))
            await asyncio.to_thread(self._fleet.confirm, note)
        except RunOver:
            log.info("an instruction was withdrawn by the hub before it was taken")
        except _LATER:
            raise
        except Exception as error:
            if isinstance(error, CloisterError):
                log.warning("a message was refused: %s", error.message)
            else:
                log.exception("a message met an error nobody foresaw")
            malformed = isinstance(error, Malformed)
            await self._end(note, HubCode.REFUSED_INSTRUCTION if malformed else HubCode.INTERNAL)
        self._notes.done(name)

    async def _fetch(self, note: bytes) -> FlowerTask:
        """What a stranger's bytes ask for; whatever they meet while they are read, they are malformed."""
        try:
            return await asyncio.to_thread(self._fleet.fetch, note)
        except CloisterError:
            raise
        except Exception as error:
            log.exception("a message that nobody foresaw")
            raise Malformed("a message that nobody foresaw") from error

    async def _end(self, note: bytes, code: HubCode) -> None:
        """Refuse a message that may be so odd that not even its sender can be told."""
        try:
            await self._refuse(note, code)
        except _LATER:
            raise
        except Exception:
            log.exception("a message cannot be answered")

    async def _hand_over(self, task: FlowerTask) -> None:
        try:
            model = tensors.encode(task.tensors)
        except Denied:
            log.warning("an instruction was refused: its model holds numbers that are none")
            await self._refuse(task.reply_context, HubCode.REFUSED_INSTRUCTION)
            return
        answer = await self._core.deliver_instruction(task.signed, task.reply_context, _chunks(model))
        if not answer.accepted:
            code = answer.hub_code or HubCode.INTERNAL
            log.info("an instruction was refused (%s)", code.value)
            await self._refuse(task.reply_context, code)

    async def _refuse(self, reply_context: bytes, code: HubCode) -> None:
        """Tell the hub no; a hub that ended the run meanwhile waits for no answer."""
        with contextlib.suppress(RunOver):
            await asyncio.to_thread(self._fleet.push_refusal, reply_context, code)

    async def _beat(self) -> None:
        while True:
            await self._active.wait()
            if not await asyncio.to_thread(self._fleet.heartbeat):
                self._active.clear()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S * 0.4)

    async def _listen(self) -> None:
        try:
            await self._hear()
        except Denied as error:
            if error.reasons[0].code is Code.CERTIFICATE_REPLACED:
                await self._replaced()
            raise
        raise HubUnreachable("the hub closed the events stream")

    async def _hear(self) -> None:
        async for event in self._channel.events():
            self._refused_as_replaced = 0
            if event.kind == "alarm":
                await self._alarm(event.text)
            elif event.kind == "wake":
                self._wake.set()
            elif event.kind == "document":
                await self._pass_on(event.text)

    async def _alarm(self, text: str) -> None:
        """Hand an alarm of the hub's to core, once: the hub says it again with every stream."""
        code = text.partition(".")[0]
        if self._notes.alarmed(text) or code not in Code.__members__.values():
            return
        log.error("the hub says: %s: this site's certificate may be in other hands", code)
        await self._core.certificate_alarm(Code(code))
        self._notes.alarm(text)

    async def _replaced(self) -> None:
        """The newest certificate we have opens nothing any more: somebody else got and showed a newer one. Once may be
        a connection begun before a renewal."""
        self._refused_as_replaced += 1
        if self._refused_as_replaced == 2:
            log.error("the hub knows a newer certificate of this site than we do: ours may be in other hands")
            await self._core.certificate_alarm(Code.CERTIFICATE_REPLACED)

    async def _pass_on(self, document: str) -> None:
        """Hand a document to core. One that core fails over is left behind: the hub sends it again with every stream,
        and it must not keep back those that come after it."""
        try:
            outcome = await self._core.deliver_document(document)
            log.debug("a document from the hub: %s", outcome)
        except _LATER:
            raise
        except CloisterError as error:
            log.error("a document from the hub was not taken: %s", error.message)

    # --- from core to the hub ---------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        async for outgoing in self._core.outbox():
            await self._active.wait()
            if not await self._send(outgoing):
                continue  # taken back by core, which says so with a row that follows
            try:
                await self._core.delivered(outgoing.instruction)
            except _LATER:
                raise
            except CloisterError as error:  # core keeps it, and gives it again with its next stream
                log.error("%s was sent, but core did not take note of it: %s", outgoing.instruction, error.message)
        raise NotNow("core closed the outbox")

    async def _send(self, outgoing: OutgoingReply) -> bool:
        """Push a reply; false where it is a release that may not leave any more. One that cannot go out must not keep
        back those that wait behind it, so it ends with a word."""
        try:
            if outgoing.envelope is None or outgoing.folder is None:
                await self._refuse(outgoing.reply_context, outgoing.hub_code or HubCode.INTERNAL)
            elif not self._notes.used(outgoing.envelope):
                return await self._push(
                    outgoing.instruction, outgoing.reply_context, outgoing.envelope, outgoing.folder
                )
        except RunOver:
            log.info("the hub no longer waits for %s", outgoing.instruction)
        except _LATER:
            raise
        except Exception as error:
            if isinstance(error, CloisterError):
                log.error("the reply to %s cannot be sent: %s", outgoing.instruction, error.message)
            else:
                log.exception("the reply to %s met an error nobody foresaw", outgoing.instruction)
            await self._end(outgoing.reply_context, HubCode.INTERNAL)
        return True

    async def _push(self, instruction: str, reply_context: bytes, signed: str, folder_name: str) -> bool:
        """Push a release, unless it waited too long: for the hub, for this process, for the rows before it.

        1. Its envelope has not expired.
        2. Core, asked now, lets it leave: the permit may have been revoked since, or the node paused.
        3. Files that are gone while it is pushed were taken back by core, if core says so.
        """
        envelope = open_signed(ReleaseEnvelope, signed, self._own.release_keys).document
        if self._clock() >= envelope.expires or not await self._core.may_leave(instruction):  # (1), (2)
            log.info("the release for %s may not leave any more", instruction)
            return False
        await self._channel.ask(control.RELEASES, control.ReleaseMessage(envelope=signed), control.Stored)
        spool, folder = self._config.spool, _plain_name(folder_name)
        # core's to write: not to be led by it to a file of our own
        read = lambda key: read_file(spool, folder, _plain_name(key))  # noqa: E731
        try:
            await asyncio.to_thread(self._fleet.push_release, reply_context, envelope, read)
        except FileNotFoundError:
            if await self._core.may_leave(instruction):
                raise
            log.info("the release for %s was taken back while it was pushed", instruction)  # (3)
            return False
        self._notes.use(signed)
        return True

    async def _witness(self) -> None:
        await self._core.witness_holds(await self._held(), False)
        async for shown in self._core.checkpoints():
            message = control.CheckpointMessage(checkpoint=shown.text, proof=list(shown.proof))
            try:
                answer = await self._channel.ask(control.CHECKPOINTS, message, control.WitnessedMessage)
            except Denied as error:
                log.error("the hub does not witness a checkpoint of the audit log: %s", error.message)
                await self._core.witness_holds(await self._held(), True)
                continue
            await self._core.witnessed(answer.witness)
        raise NotNow("core closed the stream of checkpoints")

    async def _held(self) -> str:
        """The line that the hub signed last. A hub from before there were proofs has no such question."""
        try:
            answer = await self._channel.ask(control.WITNESS, control.WitnessQuestion(), control.WitnessedMessage)
        except Denied as error:
            raise NotNow("the hub asks for no proofs, so nothing is witnessed until it is upgraded") from error
        return answer.witness

    async def _tell_time(self) -> None:
        while True:
            await self._core.hub_time(await self._channel.time())
            await asyncio.sleep(_TIME_EVERY_S)

    async def _renew(self) -> None:
        while True:
            certificate = pki.parse_certificate(self._own.certificate.read_text("ascii"))
            if pki.due_for_renewal(certificate, datetime.now(UTC)):
                request = enrolment.renewal_request(self._config.folder, self._own.bundle.site)
                message = control.Renewal(request=request)
                answer = await self._channel.ask(control.RENEW, message, control.Renewed)
                enrolment.install_renewed(self._config.folder, answer.certificate)
                tls.show_certificate(self._context, self._own.certificate, self._own.key)
                with contextlib.suppress(Denied):  # a hub of before does not know the question
                    await self._channel.show_certificate()
                log.info("the node's certificate was renewed")
            await asyncio.sleep(_RENEWAL_CHECK_S)

    async def _leave(self) -> None:
        try:
            if self._active.is_set():
                # else the hub would wait 20 s for a node that is gone
                await asyncio.wait_for(asyncio.to_thread(self._fleet.deactivate), timeout=3.0)
                log.info("disconnected from the hub")
        except (TimeoutError, NotNow) as error:
            log.warning("could not tell the hub that this node goes offline (%s)", type(error).__name__)
        await self._channel.close()
        self._fleet.close()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(content), _CHUNK_BYTES):
        yield content[begin : begin + _CHUNK_BYTES]


def _plain_name(name: str) -> str:
    if "/" in name or name.startswith("."):
        raise Malformed("a spool entry is a plain name")
    return name
