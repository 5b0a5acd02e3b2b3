"""Asking over a Unix socket: gRPC with generic handlers, our messages, our errors on both sides (`server` answers).

An error of ours raised in a handler arrives at the caller as the same class; anything else arrives as an internal error
without text. gRPC and fork do not mix: processes that import this module start others with `subprocess` only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import grpc
from grpc.experimental import ChannelOptions

from mediator.errors import CloisterError, Malformed, NotNow, UsageFault
from mediator.signatures import SigningKey
from node.ipc.caller import CHALLENGE, SIGNED, sign_call
from node.ipc.messages import (
    CHUNK,
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
    Empty,
    body_of,
    internal_error,
    pack,
    unpack,
    unpack_error,
    upload_frames,
)
from node.ipc.verb import Verb

Q = TypeVar("Q")
R = TypeVar("R")

ERROR_KEY = "cloister-error-bin"
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES + 2),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES + 2),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # a peer that restarts is found again within a second, not within gRPC's two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    # how long the other side may take to say hello, not how long we wait after it did not
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
# a stream is read by the thread that asks for it: gRPC's own way has a second one, and both wake up ten times a second
_CLIENT_OPTIONS = (*OPTIONS, (ChannelOptions.SingleThreadedUnaryStream, 1))
_CHALLENGE_S = 5.0


class Client:
    """Calls the verbs of one socket. One object serves many threads; it reconnects by itself.

    Every method raises what the handler raised, `NotNow` where nobody answers (or not in time), `UsageFault` where
    this user may not use the socket.
    """

    def __init__(
        self, socket: Path, *, key: SigningKey | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        """With `key` every call is signed by a person; `metadata` is what a process that vouches says beside it."""
        self._socket = socket
        self._key = key
        self._metadata = tuple((metadata or {}).items())
        self._channel = grpc.insecure_channel(address(socket), options=_CLIENT_OPTIONS)

    def call(self, verb: Verb[Q, R], request: Q, *, timeout_s: float = 30.0) -> R:
        """One message each way, within `timeout_s`, a signed call's challenge included."""
        until_s = time.monotonic() + timeout_s
        start: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_method(verb, "unary"))
        try:
            frame = pack(request)
            beside = self._beside(verb, frame, timeout_s)
            left_s = max(0.0, until_s - time.monotonic())
            return unpack(verb.answer, start(frame, timeout=left_s, metadata=beside))
        except grpc.RpcError as error:
            raise self._fault(error, timeout_s) from None

    def stream(self, verb: Verb[Q, R], request: Q, *, timeout_s: float | None = None) -> Iterator[R]:
        """Many answers. Closing the iterator tells the other side."""
        for frame in self._frames(verb, "server", request, timeout_s):
            yield unpack(verb.answer, frame)

    def download(self, verb: Verb[Q, R], request: Q, *, timeout_s: float | None = None) -> Iterator[R | bytes]:
        """Many answers with raw chunks (at most 1 MiB each) in between."""
        for frame in self._frames(verb, "download", request, timeout_s):
            yield body_of(frame, CHUNK) if frame[:1] == CHUNK else unpack(verb.answer, frame)

    def upload(self, verb: Verb[Q, R], request: Q, chunks: Iterable[bytes], *, timeout_s: float = 600.0) -> R:
        """A message and raw bytes of any size, then one answer. Nobody signs bytes that are still to come."""
        if self._key is not None:
            raise UsageFault("what is sent in pieces cannot be signed")
        first = pack(request)
        broken: list[BaseException] = []

        def frames() -> Iterator[bytes]:
            yield first
            try:
                yield from upload_frames(chunks)
            except GeneratorExit:  # closed by gRPC: it was answered before all of it was read
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
                # gRPC would log its text and lose it. Without its end the upload counts as broken off over there,
                # and the caller hears below why its own source failed.
                broken.append(error)

        start: grpc.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(_method(verb, "upload"))
        try:
            answer = unpack(verb.answer, start(frames(), timeout=timeout_s, metadata=self._metadata))
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

    def _frames(self, verb: Verb[Q, R], stream: str, request: Q, timeout_s: float | None) -> Iterator[bytes]:
        start: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(_method(verb, stream))
        frame = pack(request)
        running = start(frame, timeout=timeout_s, metadata=self._beside(verb, frame, timeout_s))
        try:
            yield from running
        except grpc.RpcError as error:
            raise self._fault(error, timeout_s) from None
        finally:
            running.cancel()
            with suppress(grpc.RpcError):  # to its end: what nobody reads stays in the channel
                for _ in running:
                    pass

    def _beside(self, verb: Verb[Any, Any], frame: bytes, timeout_s: float | None) -> tuple[tuple[str, str], ...]:
        if self._key is None or verb == CHALLENGE:
            return self._metadata
        challenge = self.call(CHALLENGE, Empty(), timeout_s=min(_CHALLENGE_S, timeout_s or _CHALLENGE_S)).challenge
        return (*self._metadata, (SIGNED, sign_call(self._key, verb.name, frame, challenge)))

    def _fault(self, error: grpc.RpcError, timeout_s: float | None) -> CloisterError:
        call = cast(grpc.Call, error)
        code = call.code()
        for key, value in call.trailing_metadata() or ():
            if key == ERROR_KEY:
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


def address(socket: Path) -> str:
    return f"unix:{quote(os.fspath(socket))}"
