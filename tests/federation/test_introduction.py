"""Six words: what they say, what they do not let pass."""

from __future__ import annotations

import hashlib
import secrets

import pytest

from federation import introduction
from federation.introduction import answer_tag, code_in, code_of, seal, unseal, words_of
from mediator.errors import UsageFault

OFFER = '{"an": "offer"}'


def test_the_words_are_always_the_same_for_the_same_secret_and_offer() -> None:
    """Written out once: two versions of this software must agree on them."""
    assert words_of(code_of(b"s" * 32, OFFER)) == "mujif navab gubun tison golul popom"


def test_words_come_back_however_they_were_typed() -> None:
    for _ in range(200):
        code = secrets.token_bytes(introduction.CODE_BYTES)
        words = words_of(code)
        assert len(words.split()) == 6 and all(len(word) == 5 and word.isalpha() for word in words.split())
        for typed in (words, words.upper(), words.replace(" ", "-"), words.replace(" ", ""), f"  {words}\n"):
            assert code_in(typed) == code


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda words: " ".join(words.split()[:5]), "there are six words, and these are 5"),
        (lambda words: words + " babad", "these are 7"),
        (lambda words: "", "these are 0"),
        (lambda words: " ".join(["bebad", *words.split()[1:]]), "the first word is none of ours"),
        (lambda words: " ".join([*words.split()[:5], "b4bad"]), "six words"),
        (lambda words: " ".join([*words.split()[:5], "babada"]), "the sixth word is none of ours"),
        (lambda words: " ".join([words.split()[1], words.split()[0], *words.split()[2:]]), "misheard"),
    ],
)
def test_what_cannot_be_the_words_is_said_at_once(change: object, says: str) -> None:
    with pytest.raises(UsageFault, match=says):
        code_in(change(words_of(bytes(range(11)))))  # type: ignore[operator]


def test_of_words_misheard_hardly_any_pass() -> None:
    """One letter for a like one, anywhere: a check of 8 bits leaves one in 256."""
    like, passed, tried = {"b": "p", "d": "t", "g": "k", "m": "n", "s": "z", "a": "o", "i": "u"}, 0, 0
    for number in range(100):
        words = words_of(hashlib.sha256(bytes([number])).digest()[:11])
        for at, letter in enumerate(words):
            if letter in like:
                tried += 1
                try:
                    code_in(words[:at] + like[letter] + words[at + 1 :])
                    passed += 1
                except UsageFault:
                    pass
    assert tried > 1000 and passed < tried / 100


def test_a_sealed_secret_opens_for_its_own_offer_and_words_alone() -> None:
    secret = introduction.new_secret()
    code = code_of(secret, OFFER)
    sealed = seal(code, secret, OFFER)
    assert unseal(code, sealed, OFFER) == secret
    assert unseal(code, sealed, OFFER + " ") is None
    assert unseal(bytes(11), sealed, OFFER) is None
    for at in range(len(sealed)):
        assert unseal(code, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], OFFER) is None
    for cut in (b"", sealed[:-1], sealed + b"\0"):
        assert unseal(code, cut, OFFER) is None


def test_who_knows_the_words_can_seal_no_other_offer_under_them() -> None:
    """He may seal what he likes under the code; it is not what the code was made of."""
    secret = introduction.new_secret()
    code, own = code_of(secret, OFFER), '{"an": "other offer"}'
    for guess in (secret, introduction.new_secret(), bytes(32)):
        assert unseal(code, seal(code, guess, own), own) is None
    with pytest.raises(ValueError, match="another length"):
        code_of(secret + OFFER[:1].encode(), OFFER[1:])
    assert unseal(code, seal(code, secret + b"x", OFFER), OFFER) is None


def test_an_answer_is_bound_to_the_secret() -> None:
    one, other = introduction.new_secret(), introduction.new_secret()
    assert len({answer_tag(one, "a"), answer_tag(one, "b"), answer_tag(other, "a")}) == 3
