"""A fuzzer's bytes as choices: the same bytes give the same choices, with the fuzzer or without it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")

# where parsers and their callers have gone wrong before, here or elsewhere
ODD_TEXTS = (
    "", "\ud800", "\x00", "../../etc/passwd", "a" * 300, "lung-2026.11.26.1.2", "\u202ejob", "NaN", "-0", "1e999",
    "[" * 2000, "sha256:" + "ab" * 32, "run-1/1/train/1", "ab" * 32, "job-0", "ingest-0123456789ab", "\n", "é", ".",
)  # fmt: skip
ODD_NUMBERS = (0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63, -(2**63), 10**30)


class Draw:
    """Consumes bytes; with none left, every choice is the first one."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._raw[self._at - 1] if self._at <= len(self._raw) else 0

    def below(self, limit: int) -> int:
        return int.from_bytes(self.take(3), "big") % limit

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def take(self, most: int) -> bytes:
        found = self._raw[self._at : self._at + most]
        self._at += len(found)
        return found

    def rest(self) -> bytes:
        return self.take(len(self._raw))

    def chunk(self) -> bytes:
        return self.take(self.byte())

    def text(self) -> str:
        if self.byte() % 3:
            return self.pick(ODD_TEXTS)
        return self.chunk().decode("utf-8", self.pick(("replace", "surrogateescape")))

    def changed(self, raw: bytes) -> bytes:
        """The same bytes, changed in a few places."""
        for _ in range(self.byte() % 4):
            at, more = self.below(len(raw) + 1), self.chunk()
            raw = self.pick(
                (
                    raw[:at],
                    raw[:at] + more + raw[at:],
                    raw[:at] + more + raw[at + len(more) :],
                    raw[:at] * 2 + raw[at:],
                    raw[:at] + bytes([self.byte()]) + raw[at + 1 :],
                )
            )
        return raw

    def value(self, kind: Any, depth: int = 0) -> Any:
        """A value of a message's field type, odd where it can be. Raises `ValueError` where its class takes none."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            hints = typing.get_type_hints(kind)
            return kind(**{name: self.value(hints[name], depth + 1) for name in hints if not _is_constant(hints[name])})  # type: ignore[operator]
        if origin in (typing.Union, types.UnionType):
            given = [each for each in arguments if each is not type(None)]
            return self.value(given[0], depth) if self.byte() % 2 or type(None) not in arguments else None
        if origin is typing.Literal:
            return self.pick(arguments)
        if origin is tuple:
            return tuple(self.value(arguments[0], depth + 1) for _ in range(0 if depth > 4 else self.byte() % 3))
        if origin is Mapping or kind is Mapping:
            made = self.value(arguments[1], depth + 1) if arguments else None
            return {self.text(): made for _ in range(self.byte() % 3)}
        return self._scalar(kind)

    def _scalar(self, kind: Any) -> Any:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self.pick(list(kind))
        scalars: dict[Any, Callable[[], Any]] = {
            str: self.text,
            bytes: self.chunk,
            bool: lambda: bool(self.byte() % 2),
            int: lambda: self.pick(ODD_NUMBERS) if self.byte() % 2 else self.below(1 << 20),
            float: lambda: float(self.pick(ODD_NUMBERS)) if self.byte() % 2 else self.below(1 << 20) / 7,
            datetime: lambda: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.below(1 << 24) * 300),
        }
        return scalars.get(kind, self.text)()


def _is_constant(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.ClassVar
