"""The link's main loop: eight errands that each go on for ever, whatever becomes of the hub or of core.

    fleet        activate, heartbeat, pull, take apart, hand to core
    outbox       post the envelope, push exactly its objects, or one word of refusal
    events       permits, run orders and revocation lists, the moment the hub publishes them
    checkpoints  have the audit log's checkpoints witnessed
    renewal      a new certificate when two thirds of the old one's life are over
    time         what time it is at the hub
    again        what failed while everything around it answered, each at its own time

One message, document or reply that fails keeps nothing behind it waiting. Core counts (`CorePort.failed`): a few times
it is tried again, then it is set aside with a record. What fails because hub or core is away, or has no room, is
nobody's fault and not counted.

Nothing is lost on SIGKILL of either side: what the hub hands out once is noted before it is fetched (`LinkState`), what
core wants delivered stays in its outbox until we say so, and a push repeated has the same message id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime

from durable.below import read_file
from federation import control, flower_log, pki, tls
from federation.client import again, enrolment, standing
from federation.client.again import Again
from federation.client.control import ControlChannel
from federation.client.enrolment import LinkConfig
from federation.client.expiry import ExpiryWarning
from federation.client.flower import HEARTBEAT_INTERVAL_S, Fleet, FlowerTask
from federation.client.hub_errors import AnswerLost, HubBusy, HubUnreachable, NotActive, RunOver
from federation.client.link_state import LinkState
from federation.client.ports import CorePort, OutgoingReply, Retry, Trouble
from mediator import tensors
from mediator.errors import CERTIFICATE_ALARMS, CloisterError, Code, Denied, HubCode, Malformed, NotNow, UsageFault
from mediator.ports import Clock
from mediator.signatures import open_signed
from mediator.types import ReleaseEnvelope

log = logging.getLogger("cloister.link")

_CHUNK_BYTES = 1 << 20
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.25, 15.0
# the hub looks for replies four times a second, and finds out that a node is away when it does
_AWAY_S = 1.5
_RENEWAL_CHECK_S = 3600.0
# there are ten days for it, and a hub that is asked in haste takes it for an attack
_RENEWAL_AGAIN_S = 300.0
_TIME_EVERY_S = 60.0
# core, which may be started anew, hears it again
_NOT_ENROLLED_S = 5.0
# core is away or has no room, or this process may not use its socket: no message's fault
_LATER = (NotNow, UsageFault)
_HUB = (HubUnreachable, NotActive)
_CORE_PAUSE_S = 1.0


async def run_link(config: LinkConfig, core: CorePort) -> None:
    """Run until cancelled; then tell the hub that this node goes offline. A node that is not enrolled waits until it
    is, and one that is enrolled anew begins anew, with what was installed."""
    while True:
        seen = standing.mark(config.folder)
        anew = asyncio.create_task(standing.changed(config.folder, seen))
        errand = Link(config, core).run() if seen is not None else _wait_for_enrolment(config, core)
        running = asyncio.create_task(errand)
        try:
            await asyncio.wait({anew, running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = running.done()
            for task in (anew, running):
                task.cancel()
            await asyncio.gather(anew, running, return_exceptions=True)
        if ended:
            running.result()
        log.info("this node was enrolled; going on with what was installed")


async def _wait_for_enrolment(config: LinkConfig, core: CorePort) -> None:
    """Say that this node is not enrolled, for as long as it is not."""
    said = standing.WORDS["not_enrolled"]
    log.error("%s: %s", said.meaning, said.mend)
    while True:
        with contextlib.suppress(*_LATER):
            await core.hello(config.software, False)
            await core.trouble("not_enrolled")
        await asyncio.sleep(_NOT_ENROLLED_S)


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
        self._greeting = asyncio.Lock()
        self._again = Again()
        self._lost = False
        self._refused_as_replaced, self._said_replaced = 0, False
        self._trouble: Trouble = ""
        self._renewal: control.Renewal | None = None
        self._renewed: str | None = None
        self._expiry = ExpiryWarning()
        self._open()

    def _open(self) -> None:
        self._context = tls.client_context(self._own.ca, self._own.certificate, self._own.key)
        hub, limit = self._own.bundle.hub, self._config.max_model_bytes
        self._fleet = Fleet(hub, self._context, self._own.flower_key, limit)
        self._channel = ControlChannel(hub, self._context, self._config.spoken)

    async def run(self) -> None:
        errands = {
            "fleet": self._pull_for_ever,
            "heartbeat": self._beat,
            "outbox": self._deliver,
            "events": self._listen,
            "checkpoints": self._witness,
            "renewal": self._renew,
            "again": self._again.work_off,
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
                self._judge_standing(error)
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

    def _judge_standing(self, error: Exception) -> None:
        """Say in words, once, why the hub has no business with this node."""
        trouble = standing.trouble_of(error)
        if trouble is not None and trouble != self._trouble:
            self._trouble, said = trouble, standing.WORDS[trouble]
            log.error("%s: %s", said.meaning, said.mend)

    # --- from the hub to core ---------------------------------------------------------------------------------

    async def _pull_for_ever(self) -> None:
        self._active.clear()
        await self._greet()
        if self._trouble:
            await self._core.trouble(self._trouble)
        if self._lost:
            await self._be_away()
        await self._channel.hello()
        node_id = await asyncio.to_thread(self._fleet.activate, self._notes.node_id)
        self._notes.node_id = node_id
        self._active.set()
        self._trouble = ""
        await self._greet()
        log.info("connected to the hub at %s", self._own.bundle.hub)
        for name, note in self._notes.pending():
            if f"message {name}" not in self._again:
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

    async def _greet(self) -> None:
        """Tell core whether the hub has this link: one word after the other, so that the last is as it is now."""
        async with self._greeting:
            await self._core.hello(self._config.software, self._active.is_set())

    async def _be_away(self) -> None:
        """Go offline for a moment. A message is handed out once; the answer that was lost may have held one, and the
        hub asks a node again only after it was away."""
        with contextlib.suppress(NotActive):  # a hub that does not know this node has forgotten its messages too
            await asyncio.to_thread(self._fleet.deactivate)
            await asyncio.sleep(_AWAY_S)
        self._lost = False

    async def _woken(self, pause_s: float) -> bool:
        try:
            async with asyncio.timeout(pause_s):  # `wait_for` of Python 3.11 may swallow a cancellation here
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _handle(self, name: str, note: bytes) -> None:
        """Serve one message, now or later, to its end: whatever it met, foreseen or not, ends this message with a
        record and an answer. Raises while the hub is away."""
        try:
            await self._hand_over(await self._fetch(note))
            await asyncio.to_thread(self._fleet.confirm, note)
        except RunOver:
            log.info("an instruction was withdrawn by the hub before it was taken")
        except Exception as error:
            _tell("a message", error)
            retry = await self._judge("message", name, error, final=not isinstance(error, _LATER))
            if not retry.set_aside:
                if not self._again.put(f"message {name}", retry.again_s, lambda: self._handle(name, note)):
                    raise NotNow("too many messages wait") from error
                return
            await self._end(note, HubCode.REFUSED_INSTRUCTION if isinstance(error, Malformed) else HubCode.INTERNAL)
        self._notes.done(name)

    async def _judge(self, kind: str, subject: str, error: Exception, *, final: bool = False) -> Retry:
        """What becomes of something that failed. Raises the error itself while the hub is away."""
        if isinstance(error, _LATER) and not isinstance(error, _HUB):
            return Retry(0, _CORE_PAUSE_S, False)
        if isinstance(error, HubBusy):
            return Retry(0, again.PAUSE_S, False)
        if isinstance(error, _HUB) and not await self._hub_answers():
            raise error
        try:
            word = error.code if isinstance(error, CloisterError) else "internal"
            return await self._core.failed(kind, subject, word, final)
        except Exception as fault:  # noqa: BLE001 - it is tried again, and so is telling core
            _tell("the count of what fails", fault)
            return Retry(0, again.PAUSE_S, False)

    async def _hub_answers(self) -> bool:
        try:
            return await asyncio.to_thread(self._fleet.heartbeat)
        except NotNow:
            return False

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
        except Exception as error:
            if isinstance(error, _HUB) and not await self._hub_answers():
                raise
            _tell("the answer to a message", error)

    async def _hand_over(self, task: FlowerTask) -> None:
        try:
            model = tensors.encode(task.tensors)
        except Denied as error:
            raise Malformed("an instruction whose model holds numbers that are none") from error
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
        """What was said while there was no stream is lost, so the hub is asked at the beginning of each."""
        self._wake.set()
        async for event in self._channel.events():
            self._refused_as_replaced, self._said_replaced = 0, False
            if event.kind == "alarm":
                await self._pass_alarm_on(event.text)
            elif event.kind == "wake":
                self._wake.set()
            elif event.kind == "document":
                await self._pass_on(event.text)

    async def _pass_alarm_on(self, text: str) -> None:
        """Hand an alarm of the hub's to core, once, now or later: the hub says it again with every stream, and while
        core cannot write it down, what comes after it must arrive."""
        code, name = text.partition(".")[0], f"alarm {text}"
        if self._notes.alarmed(text) or name in self._again or code not in CERTIFICATE_ALARMS:
            return
        log.error("the hub says: %s: this site's certificate may be in other hands", code)
        try:
            await self._alarm(text)
        except Exception as error:
            _tell("an alarm", error)
            if not self._again.put(name, again.PAUSE_S, lambda: self._alarm(text)):
                raise NotNow("too much waits for core") from error

    async def _alarm(self, text: str) -> None:
        await self._core.certificate_alarm(Code(text.partition(".")[0]))
        self._notes.alarm(text)

    async def _replaced(self) -> None:
        """The newest certificate we have opens nothing any more: somebody else got and showed a newer one. Once may be
        a connection begun before a renewal."""
        self._refused_as_replaced += 1
        if self._refused_as_replaced < 2 or self._said_replaced:
            return
        log.error("the hub knows a newer certificate of this site than we do: ours may be in other hands")
        await self._core.certificate_alarm(Code.CERTIFICATE_REPLACED)
        self._said_replaced = True  # now that core has it: the hub can tell this link nothing any more

    async def _pass_on(self, document: str) -> None:
        """Hand a document to core, now or later. The hub sends every one again with every stream, and none may keep
        back those that come after it."""
        digest = hashlib.sha256(document.encode("utf-8", "backslashreplace")).hexdigest()
        try:
            outcome = await self._core.deliver_document(document)
            log.debug("a document from the hub: %s", outcome)
        except Exception as error:
            _tell("a document", error)
            retry = await self._judge("document", digest, error)
            if retry.set_aside:
                return
            if not self._again.put(f"document {digest}", retry.again_s, lambda: self._pass_on(document)):
                raise NotNow("too many documents wait for core") from error

    # --- from core to the hub ---------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        await self._greet()  # a core that was started anew under a link that stands knows nothing of it
        async for outgoing in self._core.outbox():
            await self._active.wait()
            if _name(outgoing) not in self._again:
                await self._reply(outgoing)
        raise NotNow("core closed the outbox")

    async def _reply(self, outgoing: OutgoingReply) -> None:
        """Bring one reply out, now or later. Raises while the hub is away."""
        try:
            if not await self._send(outgoing):
                return  # taken back by core, which says so with a row that follows
        except RunOver:
            log.info("the hub no longer waits for %s", outgoing.instruction)
        except Exception as error:
            _tell(f"the reply to {outgoing.instruction}", error)
            kind, said_no = _kind(outgoing), isinstance(error, Denied)
            retry = await self._judge(kind, outgoing.instruction, error, final=said_no)
            put = retry.set_aside or self._again.put(_name(outgoing), retry.again_s, lambda: self._reply(outgoing))
            if not put:
                raise NotNow("too many replies wait") from error
            return
        try:
            await self._core.delivered(outgoing.instruction)
        except _LATER:
            raise
        except CloisterError as error:  # core keeps it, and gives it again with its next stream
            log.error("%s was sent, but core did not take note of it: %s", outgoing.instruction, error.message)

    async def _send(self, outgoing: OutgoingReply) -> bool:
        """Push a reply; false where it is a release that may not leave any more."""
        if outgoing.envelope is None or outgoing.folder is None:
            await self._refuse(outgoing.reply_context, outgoing.hub_code or HubCode.INTERNAL)
        elif not self._notes.used(outgoing.envelope):
            return await self._push(outgoing.instruction, outgoing.reply_context, outgoing.envelope, outgoing.folder)
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
                await self._core.witnessed(answer.witness)
            except _LATER:
                raise
            except Denied as error:
                log.error("the hub does not witness a checkpoint of the audit log: %s", error.message)
                await self._core.witness_holds(await self._held(), True)
            except Exception as error:  # noqa: BLE001 - it is this checkpoint's: a later one covers it
                _tell("a checkpoint", error)
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
            pause_s = _RENEWAL_CHECK_S
            try:
                await self._renew_if_due()
            except Exception as error:  # noqa: BLE001 - it is tried again, and not in haste
                _tell("the renewal of this node's certificate", error)
                pause_s = _RENEWAL_AGAIN_S
            with contextlib.suppress(OSError, Malformed):
                certificate = pki.parse_certificate(self._own.certificate.read_text("ascii"))
                self._expiry.look(certificate, datetime.now(UTC))
            await asyncio.sleep(pause_s)

    async def _renew_if_due(self) -> None:
        """Get a new certificate and show it. An answer that was lost is asked for with the same request, which the hub
        knows again; one that could not be written or shown is kept until it is: each new request is one more
        certificate, and an alarm."""
        certificate = pki.parse_certificate(self._own.certificate.read_text("ascii"))
        if self._renewed is None:
            if not pki.due_for_renewal(certificate, datetime.now(UTC)):
                return
            if self._renewal is None:
                request = enrolment.renewal_request(self._config.folder, self._own.bundle.site)
                self._renewal = control.Renewal(request=request)
            self._renewed = (await self._channel.ask(control.RENEW, self._renewal, control.Renewed)).certificate
        try:
            enrolment.install_renewed(self._config.folder, self._renewed)
        except Malformed:  # for another key than ours: nothing to keep
            self._renewed = self._renewal = None
            raise
        tls.show_certificate(self._context, self._own.certificate, self._own.key)
        with contextlib.suppress(Denied):  # a hub of before does not know the question
            await self._channel.show_certificate()
        self._renewed = self._renewal = None
        log.info("the node's certificate was renewed")

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


def _kind(outgoing: OutgoingReply) -> str:
    return "refusal" if outgoing.folder is None else "release"


def _name(outgoing: OutgoingReply) -> str:
    return f"{_kind(outgoing)} {outgoing.instruction}"


def _tell(what: str, error: Exception) -> None:
    if isinstance(error, CloisterError):
        log.warning("%s failed: %s", what, error.message)
    else:
        log.error("%s met an error nobody foresaw", what, exc_info=error)
