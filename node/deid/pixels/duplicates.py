"""The same picture twice, whatever its transfer syntax, UID or project, and nothing kept that says whose it is.

What is compared is a keyed hash (BLAKE2b under a key of the site) of the decoded frames and their shape. Without the
key nobody can test whether a picture they hold was here; from the hash nothing can be drawn.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from node.deid.pixels.frames import decode, open_film

KEY_BYTES = 32
DIGEST_BYTES = 16


def fingerprint(path: Path, key: bytes) -> bytes:
    """The keyed hash of a file's decoded pixels (16 bytes). Raises `NotDecoded`.

    Stored values as signed 32-bit little endian, colours as RGB, so that 8 bits in 16 equal 8 bits in 8; floats and
    wider integers as they are.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is exactly {KEY_BYTES} bytes")
    film = open_film(path)
    machine = hashlib.blake2b(key=key, person=b"pixel duplicates", digest_size=DIGEST_BYTES)
    machine.update(f"{film.frames} {film.rows} {film.columns} {film.samples}".encode())
    for frame in decode(film, range(film.frames)):
        narrow = frame.dtype.kind in "iu" and frame.dtype.itemsize <= 2
        values = frame.astype("<i4") if narrow else frame.astype(frame.dtype.newbyteorder("<"))
        machine.update(values.tobytes())
    return machine.digest()


class SeenPixels:
    """Fingerprints seen so far, in a file of nothing but them (0600), so that other projects' count too."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._seen: set[bytes] = set()
        if store is not None and store.exists():
            raw = store.read_bytes()
            whole = len(raw) - len(raw) % DIGEST_BYTES  # a write that was broken off
            self._seen = {raw[at : at + DIGEST_BYTES] for at in range(0, whole, DIGEST_BYTES)}

    def add(self, digest: bytes) -> bool:
        """Whether this fingerprint was there before. Remembers it."""
        if digest in self._seen:
            return True
        self._seen.add(digest)
        if self._store is not None:
            handle = os.open(self._store, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(digest)
        return False
