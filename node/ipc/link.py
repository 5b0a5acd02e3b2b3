"""`link.sock`: what the link asks of core. Replies, greetings and deliveries cross as the link itself has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from federation.client.ports import Delivery, Greeting, OutgoingReply, Retry, ShownCheckpoint, Trouble
from mediator.errors import Code
from node.ipc.documents import DocumentOutcome
from node.ipc.messages import Empty, SignedText
from node.ipc.verb import Verb


@dataclass(frozen=True)
class Hello:
    """The link stands; `connected` when the hub has it too."""

    link_version: str
    connected: bool


@dataclass(frozen=True)
class InstructionStart:
    """An instruction as signed by the hub, and what the link needs to build the reply later. The model follows as
    raw chunks of one safetensors file."""

    text: str
    reply_context: bytes


@dataclass(frozen=True)
class InstructionId:
    instruction: str


@dataclass(frozen=True)
class Failed:
    """What failed, although everything around it answered; `reason` is one word."""

    kind: str
    subject: str
    reason: str
    final: bool


@dataclass(frozen=True)
class Alarm:
    """Why the site's certificate may be in other hands."""

    code: Code


@dataclass(frozen=True)
class Leave:
    """Whether a release may leave now. One that may not is told again by the outbox, as the refusal it has become."""

    allowed: bool


@dataclass(frozen=True)
class WitnessHolds:
    """The checkpoint that the hub signed last (empty: none), asked at first or after it `refused` one."""

    text: str
    refused: bool


@dataclass(frozen=True)
class HubTrouble:
    """Why the hub has no business with this node."""

    trouble: Trouble


@dataclass(frozen=True)
class HubTime:
    """What time it is now, as the hub says over TLS."""

    time: datetime


HELLO = Verb("hello", Hello, Greeting)
DELIVER_DOCUMENT = Verb("deliver_document", SignedText, DocumentOutcome)
DELIVER_INSTRUCTION = Verb("deliver_instruction", InstructionStart, Delivery, "upload")
OUTBOX = Verb("outbox", Empty, OutgoingReply, "server")
# asked right before a release is pushed: it may have waited for weeks since the outbox told of it
MAY_LEAVE = Verb("may_leave", InstructionId, Leave)
DELIVERED = Verb("delivered", InstructionId, Empty)
FAILED = Verb("failed", Failed, Retry)
# what the hub signed last; a checkpoint of the audit log for it to sign; then the same with the hub's signature
WITNESS_HOLDS = Verb("witness_holds", WitnessHolds, Empty)
CHECKPOINTS = Verb("checkpoints", Empty, ShownCheckpoint, "server")
WITNESSED = Verb("witnessed", SignedText, Empty)
CERTIFICATE_ALARM = Verb("certificate_alarm", Alarm, Empty)
TROUBLE = Verb("trouble", HubTrouble, Empty)
HUB_TIME = Verb("hub_time", HubTime, Empty)
