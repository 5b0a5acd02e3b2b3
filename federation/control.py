"""The control channel's messages: what crosses `/v1/control/*` and the two enrolment files, strict and versioned.

Permits, run orders and revocation lists cross as the signed texts they are (`mediator.signatures`), so that neither
side of this channel can change one. Every message says its version; an unknown one is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mediator.errors import Malformed, UnsupportedVersion, UsageFault
from mediator.grammar import DIGEST, HEX256, IDENTIFIER, MAX_SIGNED_BYTES
from mediator.tree import MAX_PROOF

EVENTS = "/v1/control/events"
RELEASES = "/v1/control/releases"
CHECKPOINTS = "/v1/control/checkpoints"
WITNESS = "/v1/control/witness"
RENEW = "/v1/control/renew"
CERTIFICATE = "/v1/control/certificate"
INVENTORY = "/v1/control/inventory"
# what a link asks first: nothing but the headers of `federation.protocol`
HELLO = "/v1/control/hello"
# the one path for who has no certificate yet
ENROL = "/v1/enrol"

ALARMS_HEADER = "cloister-alarms"

# A signed document in JSON is base64 text with no character to escape; the rest of a message is short.
MAX_MESSAGE_BYTES = MAX_SIGNED_BYTES + (64 << 10)
# an offer is five keys and a signing request, 2 KiB; a stranger sends no more than this
MAX_HAND_IN_BYTES = 32 << 10

Site = Annotated[str, StringConstraints(pattern=f"^{IDENTIFIER}$")]
PublicKey = Annotated[str, StringConstraints(pattern=f"^{HEX256}$")]
Hash = Annotated[str, StringConstraints(pattern=f"^{HEX256}$")]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST}$")]
Signed = Annotated[str, StringConstraints(max_length=MAX_SIGNED_BYTES, pattern=r"^[A-Za-z0-9_.-]*$")]
Pem = Annotated[str, StringConstraints(max_length=16 << 10, pattern=r"^-----BEGIN [A-Z ]+-----\n[A-Za-z0-9+/=\n -]+$")]
Line = Annotated[str, StringConstraints(max_length=16 << 10)]

# a code, which a newer hub may have more of, and the number of an event
_ALARM = r"[a-z_]{1,64}\.[0-9]{1,18}"

M = TypeVar("M", bound="ControlMessage")


class ControlMessage(BaseModel):
    """What every message has: a version, and no room for anything unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    # what people call it, where it is a file of theirs
    TITLE: ClassVar[str] = ""
    version: Literal[1, 2] = 1


class ControlEvent(ControlMessage):
    """One line of the events stream.

    `document`: a signed text, at connect everything live and later what is new (the newest revocation list comes
    again as heartbeat). `wake`: an instruction waits, pull now. `alive`: nothing new, the stream stands. `alarm`: the
    site's certificate may be in other hands; `text` is a code and the number of the hub's event, `code.number`. It is
    said only to a link that asks for it (`ALARMS_HEADER`), since an older one would not understand.
    """

    kind: Literal["document", "wake", "alive", "alarm"]
    text: Signed = ""

    @model_validator(mode="after")
    def _is_short_where_no_document(self) -> ControlEvent:
        if self.kind != "document" and not re.fullmatch(_ALARM if self.kind == "alarm" else "", self.text):
            raise ValueError(f"no {self.kind}")
        return self


class ReleaseMessage(ControlMessage):
    """A signed release envelope, sent before its objects."""

    envelope: Signed


class Stored(ControlMessage):
    """The hub has it; `known` when it had it before."""

    outcome: Literal["stored", "known"]


class CheckpointMessage(ControlMessage):
    """A signed audit checkpoint (canonical JSON) to be witnessed: a hash and a size, never a record.

    Version 2 has the proof (RFC 9162 section 2.1.4) that this log goes on where the hub saw it last, or, opening a new
    epoch, that it keeps what it says. Version 1 had none and is refused.
    """

    version: Literal[2] = 2
    checkpoint: Line
    proof: list[Hash] = Field(max_length=MAX_PROOF)


class WitnessQuestion(ControlMessage):
    """Which checkpoint of the asking site's log did the hub sign last?"""


class WitnessedMessage(ControlMessage):
    """A checkpoint with the hub's signature over it: a line for the node's `witness.jsonl`.

    As the answer to a question it is the newest there is, empty where the hub has signed none.
    """

    witness: Line


class Renewal(ControlMessage):
    """A signing request for a new certificate, sent with the old one."""

    request: Pem


class Renewed(ControlMessage):
    """The node's new certificate, for the same key; the old one ends when this one is first shown."""

    certificate: Pem


class DatasetSummary(ControlMessage):
    """A published dataset version, in numbers."""

    dataset: Site
    dataset_version: Digest
    studies: int = Field(ge=0)


class Inventory(ControlMessage):
    """What a node can take part with."""

    software: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9._+-]*$")]
    datasets: list[DatasetSummary] = Field(max_length=1000)
    images: list[Digest] = Field(max_length=1000)


class Problem(ControlMessage):
    """Why a request was refused: a stable code and one line."""

    code: Annotated[str, StringConstraints(max_length=64)]
    message: Annotated[str, StringConstraints(max_length=400)]


class EnrolmentRequest(ControlMessage):
    """What a node hands in to be enrolled: its signing request and its public keys."""

    TITLE = "an enrolment request"
    kind: Literal["cloister.enrolment-request"] = "cloister.enrolment-request"
    site: Site
    request: Pem
    flower_key: Pem
    release_key: PublicKey
    audit_key: PublicKey


class EnrolmentBundle(ControlMessage):
    """What a node is enrolled with: its certificate, whom to trust, and where the hub is."""

    TITLE = "a node's own enrolment bundle"
    kind: Literal["cloister.enrolment-bundle"] = "cloister.enrolment-bundle"
    site: Site
    hub: Annotated[str, StringConstraints(max_length=300, pattern=r"^https://[A-Za-z0-9.\[\]:-]+$")]
    certificate: Pem
    ca: Pem
    instruction_keys: list[PublicKey]
    witness_keys: list[PublicKey]
    flower_key: Pem
    release_key: PublicKey


class EnrolmentAnswer(ControlMessage):
    """A bundle on its way to its node: its text, and the signature of the hub's instruction key over it."""

    TITLE = "an enrolment bundle"
    kind: Literal["cloister.enrolment-answer"] = "cloister.enrolment-answer"
    bundle: Annotated[str, StringConstraints(max_length=64 << 10)]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class EnrolmentOffer(ControlMessage):
    """What six words stand for: a request (JSON), and whose hub and witness keys the node's configuration trusts."""

    request: Annotated[str, StringConstraints(max_length=16 << 10)]
    hub_keys: list[PublicKey] = Field(max_length=16)
    witness_keys: list[PublicKey] = Field(max_length=64)


class HandIn(ControlMessage):
    """An offer (JSON) and the secret that its words were made with, sealed (`federation.introduction`)."""

    offer: Annotated[str, StringConstraints(max_length=MAX_HAND_IN_BYTES)]
    sealed: Annotated[str, StringConstraints(max_length=256, pattern=r"^([0-9a-f]{2})*$")]


class HandOut(ControlMessage):
    """The hub's answer (`EnrolmentAnswer`, JSON), and what shows that who made it was told the words."""

    answer: Annotated[str, StringConstraints(max_length=128 << 10)]
    tag: Hash


_FILES: tuple[type[ControlMessage], ...] = (EnrolmentRequest, EnrolmentBundle, EnrolmentAnswer)


def signed_part(bundle: str) -> bytes:
    """What an instruction key signs of a bundle: no checkpoint and no document begins like this."""
    return b"cloister.enrolment-answer\n" + bundle.encode("utf-8")


def request_id(request: EnrolmentRequest) -> str:
    """What a site reads out by telephone and the hub's operator types: 128 bits over site and every key of a request.

    Hexadecimal, in groups of four. Whoever changes the request on its way changes this.
    """
    digest = hashlib.sha256(encode(request)).hexdigest()[:32]
    return " ".join(digest[begin : begin + 4] for begin in range(0, 32, 4))


def same_request_id(told: str, held: str) -> bool:
    """Whether what was read out is this request's id, whatever its spaces, dashes and capitals.

    Raises `UsageFault` for what is no request id at all: that is a slip of the pen, and no other request.
    """
    plain = re.sub(r"[\s-]", "", told).lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain):
        raise UsageFault("a request id is 32 hexadecimal digits", hint="all eight groups, as the site read them out")
    return plain == held.replace(" ", "")


def encode(message: ControlMessage) -> bytes:
    """The message as one line of JSON without its newline."""
    return message.model_dump_json().encode("utf-8")


def decode(cls: type[M], raw: bytes, *, limit: int = MAX_MESSAGE_BYTES) -> M:
    """The message in `raw`, or `Malformed` / `UnsupportedVersion`; the reason names a field, never its value."""
    if len(raw) > limit:
        raise Malformed(f"a message of {len(raw)} bytes is over the limit of {limit}")
    try:
        plain = json.loads(raw)
        _check_kind(cls, plain)
        version = plain.get("version") if isinstance(plain, dict) else None
        if isinstance(version, int) and version != cls.model_fields["version"].default:
            raise UnsupportedVersion("a message of a version we do not know", hint="upgrade the older side")
        return cls.model_validate(plain)
    except ValidationError as error:
        what = f"not {cls.TITLE}" if cls.TITLE else cls.__name__
        raise Malformed(f"{what}: {_first(error.errors(include_input=False, include_url=False))}") from None
    except Malformed:
        raise
    except Exception as error:
        raise Malformed(f"not {cls.TITLE}: it is not JSON" if cls.TITLE else f"{cls.__name__}: not JSON") from error


def _check_kind(cls: type[ControlMessage], plain: object) -> None:
    """A person hands in one file for another: say which each is, before what field is wrong."""
    claimed = plain.get("kind") if isinstance(plain, dict) else None
    if not cls.TITLE or claimed == cls.model_fields["kind"].default:
        return
    for other in _FILES:
        if claimed == other.model_fields["kind"].default:
            raise Malformed(f"not {cls.TITLE}: it is {other.TITLE}")
    raise Malformed(f"not {cls.TITLE}")


def _first(errors: list[Any]) -> str:
    where = ".".join(str(part) for part in errors[0]["loc"])[:80]
    return f"{where}: {errors[0]['type']}" if where else str(errors[0]["type"])
