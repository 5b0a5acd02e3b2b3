"""Where the picture in the entropy-coded data of a Huffman-coded JPEG scan ends (ITU-T T.81 F, H): what follows it,
before the next marker, no decoder reads.

To know, the codes must be counted, symbol by symbol; a slice of 512 x 512 takes a quarter of a second. So that is done
only where what stands before a marker, and before fill of any length, may be text: four printable characters, two
letters of UTF-8 or UTF-16, or in the last half kilobyte ten printable characters or seven letters in a row; fewer
letters nearer to the end. Of a value whose coded data end in text more often than chance has it, not all is counted
(`Counting`): it is refused. Restart
intervals beyond those the picture has always go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.deid.pixels.layout import FILL, Counting, MalformedStream

_RESTART = re.compile(rb"(\xff[\xd0-\xd7])")
_TAIL_BYTES = 512
# A shorter word is one only close to the end: the nearer, the shorter, so that chance has a few in a hundred of each.
_NEAR = ((256, rb"[A-Za-z^]{6}"), (32, rb"[A-Za-z^]{5}"), (8, rb"[A-Za-z^]{4}"))
_MAYBE_TEXT = re.compile(
    rb"(?:[\x20-\x7e]{4}|(?:[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}){2}|[\x20-\x7e]\0[\x20-\x7e]|(?:\0[\x20-\x7e]){2})"
    rb"\Z|[\x20-\x7e]{10}|[A-Za-z^ ,.-]{7}" + b"".join(rb"|%s(?=.{0,%d}\Z)" % (word, size) for size, word in _NEAR),
    re.DOTALL,
)


@dataclass(frozen=True)
class Component:
    """Sampling factors, and the quantisation table it names."""

    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class ScanHeader:
    """The components of a scan, their table selectors, and the MCUs between two restart markers (0: all)."""

    components: tuple[Component, ...]
    selectors: tuple[int, ...]
    interval: int


@dataclass
class Tables:
    """Huffman tables as they stand before a scan: class and number as in DHT's first byte."""

    raw: dict[int, bytes] = field(default_factory=dict)
    _made: dict[tuple[bytes, bool], list[int]] = field(default_factory=dict)

    def define(self, number: int, raw: bytes) -> None:
        self.raw[number] = raw

    def symbols(self, number: int) -> list[int]:
        """By the next 16 bits: the length of the code times 256, plus its symbol; 0 where there is no code."""
        raw = self.raw.get(number)
        if raw is None:
            raise MalformedStream
        if (raw, False) not in self._made:
            self._made[raw, False] = _lookup(raw)
        return self._made[raw, False]

    def steps(self, number: int) -> list[int]:
        """The same as lengths alone: the code and the bits that its category says follow (16: none, lossless)."""
        raw = self.raw.get(number, b"")
        if (raw, True) not in self._made:
            made = [entry and (entry >> 8) + (entry & 255) * (entry & 255 != 16) for entry in self.symbols(number)]
            self._made[raw, True] = made
        return self._made[raw, True]


def _lookup(raw: bytes) -> list[int]:
    table: list[int] = []
    symbols = iter(raw[17:])
    for length, count in enumerate(raw[1:17], start=1):
        for _ in range(count):
            table += [length << 8 | next(symbols)] * (1 << (16 - length))
    if len(table) > 1 << 16:
        raise MalformedStream
    return table + [0] * ((1 << 16) - len(table))


def picture_end(
    data: bytes,
    scan: ScanHeader,
    tables: Tables,
    everyone: Sequence[Component],
    size: tuple[int, int],
    lossless: bool,
    counting: Counting,
) -> bytes:
    """The scan's data up to the end of its picture; the same object when nothing follows. Raises `MalformedStream`."""
    wanted = _mcus(scan, everyone, size, lossless)
    most = math.ceil(wanted / scan.interval) if scan.interval else 1
    pieces = _RESTART.split(data, maxsplit=most) if scan.interval or b"\xff\xd0" in data else [data]
    kept, clean = pieces[: 2 * most - 1], len(pieces) <= 2 * most - 1
    for at in range(0, len(kept), 2):
        if not may_be_text(kept[at].rstrip(FILL)[-_TAIL_BYTES:]):
            continue
        counting.spend(len(kept[at]))
        count = min(scan.interval or wanted, wanted - at // 2 * scan.interval)
        length = _ends(kept[at], scan, tables, count, lossless)
        if length < len(kept[at]):
            kept[at], clean = kept[at][:length], False
    return data if clean else b"".join(kept)


def may_be_text(tail: bytes) -> bool:
    """Whether the last bytes of coded data, without fill, may be or hold text."""
    return _MAYBE_TEXT.search(tail) is not None


def _mcus(scan: ScanHeader, everyone: Sequence[Component], size: tuple[int, int], lossless: bool) -> int:
    """How many MCUs a scan has: of one component, its blocks; of several, the units that interleave (A.2)."""
    side = 1 if lossless else 8
    widest, highest = max(one.horizontal for one in everyone), max(one.vertical for one in everyone)
    rows, columns = size
    if len(scan.components) > 1:
        return math.ceil(columns / (side * widest)) * math.ceil(rows / (side * highest))
    (one,) = scan.components
    wide, high = math.ceil(columns * one.horizontal / widest), math.ceil(rows * one.vertical / highest)
    return math.ceil(wide / side) * math.ceil(high / side)


def _ends(piece: bytes, scan: ScanHeader, tables: Tables, mcus: int, lossless: bool) -> int:
    """How many bytes of an interval its MCUs take; all of them where they end before the picture does."""
    plain = piece.replace(b"\xff\x00", b"\xff")
    several = len(scan.components) > 1
    blocks: list[int] = []  # of one MCU, the selector of each
    for one, selector in zip(scan.components, scan.selectors, strict=True):
        blocks += [selector] * (one.horizontal * one.vertical if several else 1)
    bits = _lossless(plain, tables, blocks, mcus) if lossless else _sequential(plain, tables, blocks, mcus)
    used = math.ceil(bits / 8)
    if used >= len(plain):
        return len(piece)
    at = 0
    for part in piece.split(b"\xff\x00"):  # an FF in the plain bytes is two bytes in the stream
        if used <= len(part):
            return at + used
        used -= len(part) + 1
        at += len(part) + 2
        if used <= 0:
            return at
    return len(piece)


def _lossless(plain: bytes, tables: Tables, blocks: list[int], mcus: int) -> int:
    each = [tables.steps(selector >> 4) for selector in blocks]
    padded, at, end = plain + b"\xff\xff\xff", 0, 8 * len(plain)
    for _mcu in range(mcus):
        for steps in each:
            byte = at >> 3
            window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
            step = steps[window >> (8 - (at & 7)) & 0xFFFF]
            if not step:
                raise MalformedStream
            at += step
            if at >= end:
                return at
    return at


def _sequential(plain: bytes, tables: Tables, blocks: list[int], mcus: int) -> int:
    each = [(tables.steps(selector >> 4), tables.symbols(16 | selector & 15)) for selector in blocks]
    padded, at, end = plain + b"\xff\xff\xff", 0, 8 * len(plain)
    for _mcu in range(mcus):
        for first, others in each:
            done = 0
            while done < 64:
                if at >= end:
                    return at
                byte = at >> 3
                window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
                code = window >> (8 - (at & 7)) & 0xFFFF
                if not done:
                    entry, run, bits = first[code], 0, first[code]
                else:
                    entry = others[code]
                    run, bits = entry >> 4 & 15, (entry >> 8) + (entry & 15)
                    if not entry & 15 and run != 15:
                        run = 64  # end of block
                if not entry:
                    raise MalformedStream
                at += bits
                done += run + 1
    return at
