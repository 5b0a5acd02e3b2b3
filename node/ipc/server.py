"""Answering on a Unix socket: one server for a list of verbs, a handler for each.

A server is made only where words, handlers and the table of who may agree. A verb that is not on its list is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, get_origin

import grpc

from mediator.errors import CloisterError, Code, Denied, Malformed, Reason, UsageFault
from mediator.roles import Role, require
from node.ipc.caller import CHALLENGE, SIGNED, Caller, Metadata, SignedCalls, Signers
from node.ipc.channel import ERROR_KEY, OPTIONS, address
from node.ipc.messages import chunk_frames, internal_error, pack, pack_error, unpack, upload_chunks
from node.ipc.sockets import SocketFile
from node.ipc.verb import Handler, Verb, check_agreement

log = logging.getLogger(__name__)

# Long-lived streams hold a thread each: outbox, checkpoints, orders and a few jobs at once.
_THREADS = 32


class Call:
    """A stream while it runs, as its handler sees it: a handler that waits must stop when the caller is gone."""

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


class Server:
    """Serves one verb list on one socket, from a thread pool, until `stop`.

    `caller` is who is at the other end of this socket; or, where a process there vouches for persons, what makes a
    caller of a call's metadata. With `permissions` a caller may ask what the table grants their role, and nothing else.
    With `signers` it hands out challenges, and a call that is signed is answered as the person's; one whose signature
    is not good is refused, and not answered as nobody's.
    """

    def __init__(
        self,
        socket: Path,
        verbs: Iterable[Verb[Any, Any]],
        handlers: Mapping[Verb[Any, Any], Handler],
        *,
        caller: Caller | Callable[[Metadata], Caller],
        permissions: Mapping[str, frozenset[Role]] | None = None,
        signers: Signers | None = None,
        group: int | None = None,
        threads: int = _THREADS,
    ) -> None:
        listed, answered = list(verbs), dict(handlers)
        signed = None if signers is None else SignedCalls(signers)
        if signed is not None:
            challenges = signed
            listed.append(CHALLENGE)
            answered[CHALLENGE] = lambda _caller, _request: challenges.challenge()
        check_agreement(listed, answered, permissions)
        self._file = SocketFile(socket, group)
        door = _Door(caller, permissions, signed)
        self._dispatch = _Dispatch({verb.name: (verb, handler) for verb, handler in answered.items()}, door)
        self._threads = threads
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Bind and serve. Raises `NotNow` while another process serves this socket."""
        bound = self._file.claim()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._file.path.stem)
        server = grpc.server(pool, handlers=[self._dispatch], options=OPTIONS)
        try:
            server.add_insecure_port(address(bound))
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


class _Door:
    """Who a call is from, and whether they may ask this: answered before the request is read."""

    def __init__(
        self,
        caller: Caller | Callable[[Metadata], Caller],
        permissions: Mapping[str, frozenset[Role]] | None,
        signed: SignedCalls | None,
    ) -> None:
        self._caller = caller
        self._permissions = permissions
        self._signed = signed

    def let_in(self, verb: Verb[Any, Any], frame: bytes, context: grpc.ServicerContext) -> Caller:
        said = [(key, value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        metadata, found = dict(said), None
        try:
            if len(metadata) != len(said):
                raise Malformed("a call says one thing twice")
            found = self._caller if isinstance(self._caller, Caller) else self._caller(metadata)
            if self._permissions is not None:
                require(found.role, verb.name, self._permissions)
            if SIGNED not in metadata:
                return found
            if self._signed is None or verb.stream == "upload" or found.known_by == "voucher":
                raise Denied(Reason(Code.UNTRUSTED_KEY, "this call takes no signature"))
            return self._signed.caller(found, metadata[SIGNED], verb.name, frame)
        except CloisterError as error:
            code = error.reasons[0].code.value if isinstance(error, Denied) else error.code
            log.warning("verb %s refused to %s: %s", verb.name, found.role if found else "a stranger", code)
            raise


class _Dispatch(grpc.GenericRpcHandler):
    def __init__(self, table: Mapping[str, tuple[Verb[Any, Any], Handler]], door: _Door) -> None:
        self._table = table
        self._door = door
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
                caller = self._door.let_in(verb, frame, context)
                return pack(_checked(verb, handler(caller, unpack(verb.request, frame))))
            raise AssertionError

        return answer

    def _upload(
        self, verb: Verb[Any, Any], handler: Handler
    ) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def answer(frames: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with _Edge(verb.name, context):
                caller = self._door.let_in(verb, b"", context)
                arriving = _unbroken(frames)
                request = unpack(verb.request, next(arriving, b""))
                return pack(_checked(verb, handler(caller, request, upload_chunks(arriving))))
            raise AssertionError

        return answer

    def _stream(
        self, verb: Verb[Any, Any], handler: Handler
    ) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def answer(frame: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            with _Edge(verb.name, context):
                caller = self._door.let_in(verb, frame, context)
                call = Call(context)
                self._streams.add(call)
                try:
                    for item in handler(caller, unpack(verb.request, frame), call):
                        if verb.stream == "download" and isinstance(item, bytes):
                            yield from chunk_frames([item])
                        else:
                            yield pack(_checked(verb, item))
                finally:
                    self._streams.discard(call)

        return answer


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
    context.set_trailing_metadata(((ERROR_KEY, pack_error(error)),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "")


def _checked(verb: Verb[Any, Any], answer: object) -> object:
    if type(answer) is not (get_origin(verb.answer) or verb.answer):
        raise TypeError(f"{verb.name} answered with another type")
    return answer
