"""Files taken apart one after the other: what stood in the file before is recognised, not walked through again.

Headers of one series are the same but for a few elements. The reader remembers the last file as runs: stretches of
whole elements that did not change, and between them the elements that did. Bytes that make up whole elements make them
up wherever they stand, so a run that stands in the next file, too, needs one comparison. The window a header is read
through grows until the pixel data begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mediator.deid.screening import Exclusion, Note
from node.deid.file_start import START_BYTES, Start, start_of
from node.deid.stream import MemoryStream, Stream
from node.deid.structure import (
    BIG_ENDIAN,
    ENCAPSULATED,
    EXPLICIT,
    IMPLICIT,
    MAX_ELEMENTS,
    MAX_HEADER_BYTES,
    ElementNode,
    MoreNeeded,
    Pixels,
    Unreadable,
    VrOf,
    Walk,
    pixels_at,
)

# Most headers fit; what does not is read again in a window four times as large.
FIRST_WINDOW = START_BYTES
_LARGEST_FIRST_WINDOW = 1 << 20
_MAX_RUN_BYTES = 1 << 14
# A sequence that is longer is never in memory as nodes, but item by item.
LARGE_BYTES = 1 << 20
_CHARSET = 0x00080005

# A top-level element: tag, VR (of what is UN and undefined: SQ), all its bytes, and where its value begins in them.
Raw = tuple[int, str, bytes, int]


class ByteRun:
    """Consecutive elements as they stand in a file. Compared by identity."""

    __slots__ = ("elements", "first", "last", "raw", "told")

    def __init__(self, elements: tuple[Raw, ...], raw: bytes) -> None:
        self.elements = elements
        self.raw = raw
        self.first = elements[0][0]
        self.last = elements[-1][0]
        self.told: tuple[bytes, dict[str, Any], dict[int, bytes]] | None = None  # what `node.deid.facts` read here


@dataclass(frozen=True)
class Parsed:
    """A file taken apart. `stream` holds the dataset (inflated), `runs` the elements before the pixels, ascending.

    `told`: what `node.deid.facts` read of it once, also for what is made of it by `replace`.
    A run is one element, or several none of which is (0008,0005) Specific Character Set (or private, on request).
    """

    syntax: str
    stream: Stream = field(repr=False)
    runs: tuple[ByteRun, ...] = field(repr=False)
    pixels: Pixels | None
    finding: Exclusion | None = None  # the header is whole, the pixels are not
    vr_of: VrOf = field(default=lambda tag: "UN", repr=False)
    notes: tuple[Note, ...] = ()  # how it was read
    doubt: Exclusion | None = None  # read by force: what the file is, if it does not hold to its end
    told: list[tuple[dict[str, Any], dict[int, bytes]]] = field(default_factory=list, repr=False, compare=False)

    @property
    def implicit(self) -> bool:
        return self.syntax == IMPLICIT

    @property
    def little(self) -> bool:
        return self.syntax != BIG_ENDIAN

    @property
    def is_guessed(self) -> bool:
        """Whether nothing said how the dataset is written."""
        return Note.READ_WITHOUT_META in self.notes

    @property
    def body(self) -> bytes:
        """Everything `pixels` counts in; for small files and tests."""
        return self.stream.read(0, self.stream.size)

    @cached_property
    def elements(self) -> tuple[Raw, ...]:
        """The elements one by one."""
        return tuple(element for run in self.runs for element in run.elements)

    @cached_property
    def nodes(self) -> tuple[ElementNode, ...]:
        """The elements as nodes, sequences taken apart."""
        return tuple(map(self.node, self.elements))

    def pieces(self, element: Raw) -> Iterator[ElementNode]:
        """One top-level element as nodes: a large sequence comes in as many as it has items, each of one item."""
        tag, vr, raw, _start = element
        if vr != "SQ" or len(raw) <= LARGE_BYTES:
            yield self.node(element)
            return
        walk = Walk(raw, len(raw), "<" if self.little else ">", self.vr_of)
        for item in walk.items_of(implicit=self.implicit):
            yield ElementNode(tag, "SQ", items=(item,))

    def node(self, element: Raw) -> ElementNode:
        """One top-level element as a node."""
        tag, vr, raw, start = element
        if vr != "SQ":
            return ElementNode(tag, vr, raw[start:])
        walk = Walk(raw, len(raw), "<" if self.little else ">", self.vr_of)
        return walk.sequence(0, len(raw), implicit=self.implicit)[0]


class Reader:
    """Takes files apart; remembers the runs of the file before, for each way of writing elements."""

    def __init__(self, vr_of: VrOf, *, whole_groups: bool = False) -> None:
        """`vr_of`: a tag's VR by the standard, "UN" where it has none. `whole_groups`: private elements of one group
        are in one run or, where one of them changes, in runs of their own."""
        self._vr_of = vr_of
        self._whole_groups = whole_groups
        self._window = FIRST_WINDOW
        self._before: dict[str, list[ByteRun]] = {}
        self._restless: set[int] = set()  # tags that changed from file to file: never part of a longer run

    def parse(self, stream: Stream) -> Parsed:
        """Raises `Unreadable`."""
        head = stream.read(0, self._window)
        start = start_of(stream, head)
        if start.stream is not stream:
            head = start.stream.read(0, self._window)
        runs, at, known = self.header(start.stream, start.syntax, start.at, head)
        return parsed_from(start, runs, at, start.syntax == IMPLICIT, self._vr_of, known)

    def header(
        self, stream: Stream, syntax: str, start: int, head: bytes = b""
    ) -> tuple[tuple[ByteRun, ...], int, bytes]:
        """The elements before the pixels, where these begin, and what stands there. Raises `Unreadable`.

        `head`: the stream's first bytes, where they were read already.
        """
        form = syntax if syntax in (IMPLICIT, BIG_ENDIAN) else EXPLICIT
        window = self._window
        while True:
            data = head or stream.read(0, window)
            walk = Walk(data, stream.size, ">" if form == BIG_ENDIAN else "<", self._vr_of, build=False)
            try:
                found, at = self._walk(walk, data, start, stream.size, form)
            except MoreNeeded:
                if window >= MAX_HEADER_BYTES:
                    raise Unreadable(Exclusion.TOO_LARGE) from None
                head, window = b"", min(window * 4, MAX_HEADER_BYTES)
                continue
            self._window = min(window, _LARGEST_FIRST_WINDOW)
            return found, at, data[at : at + 12]

    def _walk(self, walk: Walk, data: bytes, at: int, size: int, form: str) -> tuple[tuple[ByteRun, ...], int]:
        before = self._before.setdefault(form, [])
        found: list[ByteRun] = []
        fresh: set[int] = set()
        index, last, end = 0, -1, len(data)
        same = True  # every run of the file before stands, or was one element
        while at < end:
            if index < len(before):
                run = before[index]
                if run.first > last and data.startswith(run.raw, at):
                    found.append(run)
                    at, last, index = at + len(run.raw), run.last, index + 1
                    continue
                if len(run.elements) > 1:  # something in it changed: what, is seen one by one
                    before[index : index + 1] = [ByteRun((element,), element[2]) for element in run.elements]
                    same = False
                    continue
            tag, vr, start, stop = walk.element(at, end, implicit=form == IMPLICIT)
            if stop == at:
                break  # pixel data
            if tag <= last:
                raise Unreadable(Exclusion.MALFORMED)
            last = tag
            raw = data[at:stop]
            found.append(ByteRun(((tag, vr, raw, start - at),), raw))
            fresh.add(tag)
            if len(fresh) > MAX_ELEMENTS:
                raise Unreadable(Exclusion.TOO_MANY_ELEMENTS)
            at = stop
            while index < len(before) and before[index].last <= tag:
                index += 1
        else:
            if at < size:
                raise MoreNeeded
        if at > LARGE_BYTES:  # what is large is not kept for the next file
            found_again = [run for run in found if len(run.raw) <= LARGE_BYTES]
            self._remember(form, found_again, fresh)
        elif same and fresh <= self._restless:
            self._before[form] = found
        else:
            self._remember(form, found, fresh)
        return tuple(found), at

    def _remember(self, form: str, found: list[ByteRun], fresh: set[int]) -> None:
        """The next file is compared with this one. More new than old: another series."""
        if 2 * len(fresh) > sum(len(run.elements) for run in found):
            self._restless = set()
            self._before[form] = [run for run in found if len(run.raw) <= _MAX_RUN_BYTES]
            return
        self._restless |= fresh
        self._before[form] = list(self._merged(found))

    def _merged(self, runs: Iterable[ByteRun]) -> Iterable[ByteRun]:
        """Neighbours that did not change become one."""
        group: list[ByteRun] = []
        size = 0
        for several in _units(runs) if self._whole_groups else ([run] for run in runs):
            length = sum(len(run.raw) for run in several)
            alone = length > _MAX_RUN_BYTES or any(self._is_alone(run.first) for run in several)
            if group and (alone or size + length > _MAX_RUN_BYTES):
                yield _join(group)
                group, size = [], 0
            if alone:
                yield from several
            else:
                group += several
                size += length
        if group:
            yield _join(group)

    def _is_alone(self, tag: int) -> bool:
        return tag in self._restless or tag == _CHARSET


def whole_groups(runs: Sequence[ByteRun]) -> Iterable[ByteRun]:
    """Runs none of which ends inside a private group: what reserves an element's block stands in its own group."""
    group = 0
    for run in runs:
        if run.first >> 16 == group & -(group & 1):  # the group before, if it is a private one
            return map(_join, _units(runs))
        group = run.last >> 16
    return runs


def _units(runs: Iterable[ByteRun]) -> Iterable[list[ByteRun]]:
    """Runs that have parts of one private group together."""
    unit: list[ByteRun] = []
    for run in runs:
        if unit and not _are_of_one_group(unit[-1], run):
            yield unit
            unit = []
        unit.append(run)
    if unit:
        yield unit


def _are_of_one_group(one: ByteRun, other: ByteRun) -> bool:
    """Whether a private group goes on from one run to the next."""
    return one.last >> 16 == other.first >> 16 and other.first >> 16 & 1 == 1


def _join(group: list[ByteRun]) -> ByteRun:
    if len(group) == 1:
        return group[0]
    return ByteRun(tuple(element for run in group for element in run.elements), b"".join(run.raw for run in group))


def parse(content: bytes, vr_of: VrOf) -> Parsed:
    """A DICOM file in memory taken apart. Raises `Unreadable`."""
    return Reader(vr_of).parse(MemoryStream(content))


def parsed_from(
    start: Start, runs: tuple[ByteRun, ...], at: int, implicit: bool, vr_of: VrOf, known: bytes = b""
) -> Parsed:
    """The file with its pixels, which begin at `at` if there are any; `known`: their first bytes."""
    stream, syntax = start.stream, start.syntax
    pixels, finding = None, None
    if at < stream.size:
        try:
            pixels = pixels_at(stream, at, implicit, syntax != BIG_ENDIAN, syntax in ENCAPSULATED, vr_of, known)
        except Unreadable as problem:
            finding = problem.finding
    return Parsed(syntax, stream, runs, pixels, finding, vr_of, start.notes, start.doubt)
