"""Whose releases this machine installs: Ed25519 public keys in OpenSSH's form, one a line, and their signatures.

Standard library only. It has no Ed25519, so OpenSSL is asked: the library that Python itself stands on, since a minimal
system has no `openssl` program, and the program where an interpreter brought its own library along.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SIGNATURE_BYTES = 64
# RFC 8410: what stands before the 32 bytes of an Ed25519 public key in a SubjectPublicKeyInfo
_SPKI = bytes.fromhex("302a300506032b6570032100")
_SSH_BLOB = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
# OpenSSL's own number for the kind of key, EVP_PKEY_ED25519
_EVP_PKEY_ED25519 = 1087


class Refused(Exception):
    """A bundle, or a key file, that is not to be used. The text and the hint are for the person at the keyboard."""

    def __init__(self, what: str, hint: str, code: int = 4) -> None:
        super().__init__(what)
        self.hint = hint
        self.code = code


@dataclass(frozen=True)
class ReleaseKey:
    """An Ed25519 public key whose releases this machine installs, under the name its owner wrote beside it."""

    name: str
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it."""
        digest = hashlib.sha256(_SSH_BLOB + self.raw).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def pem(self) -> bytes:
        return b"-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" % base64.b64encode(_SPKI + self.raw)


def read_keys(files: Iterable[Path]) -> tuple[ReleaseKey, ...]:
    """The keys of these files. Raises `Refused` for a file that cannot be read, or a line that is no such key."""
    found: dict[bytes, ReleaseKey] = {}
    for file in files:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise Refused(f"{file} cannot be read as a file of release keys", "name the .pub file", 2) from None
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                key = _read_key(line)
                if key is None:
                    raise Refused(
                        f"{file}, line {number}: not an Ed25519 public key of OpenSSH with a name behind it",
                        "deploy/release.sh keygen writes one: ssh-ed25519 AAAA… NAME", 2,
                    )  # fmt: skip
                found.setdefault(key.raw, key)
    return tuple(found.values())


def _read_key(line: str) -> ReleaseKey | None:
    kind, _, rest = line.strip().partition(" ")
    text, _, name = rest.strip().partition(" ")
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    right = kind == "ssh-ed25519" and blob[: len(_SSH_BLOB)] == _SSH_BLOB and len(blob) == len(_SSH_BLOB) + 32
    name = name.strip()
    return ReleaseKey(name, blob[len(_SSH_BLOB) :]) if right and name and name.isprintable() else None


def signed(key: ReleaseKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is this key's over these very bytes (RFC 8032), as OpenSSL 3 says."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto = ctypes.CDLL("libcrypto.so.3")
    except OSError:
        return asked_of_program(key, message, signature)
    return asked_of_library(crypto, key, message, signature)


def asked_of_program(key: ReleaseKey, message: bytes, signature: bytes, program: str = "openssl") -> bool:
    """The same, as `openssl pkeyutl` says. Raises `Refused` where there is no such program."""
    with tempfile.TemporaryDirectory(prefix="cloister-bundle-") as name:
        folder = Path(name)
        for file, content in (("key.pem", key.pem), ("signature", signature), ("message", message)):
            (folder / file).write_bytes(content)
        command = [program, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pem", "-sigfile", "signature"]
        try:
            done = subprocess.run([*command, "-in", "message"], cwd=folder, capture_output=True, check=False)
        except OSError:
            hint = "install the package openssl; its program is asked"
            raise Refused("there is no OpenSSL 3 here to verify a signature with", hint, 2) from None
    return done.returncode == 0


def asked_of_library(crypto: ctypes.CDLL, key: ReleaseKey, message: bytes, signature: bytes) -> bool:
    """The same, as libcrypto says (OpenSSL manual, EVP_DigestVerify)."""
    for name in ("EVP_PKEY_new_raw_public_key", "EVP_MD_CTX_new"):
        getattr(crypto, name).restype = ctypes.c_void_p
    public = ctypes.c_void_p(crypto.EVP_PKEY_new_raw_public_key(_EVP_PKEY_ED25519, None, key.raw, ctypes.c_size_t(32)))
    context = ctypes.c_void_p(crypto.EVP_MD_CTX_new())
    try:
        if not public or not context or crypto.EVP_DigestVerifyInit(context, None, None, None, public) != 1:
            return False
        size = ctypes.c_size_t(len(message))
        return bool(crypto.EVP_DigestVerify(context, signature, ctypes.c_size_t(64), message, size) == 1)
    finally:
        crypto.EVP_MD_CTX_free(context)
        crypto.EVP_PKEY_free(public)
