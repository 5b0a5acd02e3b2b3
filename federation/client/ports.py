"""What the link asks of core: the LINK verbs, as a protocol that `node.link` and the fake in `tests/sim` implement.

Every method may raise `NotNow` while core is away; the link then waits and asks again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from mediator.errors import Code, HubCode

# Flower's metadata of a message are 200 bytes. Core keeps them and says them again with every answer, which must fit
# into what crosses a socket, whatever a hub wrote into them.
MAX_REPLY_CONTEXT_BYTES = 16 << 10

# why the hub has no business with this node (`federation.client.standing` says it in words); empty: nothing known
Trouble = Literal[
    "",
    "not_enrolled",
    "revoked",
    "expired",
    "replaced",
    "unknown_here",
    "another_hub",
    "hub_not_in_force",
    "hub_not_named",
    "refused",
    "hub_too_old",
    "node_too_old",
]


@dataclass(frozen=True)
class Greeting:
    """Who this node is, and whether its staff have paused it."""

    site: str
    paused: bool


@dataclass(frozen=True)
class Delivery:
    """Core's answer to an instruction: accepted, or refused with all that the hub is told."""

    accepted: bool
    hub_code: HubCode | None = None


@dataclass(frozen=True)
class OutgoingReply:
    """A reply on its way to the hub: an envelope with a spool folder that holds its objects, or a refusal.

    `folder` is a name under the spool; each object lies in it as a file named by its id.
    """

    instruction: str
    reply_context: bytes
    envelope: str | None = None
    hub_code: HubCode | None = None
    folder: str | None = None


@dataclass(frozen=True)
class Retry:
    """What core says of something that failed: how often it has, and when to try it again, or that it is set aside."""

    times: int
    again_s: float
    set_aside: bool


@dataclass(frozen=True)
class ShownCheckpoint:
    """A signed checkpoint (canonical JSON) for the witness, with the proof that its log goes on where that saw it."""

    text: str
    proof: tuple[str, ...] = ()


class CorePort(Protocol):
    """Core, as the link sees it."""

    async def hello(self, software: str, connected: bool) -> Greeting:
        """Say that the link stands, and whether the hub has it too; said again whenever that changes."""

    async def deliver_document(self, text: str) -> str:
        """Hand over a permit, run order or revocation list; returns what became of it, for the log."""

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        """Hand over an instruction with its model (safetensors, in pieces of at most 1 MiB).

        The very same call again (same text, same reply context) gets the same answer and does nothing twice: the
        link repeats it when it was killed between core's answer and its own note of it. The same text with another
        reply context is a replay.
        """

    def outbox(self) -> AsyncIterator[OutgoingReply]:
        """Replies as they become ready, beginning with every one not yet `delivered`. A release that may not leave
        any more comes again, as a refusal."""

    async def may_leave(self, instruction: str) -> bool:
        """Whether the release for `instruction` may be pushed, as of this moment."""

    async def delivered(self, instruction: str) -> None:
        """The hub has the reply to `instruction`, or will never take it."""

    async def failed(self, kind: str, subject: str, reason: str, final: bool) -> Retry:
        """Something failed although everything around it answered: a `message` or `document` (by its SHA-256), a
        `release` or `refusal` (by its instruction). `final` where there is nothing to try again."""

    async def witness_holds(self, text: str, refused: bool) -> None:
        """The checkpoint that the hub signed last, empty where there is none; asked before one is shown to it, and
        again when it refused one (`refused`)."""

    def checkpoints(self) -> AsyncIterator[ShownCheckpoint]:
        """Checkpoints of the audit log to be shown to the hub, the newest first of all."""

    async def certificate_alarm(self, code: Code) -> None:
        """The site's certificate may be in other hands: the hub says so, or refuses it as replaced."""

    async def witnessed(self, text: str) -> None:
        """A checkpoint co-signed by the hub: a line for `witness.jsonl`."""

    async def trouble(self, trouble: Trouble) -> None:
        """Why the hub has no business with this node; said again with every try, and over once it is connected."""

    async def hub_time(self, time: datetime) -> None:
        """What time it is now, as the hub says."""
