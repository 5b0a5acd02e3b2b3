"""Originals at rest: ChaCha20-Poly1305 in chunks, under names that say nothing (RFC 8439).

File: `CLQ1`, 16 bytes of salt, then sealed chunks of `CHUNK_BYTES` (the last one shorter, and marked as the last).
The key of a file is BLAKE2b(quarantine key, salt), so nonces may simply count; a chunk that is missing, moved or cut
off fails to open. A file counts as taken in only once it was renamed to its final name.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mediator.errors import IntegrityBroken

KEY_BYTES = 32
CHUNK_BYTES = 1 << 20
_MAGIC = b"CLQ1"
_SALT_BYTES = 16
_TAG_BYTES = 16


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
        """Copy the file behind a descriptor in: its opaque name, and its size in bytes."""
        name, salt = secrets.token_hex(16), secrets.token_bytes(_SALT_BYTES)
        cipher, part, size = self._cipher(salt), self._folder / f"{name}.part", 0
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(target, "wb") as out:
            out.write(_MAGIC + salt)
            for counter, (chunk, last) in enumerate(_chunks(handle)):
                out.write(cipher.encrypt(_nonce(counter, last), chunk, None))
                size += len(chunk)
        part.rename(self._folder / name)
        return name, size

    def get(self, name: str) -> bytes:
        """An original's bytes. Raises `IntegrityBroken` when it is not what was put in."""
        sealed = memoryview((self._folder / name).read_bytes())
        if bytes(sealed[:4]) != _MAGIC:
            raise IntegrityBroken("a quarantined file is damaged")
        cipher = self._cipher(bytes(sealed[4 : 4 + _SALT_BYTES]))
        sealed, step = sealed[4 + _SALT_BYTES :], CHUNK_BYTES + _TAG_BYTES
        count = max(1, -(-len(sealed) // step))
        try:
            return b"".join(
                cipher.decrypt(_nonce(i, i == count - 1), bytes(sealed[i * step : (i + 1) * step]), None)
                for i in range(count)
            )
        except InvalidTag:
            raise IntegrityBroken("a quarantined file is damaged") from None

    def destroy(self) -> int:
        """Remove every original and the folder; how many there were. Safe to repeat."""
        destroyed = 0
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            destroyed += path.suffix == ""
            path.unlink()
        if self._folder.is_dir():
            self._folder.rmdir()
        return destroyed

    def _cipher(self, salt: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(hashlib.blake2b(salt, key=self._key, person=b"quarantine", digest_size=32).digest())


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
