"""The patient reader: pydicom takes apart what the strict reader finds contradictory but a viewer would still show.

Elements out of order or twice (the last one counts), VRs nobody knows (read as UN), datasets in another VR form than
their file says, sequences inside UN. What comes back is the same header written anew in the file's own form and read
strictly, so everything behind it works on one kind of input. pydicom accepts what is cut short without a word: lengths
and delimiters are checked here. Small headers only, since pydicom has no limits of its own.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import _is_implicit_vr, data_element_generator
from pydicom.values import convert_SQ

from mediator.deid.screening import Exclusion
from node.deid import encoding
from node.deid.file_start import START_BYTES, Start, start_of
from node.deid.reader import Parsed, Reader, parsed_from
from node.deid.stream import MemoryStream, Stream
from node.deid.structure import (
    BIG_ENDIAN,
    IMPLICIT,
    LONG_VRS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    PIXEL_TAGS,
    SHORT_VRS,
    UNDEFINED,
    ElementNode,
    Unreadable,
    VrOf,
)

T = TypeVar("T")
# pydicom needs some sixty bytes for each byte of a header made of empty elements
MAX_LENIENT_BYTES = 1 << 22
_DELIMITER, _ITEM_DELIMITER = (0xFFFE, 0xE0DD, 0), (0xFFFE, 0xE00D, 0)
_VRS = frozenset(vr.decode() for vr in LONG_VRS | SHORT_VRS)


def parse_leniently(stream: Stream, vr_of: VrOf) -> Parsed:
    """The file taken apart with patience. Raises `Unreadable`."""
    start = start_of(stream, stream.read(0, START_BYTES))
    if start.doubt is not None:  # nothing but its order says that it is DICOM
        raise Unreadable(start.doubt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their texts quote values
        return _Patience(start, vr_of).parse()


@contextmanager
def _in_pydicom() -> Iterator[None]:
    """Whatever pydicom raises over a stranger's bytes is a finding. Nothing of ours is inside: its errors are ours."""
    try:
        yield
    except (RecursionError, MemoryError):
        raise Unreadable(Exclusion.TOO_DEEP) from None
    except EOFError:
        raise Unreadable(Exclusion.TRUNCATED) from None
    except Exception:  # noqa: BLE001 - the engine seam: pydicom declares none of what it raises
        raise Unreadable(Exclusion.MALFORMED) from None


class _Patience:
    def __init__(self, start: Start, vr_of: VrOf) -> None:
        self._start = start
        self._stream = start.stream
        self._syntax = start.syntax
        self._vr_of = vr_of
        self._little = start.syntax != BIG_ENDIAN
        self._seen = 0

    def parse(self) -> Parsed:
        start = self._start.at
        data = self._stream.read(start, MAX_LENIENT_BYTES)
        file = io.BytesIO(data)
        with _in_pydicom():
            implicit = bool(_is_implicit_vr(file, self._syntax == IMPLICIT, self._little, _at_pixels, False))
        file.seek(0)
        nodes = self._nodes(file, data, implicit)
        at = start + file.tell()
        if at - start == len(data) < self._stream.size - start:
            raise Unreadable(Exclusion.TOO_LARGE)
        own = self._syntax == IMPLICIT
        header = MemoryStream(encoding.dataset(nodes, implicit=own, little=self._little))
        runs, _, _ = Reader(self._vr_of).header(header, self._syntax, 0)
        return parsed_from(self._start, runs, at, implicit, self._vr_of)

    def _nodes(self, file: io.BytesIO, data: bytes, implicit: bool) -> tuple[ElementNode, ...]:
        """The elements before the pixels, ascending, each tag once."""
        found: dict[int, ElementNode] = {}
        end = 0
        header = struct.Struct("<HHL" if self._little else ">HHL")
        for element in _each(data_element_generator(file, implicit, self._little, stop_when=_at_pixels)):
            end = file.tell()
            if isinstance(element, DataElement) and header.unpack(data[end - 8 : end]) != _DELIMITER:
                raise Unreadable(Exclusion.TRUNCATED)
            found[int(element.tag)] = self._node(element, implicit, self._little, 0)
        if file.tell() != end:
            raise Unreadable(Exclusion.TRUNCATED)  # the beginning of an element that is not there
        return tuple(node for _, node in sorted(found.items()))

    def _node(self, element: RawDataElement | DataElement, implicit: bool, little: bool, depth: int) -> ElementNode:
        self._seen += 1
        if self._seen > MAX_ELEMENTS:
            raise Unreadable(Exclusion.TOO_MANY_ELEMENTS)
        tag = int(element.tag)
        if tag >> 16 == 0xFFFE or tag >> 16 < 8:
            raise Unreadable(Exclusion.MALFORMED)
        if isinstance(element, DataElement):
            with _in_pydicom():
                items = iter(element.value)
            return ElementNode(tag, "SQ", items=tuple(tuple(self._item(item, depth)) for item in _each(items)))
        value = element.value or b""
        if element.length == UNDEFINED and tag in PIXEL_TAGS and element.VR in ("OB", "OW"):  # an icon's fragments
            return ElementNode(tag, element.VR, value)
        if element.length == UNDEFINED:
            return ElementNode(tag, "SQ", items=tuple(self._items(value, implicit, little, depth)))
        if len(value) != element.length:
            raise Unreadable(Exclusion.TRUNCATED)
        vr = element.VR if element.VR in _VRS else self._vr_of(tag)
        if vr == "SQ":
            return ElementNode(tag, "SQ", items=tuple(self._items(value, implicit, little, depth)))
        return ElementNode(tag, vr, value)

    def _item(self, item: Dataset, depth: int) -> Iterator[ElementNode]:
        """An item pydicom took apart already (of a sequence without a length)."""
        if depth >= MAX_DEPTH:
            raise Unreadable(Exclusion.TOO_DEEP)
        with _in_pydicom():
            (implicit, little), tags = item.original_encoding, sorted(item.keys())
        if bool(little) != self._little:
            raise Unreadable(Exclusion.MALFORMED)  # UN inside big endian: two byte orders in one dataset
        for tag in tags:
            with _in_pydicom():
                element = item.get_item(tag)
            yield self._node(element, bool(implicit), bool(little), depth + 1)

    def _items(self, value: bytes, implicit: bool, little: bool, depth: int) -> Iterator[tuple[ElementNode, ...]]:
        """The items in the value of a sequence of defined length."""
        with _in_pydicom():
            items = list(convert_SQ(value, implicit, little))
        header = struct.Struct("<HHL" if little else ">HHL")
        open_ended = bool(items) and items[-1].is_undefined_length_sequence_item
        if open_ended and header.unpack(value[-8:]) != _ITEM_DELIMITER:
            raise Unreadable(Exclusion.MALFORMED)
        for item in items:
            yield tuple(self._item(item, depth))


def _each(found: Iterator[T]) -> Iterator[T]:
    """What pydicom finds, one after the other: what comes first is judged first."""
    while True:
        with _in_pydicom():
            one = next(found, None)
        if one is None:
            return
        yield one


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return int(tag) in PIXEL_TAGS
