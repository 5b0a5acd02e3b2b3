"""A tar file read as a stream, strictly and within bounds: names and sizes, never a file on the disk.

Python's own reader takes a header's word for how much memory to fill. This one knows ustar, the two GNU records for
long names and the pax records `path`, `linkpath` and `size`, as engines read them; sparse files and whatever is not
known are refused. Format: POSIX.1-2001 (pax), GNU tar manual "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from mediator.errors import Malformed

BLOCK = 512
PIECE_BYTES = 1 << 20
# PATH_MAX is 4096; extended attributes (capabilities, SELinux) travel in the same record
_MAX_RECORD_BYTES = 1 << 20
_MAX_NAME = 4096
_KINDS: dict[bytes, Literal["file", "folder", "symlink", "hardlink", "other"]] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink", b"5": "folder", b"3": "other",
    b"4": "other", b"6": "other",
}  # fmt: skip


class Readable(Protocol):
    """What can be read: at most `size` bytes at a time, nothing at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class TarEntry:
    """One member: its name as it stands there, and where a link points."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink", "other"]
    size_bytes: int
    target: str


class Tar:
    """The members of a tar stream, once, in order. `read` gives the content of the member that came last."""

    def __init__(self, stream: Readable, *, max_entries: int) -> None:
        self._stream = stream
        self._max_entries = max_entries
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Raises `Malformed` for a truncated or unknown form, and beyond `max_entries`."""
        long: dict[str, str] = {}
        for _ in range(self._max_entries + 1):
            self._skip()
            header = self._header()
            if header is None:
                return
            kind, size = header[156:157], _number(header[124:136])
            if kind in (b"x", b"g", b"L", b"K"):
                record = self._record(size)
                # a global record has no name of its own to give
                long |= {} if kind == b"g" else _pax(record) if kind == b"x" else {_GNU[kind]: _text(record)}
                continue
            if kind not in _KINDS or any(key.startswith("GNU.sparse") for key in long):
                raise Malformed("a tar file holds a sparse file or a member of an unknown kind")
            if "size" in long:
                size = _digits(long["size"])
            name = long.get("path") or _name(header)
            if len(name) > _MAX_NAME:
                raise Malformed("a tar file with a name longer than any system allows")
            target = long.get("linkpath") or _text(header[157:257])
            self._left = size if _KINDS[kind] == "file" else 0
            self._padding = -self._left % BLOCK
            yield TarEntry(name, _KINDS[kind], self._left, target)
            long = {}
        raise Malformed(f"a tar file holds more than {self._max_entries} members")

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes of the current member's content; empty at its end. Raises `Malformed` when cut off."""
        if not self._left or size <= 0:
            return b""
        piece = self._stream.read(min(size, self._left))
        if not piece:
            raise Malformed("a tar file is cut off")
        self._left -= len(piece)
        return piece

    def _skip(self) -> None:
        while self._left:
            self.read(PIECE_BYTES)
        exactly(self._stream, self._padding)
        self._padding = 0

    def _header(self) -> bytes | None:
        header = exactly(self._stream, BLOCK, or_nothing=True)
        if header in (b"", bytes(BLOCK)):
            return None
        if not is_header(header):
            raise Malformed("a tar file with a damaged header")
        return header

    def _record(self, size: int) -> bytes:
        if size > _MAX_RECORD_BYTES:
            raise Malformed("a tar file with a name of more than a megabyte")
        record = exactly(self._stream, size)
        exactly(self._stream, -size % BLOCK)
        return record


_GNU = {b"L": "path", b"K": "linkpath"}


def is_header(block: bytes) -> bool:
    """Whether these 512 bytes begin a member: their sum stands in them."""
    if len(block) < BLOCK:
        return False
    try:
        written = _number(block[148:156])
    except Malformed:
        return False
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:BLOCK]) == written


def exactly(stream: Readable, size: int, *, or_nothing: bool = False) -> bytes:
    """`size` bytes of a stream (or none, where that is allowed). Raises `Malformed` when it ends before."""
    pieces, left = [], size
    while left:
        piece = stream.read(left)
        if not piece:
            if or_nothing and left == size:
                return b""
            raise Malformed("a tar file is cut off")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def header(name: str, size: int) -> bytes:
    """The header of a plain file of ours (ASCII name under 100 bytes, root's, 1970), as ustar writes it."""
    block = bytearray(BLOCK)
    for at, field in (
        (0, name.encode("ascii")), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"),
        (124, b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")), (136, b"00000000000\0"),
        (148, b" " * 8), (156, b"0"), (257, b"ustar\x0000"),
    ):  # fmt: skip
        block[at : at + len(field)] = field
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:262] == b"ustar" and header[262:263] != b" " else name


def _number(field: bytes) -> int:
    """Octal digits, or (first bit set) a big-endian number, as GNU writes sizes of 8 GiB and more."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    return _digits(field.strip(b" \0").decode("latin-1") or "0", 8)


def _digits(text: str, base: int = 10) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise Malformed("a tar file with a damaged number")
    try:
        return int(text, base)
    except ValueError:
        raise Malformed("a tar file with a damaged number") from None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _pax(record: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\n` repeated; LENGTH counts all of it."""
    found, at = {}, 0
    while at < len(record):
        space = record.find(b" ", at, at + 8)
        length = _digits(record[at:space].decode("latin-1")) if space > 0 else 0
        line = record[at : at + length]
        key, equals, value = line[space + 1 - at : -1].partition(b"=")
        if length <= 0 or len(line) != length or line[-1:] != b"\n" or not equals:
            raise Malformed("a tar file with a damaged extended header")
        name = _text(key)
        if name in ("path", "linkpath", "size") or name.startswith("GNU.sparse"):
            found[name] = value.decode("utf-8", "backslashreplace")
        at += length
    return found
