"""Originals at rest: ChaCha20-Poly1305 in chunks, under names that say nothing (RFC 8439).

File: `CLQ1`, 16 bytes of salt, then sealed chunks of `CHUNK_BYTES` (the last one shorter, and marked as the last).
The key of a file is BLAKE2b(quarantine key, salt), so nonces may simply count; a chunk that is missing, moved or cut
off fails to open. A file counts as taken in only once it was renamed to its final name. An original is read in pieces,
whatever its size; no piece of it is ever written down in the clear.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from durable.files import flush_folder
from mediator.errors import IntegrityBroken

if TYPE_CHECKING:
    from node.deid.stream import Hash

KEY_BYTES = 32
CHUNK_BYTES = 1 << 20
_MAGIC = b"CLQ1"
_SALT_BYTES = 16
_TAG_BYTES = 16
_HEAD_BYTES = 4 + _SALT_BYTES
_STEP = CHUNK_BYTES + _TAG_BYTES


class SealedOriginal:
    """Random access to a sealed file (a `node.deid.stream.Stream`); one chunk of it is in memory at a time."""

    def __init__(self, handle: int, cipher: ChaCha20Poly1305) -> None:
        self._handle = handle
        self._cipher = cipher
        sealed = os.fstat(handle).st_size - _HEAD_BYTES
        self._count = max(1, -(-sealed // _STEP))
        self.size = sealed - self._count * _TAG_BYTES
        self._here = (-1, b"")
        self._chunk(self._count - 1)  # it is marked as the last: nothing was cut off

    def close(self) -> None:
        """Close the sealed file."""
        os.close(self._handle)

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes from `at`; fewer only at the end."""
        return b"".join(self._pieces(at, length))

    def copy(self, at: int, length: int, target: int, machine: Hash | None = None) -> int:
        """Append bytes to the descriptor `target` (and to a hash on their way); how many there were."""
        done = 0
        for piece in self._pieces(at, length):
            if machine is not None:
                machine.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(target, rest) :]
            done += len(piece)
        return done

    def _pieces(self, at: int, length: int) -> Iterator[bytes]:
        end = min(at + length, self.size)
        while at < end:
            number, inside = divmod(at, CHUNK_BYTES)
            piece = self._chunk(number)[inside : inside + end - at]
            yield piece
            at += len(piece)

    def _chunk(self, number: int) -> bytes:
        if self._here[0] != number:
            sealed = os.pread(self._handle, _STEP, _HEAD_BYTES + number * _STEP)
            try:
                plain = self._cipher.decrypt(_nonce(number, number == self._count - 1), sealed, None)
            except InvalidTag:
                raise IntegrityBroken("a quarantined file is damaged") from None
            self._here = (number, plain)
        return self._here[1]


@dataclass(frozen=True)
class QuarantineSource:
    """A quarantine as a source of originals (`node.deid.pipeline.InstanceSource`), each by its opaque name."""

    folder: Path
    key: bytes = field(repr=False)

    def open(self, path: str) -> SealedOriginal:
        """Raises `IntegrityBroken`, here or at the piece that is not what was put in; `OSError`."""
        handle = os.open(self.folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            head = os.pread(handle, _HEAD_BYTES, 0)
            if head[:4] != _MAGIC:
                raise IntegrityBroken("a quarantined file is damaged")
            return SealedOriginal(handle, _cipher(self.key, head[4:]))
        except BaseException:
            os.close(handle)
            raise


class Quarantine:
    """The encrypted originals of one order, in a folder (0700) of their own."""

    def __init__(self, folder: Path, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a quarantine key is exactly {KEY_BYTES} bytes")
        self._folder = folder
        self._key = key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return "Quarantine(…)"

    def put(self, handle: int) -> tuple[str, int]:
        """Copy the file behind a descriptor in: its opaque name, and its size in bytes. It is on the disk, and its name
        is after `flush`."""
        name, salt = secrets.token_hex(16), secrets.token_bytes(_SALT_BYTES)
        cipher, part, size = _cipher(self._key, salt), self._folder / f"{name}.part", 0
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(target, "wb") as out:
            out.write(_MAGIC + salt)
            for counter, (chunk, last) in enumerate(_chunks(handle)):
                out.write(cipher.encrypt(_nonce(counter, last), chunk, None))
                size += len(chunk)
            out.flush()
            os.fsync(out.fileno())
        part.rename(self._folder / name)
        return name, size

    def flush(self) -> None:
        """Bring the names of what was put in to the disk."""
        flush_folder(self._folder)

    def put_bytes(self, content: bytes) -> str:
        """The same for what is in memory: its opaque name."""
        handle = os.memfd_create("sealing", os.MFD_CLOEXEC)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.lseek(handle, 0, os.SEEK_SET)
            name, _ = self.put(handle)
        self.flush()
        return name

    def names(self) -> Iterator[str]:
        """Every file there is, one that is not whole too."""
        with os.scandir(self._folder) as entries:
            yield from (entry.name for entry in entries)

    def remove(self, name: str) -> None:
        """Destroy one original. Safe to repeat."""
        (self._folder / name).unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        """An original's bytes. Raises `IntegrityBroken` when it is not what was put in."""
        with self.open(name) as original:
            return original.read(0, original.size)

    @property
    def source(self) -> QuarantineSource:
        """For whoever opens originals in a process of their own."""
        return QuarantineSource(self._folder, self._key)

    @contextmanager
    def open(self, name: str) -> Iterator[SealedOriginal]:
        """An original to read in pieces. Raises `IntegrityBroken`, here or at the piece that is not what was put in."""
        original = self.source.open(name)
        try:
            yield original
        finally:
            original.close()

    def destroy(self) -> int:
        """Remove every original and the folder; how many there were. Safe to repeat."""
        destroyed = 0
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            destroyed += path.suffix == ""
            path.unlink()
        if self._folder.is_dir():
            self._folder.rmdir()
        return destroyed


def _cipher(key: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hashlib.blake2b(salt, key=key, person=b"quarantine", digest_size=32).digest())


def _nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _chunks(handle: int) -> Iterator[tuple[bytes, bool]]:
    """The file in chunks, each with whether it is the last; an empty file is one empty chunk."""
    with os.fdopen(handle, "rb", closefd=False) as file:
        chunk = file.read(CHUNK_BYTES)
        while True:
            following = file.read(CHUNK_BYTES) if len(chunk) == CHUNK_BYTES else b""
            yield chunk, not following
            if not following:
                return
            chunk = following


def seal(key: bytes, plain: bytes) -> bytes:
    """A value that names a patient, for a database: salt, then the sealed value under a key of its own."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return salt + _cipher(key, salt).encrypt(_nonce(0, True), plain, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The value again. Raises `IntegrityBroken`."""
    try:
        return _cipher(key, sealed[:_SALT_BYTES]).decrypt(_nonce(0, True), sealed[_SALT_BYTES:], None)
    except InvalidTag:
        raise IntegrityBroken("a sealed value of an import is damaged") from None


def mark(key: bytes, plain: bytes) -> bytes:
    """The same for equal values, and nothing to whoever lacks the key."""
    return hashlib.blake2b(plain, key=key, person=b"import-mark", digest_size=16).digest()
