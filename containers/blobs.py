"""The members of an image archive, each read once and hashed: JSON documents kept, layers looked through, nothing
written. Bounds hold for what is packed and for what comes out of it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.layers import MAX_ENTRIES, MAX_FILE_BYTES, Content, read_layer
from containers.tarballs import BLOCK, PIECE_BYTES, Readable, Tar, TarEntry, is_header
from mediator.errors import IntegrityBroken, Malformed, UsageFault

_NAMED_BY_HASH = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
# a layer that two images share is a link to the first in what Docker saves; in what Podman saves each has a link
_SHARED_LAYER = re.compile(r"\.\./([0-9a-f]{64}(?:/layer)?\.tar)")


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may come to. The largest public training images unpack to some 30 GiB.

    `ratio` is what a packed layer may unpack to, beyond the first `free_bytes`: real layers stay under 20, a bomb
    (gzip packs zeros 1000 times) does not. `kept_bytes` bounds all JSON documents together.
    """

    unpacked_bytes: int = 64 << 30
    members: int = 10_000
    layer_entries: int = MAX_ENTRIES
    ratio: int = 100
    free_bytes: int = 256 << 20
    kept_bytes: int = 64 << 20


@dataclass(frozen=True)
class Blob:
    """One member: the SHA-256 (hex) of its bytes and, unpacked, of its content; a document's bytes; a layer's content,
    or why it is none."""

    name: str
    sha256: str
    size_bytes: int
    unpacked_sha256: str
    unpacked_bytes: int
    document: bytes | None = None
    layer: Content | None = None
    fault: str = "not a tar file"


Member = tuple[TarEntry, Readable]


class Counted:
    """A stream that counts what is read of it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(size)
        self.size += len(piece)
        return piece


class Hashed(Counted):
    """A stream that counts and hashes what is read of it."""

    def __init__(self, stream: Readable) -> None:
        super().__init__(stream)
        self._sha256 = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        piece = super().read(size)
        self._sha256.update(piece)
        return piece

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class _Begun:
    """A stream whose first bytes were looked at."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._rest.read(size)


class Packed:
    """What a packed stream unpacks to. Raises `Malformed` for damaged data and beyond the limits."""

    def __init__(self, stream: Any, packed: Counted, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._packed = packed
        self._limits = limits
        self._size = 0

    def read(self, size: int, /) -> bytes:
        try:
            piece = bytes(self._stream.read(min(size, PIECE_BYTES)))
        except Exception as error:
            raise Malformed("a packed file in the archive is damaged or cut off") from error
        self._size += len(piece)
        if self._size > self._limits.free_bytes + self._limits.ratio * self._packed.size:
            raise Malformed(f"a packed file unpacks to more than {self._limits.ratio} times its size")
        return piece


@dataclass(frozen=True)
class Unpacked:
    """A stream without gzip or zstd around it, its first 512 bytes (or fewer), and whether it had any."""

    stream: Readable
    head: bytes
    was_packed: bool


def unpacked(stream: Counted, limits: ArchiveLimits) -> Unpacked:
    head = _head(stream)
    begun = _Begun(head, stream)
    if head[:2] == b"\x1f\x8b":
        # reads only forward, and several members one after another, as gzip -d does
        plain: Readable = Packed(gzip.GzipFile(fileobj=begun), stream, limits)  # type: ignore[call-overload]
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        plain = Packed(_zstd(begun), stream, limits)
    else:
        return Unpacked(begun, head, False)
    head = _head(plain)
    return Unpacked(_Begun(head, plain), head, True)


def _head(stream: Readable) -> bytes:
    head = b""
    while len(head) < BLOCK and (piece := stream.read(BLOCK - len(head))):
        head += piece
    return head


def _zstd(stream: Readable) -> Any:
    import pyarrow

    class Source:
        """What pyarrow takes for a file."""

        closed = False

        def read(self, size: int = -1) -> bytes:
            return stream.read(size if size >= 0 else PIECE_BYTES)

        def close(self) -> None:
            self.closed = True

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(Source(), "r"), "zstd")


class Shelf:
    """All members of one archive by name. Raises `Malformed` or `IntegrityBroken` for what no honest tool writes.

    1. Names stay inside, and none stands there twice.
    2. Members are plain files and folders; the one link known is a layer that two images share.
    3. A member that is named by a hash has that hash.
    """

    def __init__(self, members: Iterator[Member], limits: ArchiveLimits) -> None:
        self._limits = limits
        self._room = limits.unpacked_bytes
        self._keep = limits.kept_bytes
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        for entry, stream in members:
            name = outer_name(entry.name)
            if name in self._blobs or name in self._links:  # (1)
                raise Malformed("the archive holds a name twice")
            if entry.kind == "symlink" and (shared := _SHARED_LAYER.fullmatch(entry.target)):
                self._links[name] = shared[1]
            elif entry.kind == "file":
                self._blobs[name] = self._take(name, stream)
            elif entry.kind != "folder":  # (2)
                raise Malformed("the archive holds a link or a device")

    def get(self, name: str) -> Blob | None:
        return self._blobs.get(self._links.get(name, name))

    def document(self, name: str) -> bytes | None:
        """A JSON document's bytes, if there is one of this name and it is not beyond every measure."""
        blob = self.get(name)
        return None if blob is None else blob.document

    def _take(self, name: str, stream: Readable) -> Blob:
        raw = Hashed(stream)
        plain = unpacked(raw, self._limits)
        # without packing the two are one, and a gigabyte is hashed once
        inner = Hashed(plain.stream) if plain.was_packed else None
        content = inner or plain.stream
        document, layer, fault = None, None, "not a tar file"
        if is_header(plain.head) or plain.head == bytes(BLOCK):
            try:
                layer = read_layer(_Within(content, self), max_entries=self._limits.layer_entries)
            except Malformed as error:
                fault = error.message
        else:
            document = self._document(content)
        while piece := content.read(PIECE_BYTES):
            self.take_room(len(piece))
        self.take_room(0)
        while raw.read(PIECE_BYTES):
            pass  # what stands behind the packed data belongs to the digest
        named = _NAMED_BY_HASH.fullmatch(name)
        if named and named[1] != raw.sha256:  # (3)
            raise IntegrityBroken(
                f"a member of the archive is not what its name says: {named[1][:12]}…",
                hint="the archive was damaged or changed on its way; ask for it again",
            )
        final = inner or raw
        return Blob(name, raw.sha256, raw.size, final.sha256, final.size, document, layer, fault)

    def _document(self, stream: Readable) -> bytes | None:
        pieces, size, most = [], 0, min(self._keep, MAX_FILE_BYTES)
        while size <= most and (piece := stream.read(PIECE_BYTES)):
            pieces.append(piece)
            size += len(piece)
        if size > most:
            return None
        self._keep -= size
        return b"".join(pieces)

    def take_room(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise Malformed(f"the archive unpacks to more than {self._limits.unpacked_bytes >> 30} GiB")


class _Within:
    """A stream whose bytes count towards the archive's limit. Its own fault is no layer's: it ends the reading."""

    def __init__(self, stream: Readable, shelf: Shelf) -> None:
        self._stream = stream
        self._shelf = shelf

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(size)
        self._shelf.take_room(len(piece))
        return piece


def outer_name(name: str) -> str:
    """A member's name. Raises `Malformed` for one that would leave the archive, or that no tool writes."""
    parts = name.removesuffix("/").split("/")
    if parts[0] == ".":
        parts = parts[1:]
    if name.startswith("/") or not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise Malformed("the archive holds a name that leaves it")
    return "/".join(parts)


# --- where members come from --------------------------------------------------------------------------------


def tar_members(stream: Readable, limits: ArchiveLimits) -> Iterator[Member]:
    """The members of a tar stream, which may be packed as a whole."""
    # nobody asks for the whole archive's hash: each member has its own
    tar = Tar(unpacked(Counted(stream), limits).stream, max_entries=limits.members)
    for entry in tar:
        yield entry, tar


class ProgressFile:
    """A file that tells how far it was read."""

    def __init__(self, descriptor: int, progress: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._progress = progress

    def read(self, size: int, /) -> bytes:
        piece = os.read(self._descriptor, size)
        self._progress(len(piece))
        return piece


def file_members(path: Path, limits: ArchiveLimits, progress: Callable[[int], None]) -> Iterator[Member]:
    """The members of an archive: a tar file, or a folder in OCI layout."""
    if path.is_dir():
        yield from _folder_members(path, limits, progress)
        return
    descriptor = _open(path, 0)
    try:
        yield from tar_members(ProgressFile(descriptor, progress), limits)
    finally:
        os.close(descriptor)


def _folder_members(folder: Path, limits: ArchiveLimits, progress: Callable[[int], None]) -> Iterator[Member]:
    for number, path in enumerate(sorted(folder.rglob("*")), 1):
        name = path.relative_to(folder).as_posix()
        if number > limits.members:
            raise Malformed(f"the folder holds more than {limits.members} files")
        if path.is_dir() and not path.is_symlink():
            continue
        descriptor = _open(path, os.O_NOFOLLOW)
        try:
            yield TarEntry(name, "file", os.fstat(descriptor).st_size, ""), ProgressFile(descriptor, progress)
        finally:
            os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    try:
        # not blocking: a named pipe would wait for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageFault(f"{path} is not a plain file")
    return descriptor
