"""Who asks: a role, which the socket says, and a person, who is known by a signature or by whoever vouches.

gRPC on a Unix socket tells no user. So a person signs a call: their key's signature is over the verb, the request's
hash and a challenge that this very server handed out a moment ago and takes once. Without one a record names the role,
and `unknown`.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from mediator import grammar
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.grammar import UNKNOWN, check_hex256, check_identifier
from mediator.signatures import KeyRing, Signed, SigningKey, open_signed
from node.ipc.messages import Empty
from node.ipc.verb import Verb

# the metadata key that a signed call has beside its request
SIGNED = "cloister-signed"
# a person types nothing between a challenge and the call that spends it
LIFETIME_S = 30.0
# whoever opens more pushes the oldest out, not the node's memory up
MAX_OPEN = 256

# what a call brought beside its request
Metadata = Mapping[str, str]


@dataclass(frozen=True)
class Caller:
    """Whom a handler answers. `role` is a staff role, or the name of the process at the other end of the socket;
    `person` is empty for such a process, which is none."""

    role: str
    person: str = UNKNOWN
    known_by: Literal["socket", "signature", "voucher"] = "socket"

    def __post_init__(self) -> None:
        if self.person:
            check_person(self.person)
        if self.known_by != "socket" and self.person in ("", UNKNOWN):
            raise UsageFault("a person who is known has a name")

    @property
    def actor(self) -> str:
        """As audit records name them."""
        return f"{self.role}.{self.person}" if self.person else self.role


def check_person(person: str) -> None:
    """Raise `UsageFault` unless `person` is an identifier that a record has room for."""
    try:
        grammar.check_person(person, "the person")
    except ValueError as error:
        raise UsageFault(str(error), hint="use their identifier in this hospital, for example a.silva") from None


@dataclass(frozen=True)
class Challenge:
    """A number to sign, once and soon."""

    challenge: str


CHALLENGE = Verb("challenge", Empty, Challenge)


@dataclass(frozen=True)
class SignedCall:
    """What a person signs. The challenge is one server's own, so nothing signed for it opens another socket."""

    KIND: ClassVar[str] = "cloister.call"
    VERSION: ClassVar[int] = 1

    verb: str
    request_sha256: str
    challenge: str

    def __post_init__(self) -> None:
        check_identifier(self.verb, "a verb")
        check_hex256(self.request_sha256, "a request's hash")
        check_hex256(self.challenge, "a challenge")


def sign_call(key: SigningKey, verb: str, frame: bytes, challenge: str) -> str:
    """The text that goes beside a request; `frame` is the request as it is sent."""
    return key.sign(SignedCall(verb, hashlib.sha256(frame).hexdigest(), challenge))


@dataclass(frozen=True)
class Signers:
    """The keys that stand for persons here. `persons` has a name for each key id of `ring`."""

    ring: KeyRing = field(default_factory=KeyRing)
    persons: Mapping[str, str] = field(default_factory=dict)


class SignedCalls:
    """One server's challenges, and who signed a call to it."""

    def __init__(self, signers: Signers, clock: Callable[[], float] = time.monotonic) -> None:
        self._signers = signers
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, float] = {}

    def challenge(self) -> Challenge:
        """A fresh one."""
        made, now_s = secrets.token_hex(32), self._clock()
        with self._lock:
            self._open = {each: until_s for each, until_s in self._open.items() if until_s > now_s}
            while len(self._open) >= MAX_OPEN:
                del self._open[next(iter(self._open))]
            self._open[made] = now_s + LIFETIME_S
        return Challenge(made)

    def caller(self, known: Caller, text: str, verb: str, frame: bytes) -> Caller:
        """The same caller, as the person who signed this call.

        1. A key that the hospital configured signed it.
        2. Its challenge is one of ours, not yet spent and not too old; from now on it is spent, whatever follows.
        3. It is for this verb and this request.

        Raises `Denied` (`untrusted_key`, `bad_signature`, `challenge_stale`) or `Malformed`.
        """
        signed = self._opened(text)  # (1)
        self._spend(signed.document.challenge)  # (2)
        if signed.document.verb != verb or signed.document.request_sha256 != hashlib.sha256(frame).hexdigest():  # (3)
            raise Denied(Reason(Code.BAD_SIGNATURE, "it was made for another call"))
        return replace(known, person=self._signers.persons[signed.key_id], known_by="signature")

    def _opened(self, text: str) -> Signed[SignedCall]:
        try:
            return open_signed(SignedCall, text, self._signers.ring)
        except Denied as error:
            where = "[staff] persons, [airlock] persons and [trust] stewards"
            raise Denied(error.reasons, hint=f"whose key is it? the configuration names them: {where}") from error

    def _spend(self, challenge: str) -> None:
        with self._lock:
            until_s = self._open.pop(challenge, None)
        if until_s is None or until_s <= self._clock():
            raise Denied(Reason(Code.CHALLENGE_STALE, "this signature's challenge is not open"), hint="try again")
