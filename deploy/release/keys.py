"""A release key: one Ed25519 key for tags, bundles, checksums and provenance, in the files that OpenSSH has for it.

No signature made for one of these can be taken for another's: a manifest begins with a brace, a list of checksums with
a hexadecimal digit, DSSE with `DSSEv1`, and OpenSSH's with `SSHSIG`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from deploy.install.release_keys import ReleaseKey
from deploy.release.failures import Stopped


@dataclass(frozen=True)
class SigningKey:
    """A private key with the name and the file it has. Its `repr` shows neither."""

    private: Ed25519PrivateKey
    public: ReleaseKey
    path: Path

    def __repr__(self) -> str:
        return f"SigningKey({self.public.fingerprint})"

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


def public_line(private: Ed25519PrivateKey, name: str) -> str:
    text = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return f"{text} {name}\n"


def public_of(private: Ed25519PrivateKey, name: str) -> ReleaseKey:
    return ReleaseKey(name, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def keygen(path: Path, name: str) -> SigningKey:
    """Make a key: `path` for its owner alone, `path`.pub for everybody. Neither may be there. Raises `Stopped`."""
    if not name.strip() or not name.isprintable() or len(name) > 80:
        raise Stopped("a release key needs a name of at most 80 printable characters", "whom will sites see as signer?")
    private = Ed25519PrivateKey.generate()  # from the operating system's random source, as `secrets` is
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = path.with_name(path.name + ".pub")
    for place, mode, content in ((path, 0o600, secret), (public, 0o644, public_line(private, name.strip()).encode())):
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        except OSError as error:
            if place == public:
                path.unlink()
            raise Stopped(f"{place} cannot be written ({error.strerror})", "name a file that is not there") from None
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    return SigningKey(private, public_of(private, name.strip()), path)


def load(path: Path) -> SigningKey:
    """The key in `path`, with the name in `path`.pub. Raises `Stopped`, also where others may read it."""
    try:
        mode, raw = path.stat().st_mode & 0o7777, path.read_bytes()
        line = path.with_name(path.name + ".pub").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Stopped(f"{path} and {path.name}.pub cannot be read", "deploy/release.sh keygen makes both") from None
    if mode & 0o077:
        raise Stopped(f"{path} may be read by others (mode {mode:04o})", f"chmod 600 {path}; better, make a new key")
    try:
        private = load_ssh_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise Stopped(f"{path} is no Ed25519 key of OpenSSH without a passphrase", "deploy/release.sh keygen makes one")
    name = line.strip().partition(" ")[2].partition(" ")[2]
    if not name or line != public_line(private, name):
        raise Stopped(f"{path}.pub is another key's", "put the two files back that were made together")
    return SigningKey(private, public_of(private, name), path)
