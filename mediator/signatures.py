"""Signed documents: JWS (RFC 7515), Ed25519 (RFC 8037), a key id in every header.

A signed document is a compact JWS whose payload is the document's canonical bytes. The protected header
holds exactly `alg`, `kid` and `typ`; `typ` is the document's kind, so a signature made for one kind never opens
as another.
A key id is the first 128 bits of the SHA-256 of the raw public key, in hex.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from mediator import canonical
from mediator.canonical import Document
from mediator.errors import Code, Denied, Malformed, Reason
from mediator.grammar import HEX256, MAX_SIGNED_BYTES

# Keys are named by whoever asks and answers; the libraries are for who signs or opens, and a command that does neither
# would wait for them longer than for its answer.
if TYPE_CHECKING:
    from joserfc import jws
    from joserfc.jwk import OKPKey

D = TypeVar("D", bound=Document)

ALGORITHM = "Ed25519"  # RFC 9864: the fully specified name
# 128 of 256 bits: finding a second key with the same id costs 2^128 tries
_KEY_ID_HEX = 32
_PUBLIC_KEY = re.compile(HEX256)


@dataclass(frozen=True)
class VerifyKey:
    """An Ed25519 public key and its id."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise Malformed("an Ed25519 public key has 32 bytes")

    @property
    def key_id(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()[:_KEY_ID_HEX]

    @property
    def text(self) -> str:
        """Hex, as it stands in documents and enrolment bundles."""
        return self.raw.hex()

    @classmethod
    def from_text(cls, text: str) -> VerifyKey:
        """The inverse of `text`. A line end around it is forgiven (key files), another spelling is not."""
        if not _PUBLIC_KEY.fullmatch(text.strip()):
            raise Malformed("a public key is 64 hexadecimal digits in lower case")
        return cls(bytes.fromhex(text.strip()))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def _jwk(self) -> OKPKey:
        from joserfc.jwk import OKPKey

        return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _b64(self.raw)})


class SigningKey:
    """An Ed25519 private key. Its `repr` shows the key id alone."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise Malformed("an Ed25519 private key has 32 bytes")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from joserfc.jwk import OKPKey

        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._jwk = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": _b64(seed), "x": _b64(self.verify_key.raw)})

    @property
    def verify_key(self) -> VerifyKey:
        from cryptography.hazmat.primitives import serialization

        encoding, form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return VerifyKey(self._private.public_key().public_bytes(encoding, form))

    @property
    def key_id(self) -> str:
        return self.verify_key.key_id

    def sign_bytes(self, message: bytes) -> bytes:
        """A detached 64-byte signature (checkpoints)."""
        return self._private.sign(message)

    def sign(self, document: Document) -> str:
        """The signed form of `document` (a frozen dataclass with `KIND` and `VERSION`).

        Raises `Malformed` for what `open_signed` would not open again: over `MAX_DOCUMENT_BYTES`, or with a value that
        no document has. Nobody learns of such a thing from the first person who cannot read it.
        """
        payload = canonical.encode(document)
        canonical.decode(type(document), payload)
        from joserfc import jws

        return jws.serialize_compact(_signing_header(self.key_id, document), payload, self._jwk, registry=_registry())

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


class KeyRing(Mapping[str, VerifyKey]):
    """The keys trusted for one purpose, by key id. An empty ring trusts nobody; several let keys rotate."""

    def __init__(self, keys: Iterable[VerifyKey] = ()) -> None:
        self._keys = {key.key_id: key for key in keys}

    def __getitem__(self, key_id: str) -> VerifyKey:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(sorted(self._keys))})"


@dataclass(frozen=True)
class Signed(Generic[D]):
    """A document whose signature was checked, with the key that made it and the exact text it came in."""

    document: D
    key_id: str
    text: str

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the document's canonical bytes, the same whoever signed it."""
        return hashlib.sha256(canonical.encode(self.document)).hexdigest()


def open_signed(cls: type[D], text: str, keys: Mapping[str, VerifyKey]) -> Signed[D]:
    """The document in `text`, signed by one of `keys`.

    1. The text is a compact JWS of at most `MAX_SIGNED_BYTES`.
    2. Its header is exactly what `SigningKey.sign` prints: alg, kid and typ, the one algorithm, this kind. A
       signed document has one spelling, so the same one never comes back as another text.
    3. The key id is trusted for this purpose.
    4. The signature verifies.
    5. The payload is the canonical form of a document of this kind and of a known version.

    Raises `Malformed`, `UnsupportedVersion`, or `Denied` (`untrusted_key`, `bad_signature`).
    """
    header = _header_of(text)  # (1)
    key_id = header.get("kid")
    if not isinstance(key_id, str) or _signing_header(key_id, cls) != header:  # (2)
        raise Malformed(f"not a signed {cls.KIND}")
    key = keys.get(key_id)
    if key is None:  # (3)
        raise Denied(Reason(Code.UNTRUSTED_KEY, f"no trusted key signs a {cls.KIND} with this key id"))
    from joserfc import jws

    try:
        verified = jws.deserialize_compact(text.encode("ascii"), key._jwk(), registry=_registry())  # (4)
    except Exception as error:
        raise Denied(Reason(Code.BAD_SIGNATURE, str(cls.KIND))) from error
    head, payload, _ = text.split(".")
    if head != _b64(canonical.dumps(header)) or payload != _b64(verified.payload):  # (2)
        raise Malformed(f"a signed {cls.KIND} in another spelling than ours")
    return Signed(canonical.decode(cls, verified.payload), key.key_id, text)  # (5)


def peek_kind(text: str) -> str:
    """The kind a signed document claims, before anything is trusted; for choosing the ring to open it with."""
    kind = _header_of(text).get("typ")
    if not isinstance(kind, str):
        raise Malformed("a signed document without a kind")
    return kind


def peek_payload(text: str) -> bytes:
    """The payload of a signed document whose signature nobody has looked at; for showing, never for deciding."""
    payload: bytes = _extracted(text).payload
    return payload


def _signing_header(key_id: str, kind: type[Document] | Document) -> dict[str, str]:
    return {"alg": ALGORITHM, "kid": key_id, "typ": kind.KIND}


def _header_of(text: str) -> dict[str, object]:
    return dict(_extracted(text).headers())


def _extracted(text: str) -> jws.CompactSignature:
    if len(text) > MAX_SIGNED_BYTES:
        raise Malformed("a signed document is too large")
    from joserfc import jws

    try:
        return jws.extract_compact(text.encode("ascii"), registry=_registry())
    except Exception as error:
        raise Malformed("not a signed document (compact JWS)") from error


def load() -> None:
    """Load the libraries now: a process that serves does not wait for its first document."""
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401

    _registry()


@cache
def _registry() -> jws.JWSRegistry:
    """The library has a limit of its own for what it opens, of 128,000 characters, and none for what it signs: a permit
    of 1,100 tensors was signed and never opened. Ours is in its place, for both."""
    from joserfc import jws

    made = jws.JWSRegistry(algorithms=[ALGORITHM])
    made.max_payload_length = MAX_SIGNED_BYTES
    return made


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
