"""The link process: the federation's client, with core behind its socket."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from federation.client.enrolment import LinkConfig
from federation.client.link import run_link
from federation.client.ports import Delivery, Greeting, OutgoingReply, Retry, ShownCheckpoint, Trouble
from mediator.errors import Code
from node.host.config import NodeConfig
from node.host.notify import Notifier
from node.ipc import link as words
from node.ipc.channel import Client
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb

Q = TypeVar("Q")
R = TypeVar("R")

# pieces of a model between the event loop and the thread that uploads them: 8 MiB
_PIECES = 8


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM; then tell the hub that this node goes offline."""
    asyncio.run(_run(config))


async def _run(config: NodeConfig) -> None:
    link = LinkConfig(folder=config.paths.link, spool=config.paths.spool, software=version("cloister"))
    notifier = Notifier.from_environment()
    with closing(RemoteCore(config.paths.link_socket)) as core:
        task = asyncio.create_task(run_link(link, core))
        beat = asyncio.create_task(_beat(notifier))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            pass  # SIGTERM: the link has said goodbye
        finally:
            beat.cancel()


async def _beat(notifier: Notifier) -> None:
    """Tell the service manager that the loop comes round: every errand of the link runs in it."""
    notifier.ready()
    while notifier.every_s is not None:
        notifier.alive()
        await asyncio.sleep(notifier.every_s)


class RemoteCore:
    """The LINK verbs as coroutines. Each raises what core raised, or `NotNow` while core is away."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = Client(socket)

    def close(self) -> None:
        self._client.close()

    async def hello(self, software: str, connected: bool) -> Greeting:
        return await self._call(words.HELLO, words.Hello(software, connected))

    async def deliver_document(self, text: str) -> str:
        answer = await self._call(words.DELIVER_DOCUMENT, SignedText(text))
        return answer.outcome if answer.code is None else f"{answer.outcome} ({answer.code.value})"

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        start = words.InstructionStart(signed, reply_context)
        pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES)

        def upload() -> Delivery:
            return self._client.upload(words.DELIVER_INSTRUCTION, start, iter(pieces.get, None))

        answer = asyncio.create_task(asyncio.to_thread(upload))
        async for piece in model:
            await _put(pieces, piece, answer)
        await _put(pieces, None, answer)
        return await answer

    async def outbox(self) -> AsyncIterator[OutgoingReply]:
        async for reply in self._stream(words.OUTBOX, Empty()):
            yield reply

    async def may_leave(self, instruction: str) -> bool:
        return (await self._call(words.MAY_LEAVE, words.InstructionId(instruction))).allowed

    async def delivered(self, instruction: str) -> None:
        await self._call(words.DELIVERED, words.InstructionId(instruction))

    async def failed(self, kind: str, subject: str, reason: str, final: bool) -> Retry:
        return await self._call(words.FAILED, words.Failed(kind, subject, reason, final))

    async def witness_holds(self, text: str, refused: bool) -> None:
        await self._call(words.WITNESS_HOLDS, words.WitnessHolds(text, refused))

    async def checkpoints(self) -> AsyncIterator[ShownCheckpoint]:
        async for checkpoint in self._stream(words.CHECKPOINTS, Empty()):
            yield checkpoint

    async def witnessed(self, text: str) -> None:
        await self._call(words.WITNESSED, SignedText(text))

    async def certificate_alarm(self, code: Code) -> None:
        await self._call(words.CERTIFICATE_ALARM, words.Alarm(code))

    async def trouble(self, trouble: Trouble) -> None:
        await self._call(words.TROUBLE, words.HubTrouble(trouble))

    async def hub_time(self, time: datetime) -> None:
        await self._call(words.HUB_TIME, words.HubTime(time))

    async def _call(self, verb: Verb[Q, R], request: Q) -> R:
        return await asyncio.to_thread(self._client.call, verb, request)

    async def _stream(self, verb: Verb[Q, R], request: Q) -> AsyncIterator[R]:
        """A blocking stream, read by a thread of its own and handed over one message at a time.

        It has a client of its own, whose end ends it: a stream that only waits cannot be told in another way, and
        core would go on serving it.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[R | BaseException | None] = asyncio.Queue()
        client = Client(self._socket)
        stream = client.stream(verb, request)
        ended = threading.Event()

        def read() -> None:
            last: BaseException | None = None
            try:
                for message in stream:
                    loop.call_soon_threadsafe(arrived.put_nowait, message)
                    if ended.is_set():
                        return
            except BaseException as error:  # noqa: BLE001 - carried over to the coroutine, which raises it
                last = error
            if not ended.is_set():
                loop.call_soon_threadsafe(arrived.put_nowait, last)

        threading.Thread(target=read, name=f"stream-{verb.name}", daemon=True).start()
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            client.close()


async def _put(pieces: queue.Queue[bytes | None], piece: bytes | None, answer: asyncio.Task[Any]) -> None:
    """Hand a piece over, unless the upload has ended already (core may answer before it read everything)."""
    while not answer.done():
        try:
            pieces.put_nowait(piece)
            return
        except queue.Full:
            await asyncio.sleep(0.005)
