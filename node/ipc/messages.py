"""What crosses a socket: strict messages, raw chunks, and our own errors.

A message is any value that `mediator.canonical` prints: a frozen dataclass, a row of the store, a document, a tuple of
them. A frame is a tag and a body: `MESSAGE` (canonical JSON), `CHUNK` (up to 1 MiB of raw bytes) or `END` (the number
of raw bytes sent before it, so that an upload that broke off never looks complete).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mediator import canonical
from mediator.errors import (
    CloisterError,
    Code,
    Denied,
    Ended,
    EngineUnavailable,
    IntegrityBroken,
    Malformed,
    NotNow,
    Reason,
    UnsupportedVersion,
    UsageFault,
)

MESSAGE, CHUNK, END = b"J", b"R", b"E"
# stands after the tag of every message: processes of another version than ours understand nothing of each other
VERSION = b"2"
MAX_CHUNK_BYTES = 1 << 20
# the longest signed document is 1.4 MB (mediator.signatures); one message carries at most two of them
MAX_MESSAGE_BYTES = 4 << 20
# An error travels in HTTP/2 trailers, as base64. Its texts are at most 5,000 characters together, and none takes more
# than six bytes (a control character, escaped; what is beyond ASCII is UTF-8): 33 kB with all around it, 44 as base64.
MAX_METADATA_BYTES = 64 << 10
_MAX_TEXT = 500
_MAX_DETAIL = 200
_MAX_REASONS = 20

T = TypeVar("T")


@dataclass(frozen=True)
class Empty:
    """Nothing to say beyond the verb itself."""


@dataclass(frozen=True)
class SignedText:
    """A signed document as it came: a compact JWS, or a checkpoint's canonical JSON."""

    text: str


def pack(message: object) -> bytes:
    """The frame of a message. Raises `Malformed` when it is larger than `MAX_MESSAGE_BYTES`."""
    body = canonical.dumps(canonical.to_plain(message))
    if len(body) > MAX_MESSAGE_BYTES:
        raise Malformed(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return MESSAGE + VERSION + body


def unpack(kind: type[T], frame: bytes) -> T:
    """The message in a frame. Raises `Malformed` or `UnsupportedVersion`; their texts repeat no value that came in."""
    body = body_of(frame, MESSAGE)
    if body[:1] != VERSION:
        raise UnsupportedVersion("a message of another version", hint="both processes must run the same version")
    return canonical.from_plain(kind, canonical.loads(body[1:], limit=MAX_MESSAGE_BYTES))


def body_of(frame: bytes, tag: bytes) -> bytes:
    """The body of a frame that must carry `tag`."""
    if frame[:1] != tag:
        raise Malformed("a frame of the wrong kind")
    return frame[1:]


def chunk_frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Frames of raw bytes, none above `MAX_CHUNK_BYTES`, whatever the sizes handed in."""
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_CHUNK_BYTES):
            yield CHUNK + bytes(view[start : start + MAX_CHUNK_BYTES])


def upload_frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The raw frames of an upload, closed by the count that proves it complete."""
    sent = 0
    for frame in chunk_frames(chunks):
        sent += len(frame) - 1
        yield frame
    yield END + str(sent).encode("ascii")


def upload_chunks(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The raw bytes of an upload. Raises `Malformed` for a wrong frame or count, `NotNow` when it broke off."""
    received = 0
    for frame in frames:
        if frame[:1] == END:
            if frame[1:] != str(received).encode("ascii"):
                raise Malformed("an upload of another size than it says")
            return
        chunk = body_of(frame, CHUNK)
        if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
            raise Malformed(f"a chunk is empty or over {MAX_CHUNK_BYTES} bytes")
        received += len(chunk)
        yield chunk
    raise NotNow("an upload broke off", hint="send it again from the start")


# --- errors -------------------------------------------------------------------------------------------------

_CLASSES: dict[str, type[CloisterError]] = {
    cls.code: cls for cls in (UsageFault, Malformed, UnsupportedVersion, IntegrityBroken, NotNow, EngineUnavailable)
}


def pack_error(error: CloisterError) -> bytes:
    """One of our errors as it crosses: code, message, hint and, for a refusal, every reason (bounded)."""
    plain: dict[str, Any] = {"code": error.code, "message": error.message[:_MAX_TEXT], "hint": error.hint[:_MAX_TEXT]}
    if isinstance(error, Denied):
        kept = error.reasons[:_MAX_REASONS]
        plain["reasons"] = [[reason.code.value, reason.detail[:_MAX_DETAIL]] for reason in kept]
    elif isinstance(error, Ended):
        plain["reason"] = [error.reason.code.value, error.reason.detail[:_MAX_DETAIL]]
    # escaped, a character outside the basic plane would take twelve bytes
    return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")


def unpack_error(raw: bytes) -> CloisterError:
    """The error of the other side, of the same class; what cannot be read back is an internal error without text."""
    try:
        plain = json.loads(raw)
        if plain["code"] == Denied.code:
            reasons = [Reason(Code(code), str(detail)) for code, detail in plain["reasons"]]
            return Denied(reasons, hint=str(plain["hint"]))
        if plain["code"] == Ended.code:
            code, detail = plain["reason"]
            return Ended(Reason(Code(code), str(detail)), hint=str(plain["hint"]))
        return _CLASSES[plain["code"]](str(plain["message"]), hint=str(plain["hint"]))
    except Exception:  # noqa: BLE001 - it is an error already, and this one says no more
        return internal_error()


def internal_error() -> CloisterError:
    return CloisterError("internal error in another process of this node", hint="its log names the class of the error")
