"""Key files: 64 hexadecimal digits on one line, mode 0600, owned by whoever uses them.

A private key that a group or the world can touch, that belongs to another user, or that hides behind a symbolic link
is refused rather than used: it is no longer known who holds it.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from durable.files import create_file
from mediator.errors import UsageFault
from mediator.grammar import HEX256
from mediator.signatures import SigningKey, VerifyKey
from node.host.disk_errors import cannot_write

_HEX = re.compile(rf"{HEX256}\n?")
RAW_KEY_BYTES = 32
# the ending by which a key's public half is told from the key: both are 64 digits
_PUBLIC = ".pub"


def new_signing_key(path: Path) -> SigningKey:
    """Make a key and write `path` (private) and `path.pub`. Never overwrites."""
    seed = secrets.token_bytes(32)
    _write_new(path, seed.hex().encode("ascii") + b"\n", 0o600)
    key = SigningKey(seed)
    write_verify_key(path, key.verify_key)
    return key


def read_signing_key(path: Path, *, owner: int | None = None) -> SigningKey:
    """The private key in `path`, which must belong to `owner` (this process's user unless told).

    Raises `UsageFault` with the reason; no part of the file is ever repeated.
    """
    try:
        text = _read_private(path, 65, owner, _is_key).decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not _HEX.fullmatch(text):
        raise _no_key(path)
    return SigningKey(bytes.fromhex(text))


def _is_key(raw: bytes) -> bool:
    return _HEX.fullmatch(raw.decode("ascii", "replace")) is not None


def _no_key(path: Path) -> UsageFault:
    return UsageFault(f"{path} is not a private key file", hint="make one: cloister keys new FILE")


def public_path(path: Path) -> Path:
    """Where the public half of the private key file `path` stands."""
    return path.with_name(path.name + _PUBLIC)


def write_verify_key(path: Path, key: VerifyKey) -> None:
    """Write the public half beside the private key file `path`."""
    _write_new(public_path(path), key.text.encode("ascii") + b"\n", 0o644)


def read_verify_key(path: Path) -> VerifyKey:
    """The public key in a `.pub` file (64 hexadecimal digits)."""
    check_not_private(path)
    try:
        raw = path.read_bytes()[:66]
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from error
    text = raw.decode("ascii", "replace")
    if not _HEX.fullmatch(text):
        raise UsageFault(f"{path} is not a public key file", hint="the file that ends in .pub is the public one")
    return VerifyKey.from_text(text)


def check_not_private(path: Path) -> None:
    """Raise `UsageFault` for what is given as a public key and is a private one, as far as can be told: it has a public
    half beside it, and nobody but its owner may read it."""
    try:
        private = path.suffix != _PUBLIC and public_path(path).is_file() and not path.stat().st_mode & 0o077
    except OSError:
        return  # whoever reads it says why it cannot be read
    if private:
        raise UsageFault(f"{path} is a private key", hint=f"give its public half: {public_path(path)}")


def new_raw_key(path: Path) -> bytes:
    """Make 32 random bytes (a site or quarantine key) in `path`. Never overwrites."""
    raw = secrets.token_bytes(RAW_KEY_BYTES)
    _write_new(path, raw, 0o600)
    return raw


def retired_record(path: Path) -> Path:
    """Where the end of a raw key is written down."""
    return path.with_name(f"{path.name}.retired.jsonl")


def read_raw_key(path: Path, *, owner: int | None = None) -> bytes:
    """The 32 bytes in `path`."""
    raw = _read_private(path, RAW_KEY_BYTES, owner)
    if len(raw) != RAW_KEY_BYTES:
        raise UsageFault(f"{path} is not a key of {RAW_KEY_BYTES} bytes")
    return raw


def _read_private(
    path: Path, limit: int, owner: int | None, is_key: Callable[[bytes], bool] = lambda _raw: True
) -> bytes:
    """At most `limit` + 1 bytes of a private file, once its kind, owner and mode are known to be right.

    Of a file that others can reach and that is no key at all (`is_key`), that is said: its mode needs no mending.
    """
    # before the mode: a public key reads like a private one, and must not be made to pass for one by a chmod
    if path.suffix == _PUBLIC:
        raise UsageFault(f"{path} is a public key", hint=f"give the private one: {path.with_suffix('')}")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageFault(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        # asked of the open file, not of its name: the name may point elsewhere a moment later
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageFault(f"{path} is not a regular file")
        if found.st_mode & 0o077:
            if not is_key(os.read(descriptor, limit + 1)):
                raise _no_key(path)
            raise UsageFault(f"{path} can be reached by others than its owner", hint=f"chmod 600 {path}")
        if found.st_uid != (os.geteuid() if owner is None else owner):
            raise UsageFault(f"{path} belongs to another user", hint="a private key belongs to the user that uses it")
        return os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        create_file(path, content, mode)
    except FileExistsError:
        raise UsageFault(f"{path} exists, and keys are never overwritten") from None
    except OSError as error:
        raise cannot_write(path, error) from error
