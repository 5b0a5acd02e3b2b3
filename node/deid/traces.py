"""What a patient's files lost, as bytes: for whoever keeps it, sealed, until the patient's last study is done.

`CLT` and the version, then values: one byte of kind, four of length (big endian), the value. The same values give the
same bytes. Traces hold their file numbers and keys before their values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from mediator.deid.identifiers import Identifier, Kind, Lost, Opaque
from mediator.errors import Malformed
from node.deid.pipeline import Trace

_MAGIC = b"CLT1"
_HEAD = struct.Struct(">BL")
_NUMBER = struct.Struct(">Q")
_BYTES, _FILE, _KEY = 0, 16, 17
_KINDS: dict[int, Kind] = {1: "name", 2: "number", 3: "order"}
_OPAQUE = 4
_CODES = {kind: code for code, kind in _KINDS.items()}


def encode_lost(values: Iterable[Lost]) -> bytes:
    """Names, numbers and lost values as bytes that name a patient."""
    return _MAGIC + b"".join(sorted(set(map(_entry, values))))


def decode_lost(raw: bytes) -> tuple[Lost, ...]:
    """The values again. Raises `Malformed`."""
    values = tuple(_value(code, value) for code, value in _entries(raw))
    if encode_lost(values) != raw:
        raise Malformed("lost values are not in their order")
    return values


def encode_trace(trace: Trace) -> bytes:
    """A trace as bytes that name a patient."""
    numbers = [_framed(_FILE, _NUMBER.pack(number)) for number in trace.numbers]
    keys = [_framed(_KEY, key.encode()) for key in trace.keys]
    return b"".join((_MAGIC, *numbers, *keys, *sorted(set(map(_entry, trace.lost)))))


def decode_trace(raw: bytes) -> Trace:
    """The trace again. Raises `Malformed`."""
    numbers: list[int] = []
    keys: list[str] = []
    lost: list[Lost] = []
    for code, value in _entries(raw):
        if code == _FILE and len(value) == _NUMBER.size:
            numbers.append(_NUMBER.unpack(value)[0])
        elif code == _KEY:
            keys.append(_text(value))
        else:
            lost.append(_value(code, value))
    trace = Trace(tuple(numbers), tuple(keys), tuple(lost))
    if encode_trace(trace) != raw:
        raise Malformed("a trace's entries are not in their order")
    return trace


def _entry(value: Lost) -> bytes:
    if isinstance(value, Identifier):
        # what came in no character set may hold halves of pairs
        return _framed(_CODES[value.kind], value.text.encode("utf-8", "surrogatepass"))
    return _framed(_OPAQUE if isinstance(value, Opaque) else _BYTES, value)


def _framed(code: int, value: bytes) -> bytes:
    return _HEAD.pack(code, len(value)) + value


def _entries(raw: bytes) -> Iterator[tuple[int, bytes]]:
    if not raw.startswith(_MAGIC):
        raise Malformed("lost values of another version")
    at = len(_MAGIC)
    while at < len(raw):
        if at + _HEAD.size > len(raw):
            raise Malformed("lost values are cut off")
        code, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        if at + length > len(raw):
            raise Malformed("lost values are cut off")
        yield code, raw[at : at + length]
        at += length


def _value(code: int, value: bytes) -> Lost:
    if code == _BYTES:
        return value
    if code == _OPAQUE:
        return Opaque(value)
    if code not in _KINDS:
        raise Malformed("lost values of a kind nobody knows")
    return Identifier(_KINDS[code], _text(value))


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Malformed("lost values that are no text") from None
