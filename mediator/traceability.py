"""Who could still find the person: what a report says before and after a key is destroyed.

While the key exists, its holder can compute every pseudonym again: the data is pseudonymous (GDPR Art. 4(5)), and says
so. `retirement` is the last thing a key signs: the signing half is derived from it, so that nobody without the key
could have written the record, and nobody at all can once it is gone.
"""

from __future__ import annotations

import hashlib

from mediator import canonical
from mediator.signatures import SigningKey

PSEUDONYMOUS = "pseudonymous: whoever holds the key can compute the pseudonyms again"
NO_TRACEABILITY = "no traceability: the key was destroyed, and no table was kept"
RETIRED = "cloister.deid-key-retired"


def key_id(key: bytes) -> str:
    """64 bits that name a key in reports and tell nothing of it."""
    return hashlib.blake2b(b"key id", key=key, person=b"cloister.key-id", digest_size=8).hexdigest()


def signing_key(key: bytes) -> SigningKey:
    """The Ed25519 key a de-identification key signs its own retirement with."""
    return SigningKey(hashlib.blake2b(b"retire", key=key, person=b"cloister.retire", digest_size=32).digest())


def retirement(key: bytes, time: str) -> bytes:
    """One line, canonical JSON: that the key with this id ceased to exist at `time` (UTC, RFC 3339)."""
    signer = signing_key(key)
    body = {
        "kind": RETIRED,
        "version": 1,
        "key": key_id(key),
        "time": time,
        "traceability": NO_TRACEABILITY,
        "verify": signer.verify_key.text,
    }
    signature = signer.sign_bytes(canonical.dumps(body))
    return canonical.dumps({**body, "signature": signature.hex()}) + b"\n"
