"""Verbs over a Unix socket: gRPC with generic handlers, our messages, our errors on both sides.

A server is made from a verb list and a handler for each; a verb that is not on the list is refused. An error of ours
raised in a handler arrives at the caller as the same class; anything else arrives as an internal error without text.
gRPC and fork do not mix: processes that import this module start others with `subprocess` only.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar, cast
from urllib.parse import quote

import grpc

from mediator.errors import CloisterError, Code, Denied, Malformed, NotNow, Reason, UsageFault
from node.ipc.messages import (
    CHUNK,
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
    Message,
    body_of,
    chunk_frames,
    internal_error,
    pack,
    pack_error,
    unpack,
    unpack_error,
    upload_chunks,
    upload_frames,
)
from node.ipc.sockets import SocketFile

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

log = logging.getLogger(__name__)

_ERROR_KEY = "cloister-error-bin"
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES + 1),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES + 1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # a peer that restarts is found again within a second, not within gRPC's two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
# Long-lived streams hold a thread each: outbox, checkpoints, orders and a few jobs at once.
_THREADS = 32


@dataclass(frozen=True)
class Verb(Generic[Q, R]):
    """One thing a socket can be asked.

    `stream`: "unary" (one message each way), "server" (many answers), "upload" (a message, then raw chunks, one
    answer) or "download" (many answers and raw chunks in between).
    """

    name: str
    request: type[Q]
    response: type[R]
    stream: Literal["unary", "server", "upload", "download"] = "unary"


class Call:
    """The caller of a stream, as its handler sees it: a handler that waits must stop when the caller is gone."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._ended = threading.Event()
        if not context.add_callback(self.end):
            self.end()

    @property
    def active(self) -> bool:
        return not self._ended.is_set()

    def sleep(self, seconds: float) -> bool:
        """Wait; true when the caller left meanwhile."""
        return self._ended.wait(seconds)

    def end(self) -> None:
        """The caller is gone, or this server stops."""
        self._ended.set()


# unary: handler(request) -> response · server, download: handler(request, call) -> iterator of responses (and bytes)
# upload: handler(request, chunks) -> response
Handler = Callable[..., Any]
Hook = Callable[[str], None]


class Server:
    """Serves one verb list on one socket, from a thread pool, until `stop`.

    `permit`, when given, is asked with the verb's name before every handler and may raise `Denied`.
    """

    def __init__(
        self,
        socket: Path,
        verbs: Iterable[Verb[Any, Any]],
        handlers: Mapping[Verb[Any, Any], Handler],
        *,
        group: int | None = None,
        permit: Hook | None = None,
        threads: int = _THREADS,
    ) -> None:
        listed = set(verbs)
        if listed != handlers.keys():
            odd = sorted(verb.name for verb in listed ^ handlers.keys())
            raise ValueError(f"verbs without a handler, or handlers of verbs that are not listed: {', '.join(odd)}")
        self._file = SocketFile(socket, group)
        self._dispatch = _Dispatch({verb.name: (verb, handler) for verb, handler in handlers.items()}, permit)
        self._threads = threads
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Bind and serve. Raises `NotNow` while another process serves this socket."""
        bound = self._file.claim()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._file.path.stem)
        server = grpc.server(pool, handlers=[self._dispatch], options=_OPTIONS)
        try:
            server.add_insecure_port(_address(bound))
            server.start()
            self._file.publish()
        except RuntimeError:
            self._file.release()
            raise UsageFault(f"cannot serve the socket {self._file.path}") from None
        except CloisterError:
            server.stop(None)
            self._file.release()
            raise
        self._server = server

    def stop(self, grace_s: float = 2.0) -> None:
        """Take no more calls, tell streams to end, give the running calls `grace_s`, then break them off."""
        if self._server is not None:
            stopped = self._server.stop(grace_s)
            self._dispatch.end_streams()
            stopped.wait(grace_s + 5)
            self._server = None
        self._file.release()

    def wait(self) -> None:
        """Until `stop`."""
        if self._server is not None:
            self._server.wait_for_termination()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Dispatch(grpc.GenericRpcHandler):
    def __init__(self, table: Mapping[str, tuple[Verb[Any, Any], Handler]], permit: Hook | None) -> None:
        self._table = table
        self._permit = permit
        self._streams: set[Call] = set()

    def end_streams(self) -> None:
        for call in list(self._streams):
            call.end()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        name = details.method.rpartition("/")[2]
        if name not in self._table:
            return grpc.stream_stream_rpc_method_handler(_refuse)
        verb, handler = self._table[name]
        if verb.stream == "unary":
            return grpc.unary_unary_rpc_method_handler(self._single(verb, handler))
        if verb.stream == "upload":
            return grpc.stream_unary_rpc_method_handler(self._upload(verb, handler))
        return grpc.unary_stream_rpc_method_handler(self._stream(verb, handler))

    def _single(self, verb: Verb[Any, Any], handler: Handler) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def answer(frame: bytes, context: grpc.ServicerContext) -> bytes:
            with _Edge(verb.name, context):
                self._ask(verb.name)
                return pack(_checked(verb, handler(unpack(verb.request, frame))))
            raise AssertionError

        return answer

    def _upload(
        self, verb: Verb[Any, Any], handler: Handler
    ) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def answer(frames: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with _Edge(verb.name, context):
                self._ask(verb.name)
                arriving = _unbroken(frames)
                request = unpack(verb.request, next(arriving, b""))
                return pack(_checked(verb, handler(request, upload_chunks(arriving))))
            raise AssertionError

        return answer

    def _stream(
        self, verb: Verb[Any, Any], handler: Handler
    ) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def answer(frame: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            with _Edge(verb.name, context):
                self._ask(verb.name)
                call = Call(context)
                self._streams.add(call)
                try:
                    for item in handler(unpack(verb.request, frame), call):
                        if verb.stream == "download" and isinstance(item, bytes):
                            yield from chunk_frames([item])
                        else:
                            yield pack(_checked(verb, item))
                finally:
                    self._streams.discard(call)

        return answer

    def _ask(self, name: str) -> None:
        if self._permit is not None:
            self._permit(name)


class _Edge:
    """The edge of a process: our errors cross as they are, every other one as an internal error without text."""

    def __init__(self, verb: str, context: grpc.ServicerContext) -> None:
        self._verb = verb
        self._context = context

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        if isinstance(error, CloisterError):
            _abort(self._context, error)
        # Texts of other libraries may quote what they choked on, a patient's name included: the class alone is logged.
        log.error("verb %s failed: %s", self._verb, type(error).__name__)
        _abort(self._context, internal_error())


def _unbroken(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The same frames; a caller that left ends them, which `upload_chunks` does not take for the end."""
    try:
        yield from frames
    except grpc.RpcError:
        return


def _refuse(_frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    _abort(context, Denied(Reason(Code.VERB_NOT_PERMITTED), hint="both processes must run the same version"))


def _abort(context: grpc.ServicerContext, error: CloisterError) -> NoReturn:
    context.set_trailing_metadata(((_ERROR_KEY, pack_error(error)),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "")


def _checked(verb: Verb[Any, Any], answer: object) -> Message:
    if type(answer) is not verb.response:
        raise TypeError(f"{verb.name} answered with another type")
    return cast(Message, answer)


class Client:
    """Calls the verbs of one socket. One object serves many threads; it reconnects by itself.

    Every method raises what the handler raised, `NotNow` where nobody answers (or not in time), `UsageFault` where
    this user may not use the socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.insecure_channel(_address(socket), options=_OPTIONS)

    def call(self, verb: Verb[Q, R], request: Q, *, timeout_s: float = 30.0) -> R:
        """One message each way."""
        start: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_method(verb, "unary"))
        try:
            return unpack(verb.response, start(pack(request), timeout=timeout_s))
        except grpc.RpcError as error:
            raise self._fault(error, timeout_s) from None

    def stream(self, verb: Verb[Q, R], request: Q, *, timeout_s: float | None = None) -> Iterator[R]:
        """Many answers. Closing the iterator tells the other side."""
        for frame in self._frames(_method(verb, "server"), request, timeout_s):
            yield unpack(verb.response, frame)

    def download(self, verb: Verb[Q, R], request: Q, *, timeout_s: float | None = None) -> Iterator[R | bytes]:
        """Many answers with raw chunks (at most 1 MiB each) in between."""
        for frame in self._frames(_method(verb, "download"), request, timeout_s):
            yield body_of(frame, CHUNK) if frame[:1] == CHUNK else unpack(verb.response, frame)

    def upload(self, verb: Verb[Q, R], request: Q, chunks: Iterable[bytes], *, timeout_s: float = 600.0) -> R:
        """A message and raw bytes of any size, then one answer."""
        first = pack(request)
        broken: list[BaseException] = []

        def frames() -> Iterator[bytes]:
            yield first
            try:
                yield from upload_frames(chunks)
            except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
                # gRPC would log its text and lose it. Without its end the upload counts as broken off over there,
                # and the caller hears below why its own source failed.
                broken.append(error)

        start: grpc.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(_method(verb, "upload"))
        try:
            answer = unpack(verb.response, start(frames(), timeout=timeout_s))
        except grpc.RpcError as error:
            if broken:
                raise broken[0] from None
            raise self._fault(error, timeout_s) from None
        if broken:
            raise broken[0]
        return answer

    def wait(self, timeout_s: float) -> None:
        """Until somebody serves the socket. Raises `NotNow` after `timeout_s`."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            raise self._absent() from None

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frames(self, method: str, request: Message, timeout_s: float | None) -> Iterator[bytes]:
        start: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method)
        running = start(pack(request), timeout=timeout_s)
        try:
            yield from running
        except grpc.RpcError as error:
            raise self._fault(error, timeout_s) from None
        finally:
            running.cancel()

    def _fault(self, error: grpc.RpcError, timeout_s: float | None) -> CloisterError:
        call = cast(grpc.Call, error)
        code = call.code()
        for key, value in call.trailing_metadata() or ():
            if key == _ERROR_KEY:
                return unpack_error(value if isinstance(value, bytes) else b"")
        if code is grpc.StatusCode.UNAVAILABLE:
            return self._absent()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return NotNow(f"no answer on {self._socket} within {timeout_s:g} s", hint="try again")
        if code is grpc.StatusCode.CANCELLED:
            return NotNow(f"the call on {self._socket} was cancelled", hint="try again")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Malformed("a message is over the size limit")
        return internal_error()

    def _absent(self) -> CloisterError:
        if self._socket.exists() and not os.access(self._socket, os.W_OK):
            return UsageFault(
                f"this user may not use {self._socket}", hint="run as root or as the user the socket belongs to"
            )
        return NotNow(f"nobody answers on {self._socket}", hint="is the node running? start it: cloister node serve")


def _method(verb: Verb[Any, Any], stream: str) -> str:
    if verb.stream != stream:
        raise ValueError(f"{verb.name} is a {verb.stream} verb, not {stream}")
    return f"/cloister/{verb.name}"


def _address(socket: Path) -> str:
    return f"unix:{quote(os.fspath(socket))}"


__all__ = ["MAX_CHUNK_BYTES", "Call", "Client", "Handler", "Server", "Verb"]
