"""One byte string per value: RFC 8785 canonical JSON, and a strict parser for frozen dataclasses.

A document is a frozen dataclass with two class attributes, `KIND` (a name) and `VERSION` (an integer). Its
bytes are the canonical JSON of its fields plus `kind` and `version`. `decode` refuses what `encode` would not
have printed: unknown or missing keys, another type, another order, another spelling of the same number.

Field types understood: `str`, `int`, `float`, `bool`, `datetime` (UTC, printed with `Z`), `Literal`,
`StrEnum`, `tuple[T, ...]`, `Mapping[str, T]`, `T | None`, nested dataclasses, `bytes` (base64), and `Any` for a JSON
scalar. What crosses between a node's processes is of the same types (`node.ipc.messages`).
A field marked `types.ADDED` is printed only where it is not its default, and must not stand there as its default.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

import rfc8785

from mediator.errors import Malformed, UnsupportedVersion
from mediator.grammar import MAX_DOCUMENT_BYTES, MAX_INTEGER

T = TypeVar("T")


class Document(Protocol):
    """A frozen dataclass with a kind and a version: what `encode`, `decode` and signatures work on."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]


D = TypeVar("D", bound=Document)

MAX_DEPTH = 12
# a list of choices that a person still reads
_SHOWN = 24


def dumps(value: Any) -> bytes:
    """RFC 8785 bytes of plain JSON data. Raises `Malformed` for what has no canonical form."""
    try:
        return rfc8785.dumps(value)
    except Exception as error:  # whatever it was: a lone surrogate in a key, brackets without end
        raise Malformed("a value has no canonical JSON form") from error


def loads(raw: bytes, *, limit: int = MAX_DOCUMENT_BYTES) -> Any:
    """Plain JSON data from canonical bytes; `Malformed` unless printing it again gives the same bytes."""
    if len(raw) > limit:
        raise Malformed(f"a document of {len(raw)} bytes is over the limit of {limit}")
    try:
        value = json.loads(raw.decode("utf-8", "strict"), parse_constant=_no_constant, parse_int=_parse_int)
    except Exception as error:
        raise Malformed("not JSON") from error
    if dumps(value) != raw:
        raise Malformed("JSON, but not in canonical form (RFC 8785)")
    return value


def loads_foreign(raw: bytes) -> Any:
    """Plain JSON data from a stranger's bytes (the caller has limited their size), whatever their form.

    Strict where JSON libraries are not: UTF-8 without a byte order mark, no duplicate key at any depth, no NaN.
    Raises `Malformed` without a word of the content.
    """
    try:
        text = raw.decode("utf-8", "strict")
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except Exception as error:
        raise Malformed("not strict UTF-8 JSON") from error


def encode(document: Document) -> bytes:
    """Canonical bytes of a document (a frozen dataclass with `KIND` and `VERSION`)."""
    return dumps(to_plain(document))


def decode(cls: type[D], raw: bytes, *, limit: int = MAX_DOCUMENT_BYTES) -> D:
    """The document in `raw`, or `Malformed` / `UnsupportedVersion`."""
    return from_plain(cls, loads(raw, limit=limit))


def to_plain(value: Any) -> Any:
    """Plain JSON data for a document or any value of the field types above."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (_was_added(field) and getattr(value, field.name) == field.default)
        }
        cls: Any = type(value)
        if hasattr(cls, "KIND"):
            plain |= {"kind": cls.KIND, "version": cls.VERSION}
        return plain
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return print_time(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], plain: Any) -> T:
    """A document from plain JSON data, as strict as `decode` except for the printed form."""
    return typing.cast(T, _build(cls, plain, "", 0))


def print_time(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`; microseconds only where there are any."""
    if moment.utcoffset() is None:
        raise Malformed("a time without a zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse_time(text: str) -> datetime:
    """The inverse of `print_time`; every other spelling is refused."""
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError as error:
        raise Malformed("not an RFC 3339 time in UTC") from error
    if print_time(moment) != text:
        raise Malformed("not an RFC 3339 time in UTC")
    return moment


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _parse_int(text: str) -> int | float:
    # RFC 8785 prints the double 1e20 as 100000000000000000000: beyond 2^53 - 1, digits are a float's
    value = float(text)
    return value if abs(value) > MAX_INTEGER else int(text)


def _was_added(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("added"))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(kind: Any, plain: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Malformed(f"{where}: nested deeper than {MAX_DEPTH}")
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, plain, where, depth)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if plain is None else _build(_without_none(arguments), plain, where, depth)
    if origin is typing.Literal:
        if not any(plain == allowed and type(plain) is type(allowed) for allowed in arguments):
            raise Malformed(f"{where}: not one of {_listed(arguments)}")
        return plain
    if origin is tuple:
        if not isinstance(plain, list):
            raise Malformed(f"{where}: not a list")
        # counted from one, as the rules count a permit's persons and images
        return tuple(
            _build(arguments[0], item, f"{where}[{number}]", depth + 1) for number, item in enumerate(plain, 1)
        )
    if origin is Mapping:
        if not isinstance(plain, dict):
            raise Malformed(f"{where}: not an object")
        return {key: _build(arguments[1], item, f"{where}.*", depth + 1) for key, item in plain.items()}
    return _build_scalar(kind, plain, where)


def _build_dataclass(cls: Any, plain: Any, where: str, depth: int) -> Any:
    if not isinstance(plain, dict):
        raise Malformed(f"{where or cls.__name__}: not an object")
    members = dict(plain)
    if hasattr(cls, "KIND"):
        if members.pop("kind", None) != cls.KIND:
            raise Malformed(f"{where or 'document'}: kind is not {cls.KIND}")
        version = members.pop("version", None)
        if type(version) is not int or version != cls.VERSION:
            raise UnsupportedVersion(f"{cls.KIND}: this version is not supported", hint="upgrade the older side")
    hints = _hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    names = fields.keys() - {name for name, field in fields.items() if _was_added(field) and name not in members}
    if unknown := sorted(members.keys() - names):
        raise Malformed(f"{where or cls.__name__}: unknown key {unknown[0][:40]!r}")
    if missing := sorted(names - members.keys()):
        raise Malformed(f"{where or cls.__name__}: missing key {missing[0]!r}")
    try:
        built = {name: _build(hints[name], members[name], f"{where}.{name}".lstrip("."), depth + 1) for name in names}
        for name, value in built.items():  # printed again it would be gone
            if _was_added(fields[name]) and value == fields[name].default:
                raise Malformed(f"{where or cls.__name__}: {name} is its default, which is not written")
        return cls(**built)
    except ValueError as error:
        raise Malformed(f"{where or cls.__name__}: {error}", hint=getattr(error, "hint", "")) from error


def _listed(choices: Sequence[Any]) -> str:
    """What may stand somewhere, where that is few enough to read."""
    return ", ".join(map(str, choices)) if len(choices) <= _SHOWN else f"{len(choices)} known words"


def _build_scalar(kind: Any, plain: Any, where: str) -> Any:
    if kind is datetime and isinstance(plain, str):
        try:
            return parse_time(plain)
        except Malformed as error:
            raise Malformed(f"{where}: {error.message}, as 2027-01-31T00:00:00Z is") from error
    if kind is bytes and isinstance(plain, str):
        return _parse_base64(plain, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(plain)
        except ValueError as error:
            raise Malformed(f"{where}: not one of {_listed([item.value for item in kind])}") from error
    if kind is float and type(plain) in (int, float):
        if not math.isfinite(plain):
            raise Malformed(f"{where}: not a finite number")
        return float(plain)
    if kind is int and type(plain) is int and abs(plain) <= MAX_INTEGER:
        return plain
    # a scalar of unknown type (a configuration value) is any JSON scalar
    if kind is Any and (plain is None or type(plain) in (str, int, float, bool)):
        return plain
    if type(plain) is kind and kind in (str, bool):
        return plain
    raise Malformed(f"{where}: not of type {getattr(kind, '__name__', kind)}")


def _parse_base64(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Malformed(f"{where}: not base64") from error
    if base64.b64encode(raw).decode("ascii") != text:  # bits beyond the last byte
        raise Malformed(f"{where}: not base64 as it is printed")
    return raw


def _without_none(arguments: tuple[Any, ...]) -> Any:
    kinds = [kind for kind in arguments if kind is not type(None)]
    if len(kinds) != 1:
        raise TypeError("a document field is one type, or that type and None")
    return kinds[0]
