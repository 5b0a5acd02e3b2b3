"""Six words by which a hub's operator knows a node's request, and the node knows the hub that answers.

The node draws a secret. Its *offer* is its request, and the hub and witness keys that its configuration trusts; its
*code* is a hash over secret and offer, 88 bits, read out by telephone as six words with a check of 8 bits. It hands in
the offer and the secret sealed under the code, so that

1. who does not know the words learns nothing and can answer nothing: he would have to guess 88 bits in half an hour;
2. who hears the words on the telephone can still hand in no other offer: it would have to have the same 88 bits, a
   second preimage of SHA-256, whatever secret he puts with it;
3. the hub sees in the offer whether it is the hub that this node trusts;
4. the hub's answer comes with a code under the secret, which only who was told the words can open.

So nothing that is compared or kept secret before the telephone call matters, and no certificate of the hub either.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mediator.errors import UsageFault

WORDS = 6
CODE_BYTES = 11
SECRET_BYTES = 32
# sixteen consonants and four vowels that most of Europe's languages tell apart: five letters are 16 bits
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"
_LETTERS = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
# a key serves one sealing: it is made from the code, and no two offers have the same one
_NONCE = bytes(12)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def code_of(secret: bytes, offer: str) -> bytes:
    """What the words say: 88 bits over a secret and an offer."""
    if len(secret) != SECRET_BYTES:
        raise ValueError("a secret of another length could take the offer's first bytes for its last")
    return hashlib.sha256(b"cloister enrolment words\0" + secret + offer.encode("utf-8")).digest()[:CODE_BYTES]


def seal(code: bytes, secret: bytes, offer: str) -> bytes:
    """The secret, for whoever knows the code."""
    return ChaCha20Poly1305(_key(code, offer)).encrypt(_NONCE, secret, None)


def unseal(code: bytes, sealed: bytes, offer: str) -> bytes | None:
    """The secret of an offer that belongs to a code; None for every other offer, and every other code."""
    try:
        secret = ChaCha20Poly1305(_key(code, offer)).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        return None
    fits = len(secret) == SECRET_BYTES and hmac.compare_digest(code_of(secret, offer), code)
    return secret if fits else None


def answer_tag(secret: bytes, answer: str) -> str:
    """What shows that an answer is from somebody who was told the words (hex)."""
    return hmac.digest(secret, b"cloister enrolment answer\0" + answer.encode("utf-8"), "sha256").hex()


def words_of(code: bytes) -> str:
    """A code as six words with spaces between them."""
    whole = code + _check(code)
    return " ".join(_word(int.from_bytes(whole[at : at + 2], "big")) for at in range(0, 2 * WORDS, 2))


def code_in(words: str) -> bytes:
    """The code in six words as somebody typed them. Raises `UsageFault` for what one of them cannot be.

    Of the words that were misheard for others one in 256 is not noticed here; the request then fits them not.
    """
    given = re.findall(r"[^\W\d_]+|[\d_]+", words.casefold())
    if len(given) == 1 and len(given[0]) == WORDS * 5:
        given = [given[0][at : at + 5] for at in range(0, WORDS * 5, 5)]
    if len(given) != WORDS:
        raise UsageFault(f"there are six words, and these are {len(given)}", hint="as the site reads them out")
    whole = b"".join(_number(word, at).to_bytes(2, "big") for at, word in enumerate(given))
    code, check = whole[:CODE_BYTES], whole[CODE_BYTES:]
    if _check(code) != check:
        raise UsageFault("one of these words was misheard", hint="let the site read them out again, letter by letter")
    return code


def _key(code: bytes, offer: str) -> bytes:
    salt = hashlib.sha256(offer.encode("utf-8")).digest()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=b"cloister enrolment seal").derive(code)


def _check(code: bytes) -> bytes:
    return hashlib.sha256(b"cloister enrolment check\0" + code).digest()[:1]


def _word(number: int) -> str:
    letters = []
    for choice in reversed(_LETTERS):
        number, at = divmod(number, len(choice))
        letters.append(choice[at])
    return "".join(reversed(letters))


def _number(word: str, at: int) -> int:
    number = 0
    if len(word) != len(_LETTERS) or any(letter not in choice for letter, choice in zip(word, _LETTERS, strict=True)):
        hint = "five letters each, as in babad: a consonant, then a, i, o or u, in turn"
        raise UsageFault(f"the {_ORDINALS[at]} word is none of ours", hint=hint)
    for letter, choice in zip(word, _LETTERS, strict=True):
        number = number * len(choice) + choice.index(letter)
    return number
