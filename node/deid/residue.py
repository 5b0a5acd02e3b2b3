"""What one patient's files lost, and the search for it in what was written (the residual check).

1. Every removed or replaced text, whole and by its words of at least four characters, in the bytes it came in and as
   UTF-8 and Latin-1, is searched for in every byte that was read back from disk, whatever the letter case.
2. Shorter ones convict only where a value that was kept as it stood is nothing else.
3. Bytes of which nobody says that they are text (`Opaque`) are searched for, too, but numbers are no text: there such
   a hit is chance.
4. Dates are not searched for (a moved date may be another one's original); the writer compares them one by one.

The search looks at every position of the bytes at once: each token is entered in a bit map under the hash of its last
eight (or four) bytes, and only where the map says so is a token really compared. Hits are places; whether the place
lies in a value that is ours is for the caller to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from mediator.deid import residual
from mediator.deid.identifiers import Opaque

_BITS = 18
_LONG, _SHORT = 8, 4
# Fibonacci hashing of four bytes: 2^32 / golden ratio, odd; eight bytes are two fours, the second one moved.
_SPREAD, _MOVE, _DROP = 0x9E3779B9, 9, 32 - _BITS
# The arrays of one search are some thirty times the bytes searched.
_STEP = 1 << 20


class Residue:
    """The tokens of one patient. Grows; nothing is ever taken out."""

    def __init__(self) -> None:
        self.whole: set[bytes] = set()  # (2)
        self.opaque: set[bytes] = set()  # tokens that only values had of which nobody says that they are text
        self._seen: set[bytes] = set()
        self._fresh: list[bytes] = []
        self._longest = 0
        self._maps = {size: np.zeros(1 << _BITS, dtype=np.bool_) for size in (_LONG, _SHORT)}
        self._tokens: dict[int, dict[bytes, list[bytes]]] = {_LONG: {}, _SHORT: {}}

    def __repr__(self) -> str:
        return f"Residue({len(self._seen)} values)"

    @property
    def count(self) -> int:
        """How many values are searched for: grows whenever an answer given before might be another today."""
        return len(self._seen)

    def lost(self, values: Iterable[bytes]) -> list[bytes]:
        """Remember removed values; the tokens that are new."""
        given = list(values)
        if self._seen.issuperset(given):
            return []  # as in most slices of a series
        fresh = set(given) - self._seen
        if not fresh:
            return []
        self._seen |= fresh
        self._fresh += fresh
        texts = {value for value in fresh if not isinstance(value, Opaque)}
        self.whole |= {short for value in texts if 0 < len(short := plain(value)) < residual.MIN_TOKEN}
        tokens = residual.tokens(texts)
        self.opaque -= tokens  # of two of the same bytes the text counts, in whatever order they come
        entered = [token for token in tokens if self._enter(token)]
        if unsure := fresh - texts:
            unsaid = [token for token in residual.tokens(unsure) if self._enter(token)]
            self.opaque.update(unsaid)
            entered += unsaid
        return entered

    def take(self) -> list[bytes]:
        """The values that were lost since this was last asked."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _enter(self, token: bytes) -> bool:
        size = _LONG if len(token) >= _LONG else _SHORT
        tail = token[-size:]
        known = self._tokens[size].setdefault(tail, [])
        if token in known:
            return False
        known.append(token)
        self._longest = max(self._longest, len(token))
        self._maps[size][_slot(tail)] = True
        return True

    def search(self, output: bytes, behind: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """(place, token) wherever a token stands in `output`, or in what is put behind it. (1)"""
        if len(output) <= _STEP:
            return self._search((output + behind).lower())
        return self._search_by_steps(output, behind)

    def _search_by_steps(self, output: bytes, behind: bytes) -> Iterator[tuple[int, bytes]]:
        """A large one is not copied: step by step, each with as much before it as the longest token needs."""
        for first in range(0, len(output), _STEP):
            start = max(0, first - self._longest)
            last = first + _STEP >= len(output)
            part = output[start : first + _STEP] + (behind if last else b"")
            for begin, token in self._search(part.lower()):
                if start + begin + len(token) > first or not first:
                    yield start + begin, token

    def _search(self, haystack: bytes) -> Iterator[tuple[int, bytes]]:
        for first in range(0, len(haystack) - _SHORT + 1, _STEP):
            for size, slots in _slots(haystack[first : first + _STEP + _LONG - 1]):
                tokens = self._tokens[size]
                if not tokens:
                    continue
                for at in self._maps[size].take(slots).nonzero()[0].tolist():
                    end = first + at + size
                    for token in tokens.get(haystack[end - size : end], ()):
                        begin = end - len(token)
                        if begin >= 0 and haystack.startswith(token, begin):
                            yield begin, token


def plain(value: bytes) -> bytes:
    """A value as short ones are compared: without padding, lower case."""
    return value.strip(b" \0").lower()


def _slot(tail: bytes) -> int:
    """The slot of one token's last four or eight bytes; what `_slots` says where they stand."""
    first, second = (int.from_bytes(part, "little") * _SPREAD & 0xFFFFFFFF for part in (tail[:4], tail[4:]))
    return (first ^ second >> _MOVE) >> _DROP


def _slots(part: bytes) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """The slots of the four bytes, and of the eight bytes, at every one of the first `_STEP` positions."""
    spread = np.ndarray((len(part) - _SHORT + 1,), dtype="<u4", buffer=part, strides=(1,)) * np.uint32(_SPREAD)
    yield _SHORT, spread[:_STEP] >> np.uint32(_DROP)
    long = spread[4:] >> np.uint32(_MOVE)
    long ^= spread[:-4]
    long >>= np.uint32(_DROP)
    yield _LONG, long
