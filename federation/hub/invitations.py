"""Six words that the operator typed, and the one request that each may let in.

While an invitation is open the port takes hand-ins from whoever has no certificate (`federation.hub.enrolment_door`).
Nothing that a stranger hands in is kept, or even parsed: it opens under the words of an invitation, or is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from federation import introduction
from federation.control import EnrolmentOffer, EnrolmentRequest, HandIn, HandOut, decode
from federation.hub.database import Database, note
from federation.hub.registry import HubIdentity, Registry
from federation.hub.tables import InvitationRow
from mediator.canonical import parse_time, print_time
from mediator.errors import Code, Malformed, NotNow, UsageFault

OPEN, DONE, CLOSED = "open", "done", "closed"
# a telephone call, and a second one
LIFE = timedelta(minutes=30)
# an answer that was lost is asked for again within seconds
_SAID_AGAIN = timedelta(minutes=1)
# each is tried for each hand-in of a stranger
MAX_OPEN = 8
Said = Literal["", "no_such_words", "other_hub", "another_site", "refused"]


@dataclass(frozen=True)
class Invitation:
    """An invitation that is open, or was just answered. `repr` does not show its words."""

    number: int
    site: str
    code: bytes
    expires: datetime

    def __repr__(self) -> str:
        return f"Invitation({self.number}, {self.site})"


class Refused(Exception):
    """A hand-in that lets nobody in; `said` is the word for it, and `site` whose words it had."""

    def __init__(self, said: Said, site: str = "", detail: str = "") -> None:
        super().__init__(detail or said)
        self.said: Said = said
        self.site = site


class Invitations:
    """The table `invitations`."""

    def __init__(self, database: Database, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock

    def open(self, site: str, code: bytes, actor: str, *, again: bool) -> int:
        """A new invitation, which ends an earlier one of the same site. Raises `NotNow` while too many are open."""
        now = self._clock()
        with self._database.write() as session:
            self._end(session, now, site)
            if len(list(session.scalars(_live()))) >= MAX_OPEN:
                raise NotNow(f"{MAX_OPEN} sites are being enrolled", hint="wait until one of them is")
            row = InvitationRow(
                site=site,
                code=code.hex(),
                again=again,
                actor=actor,
                opened=print_time(now),
                expires=print_time(now + LIFE),
                state=OPEN,
                said="",
            )
            session.add(row)
            session.flush()
            note(session, now, actor, "node_invite", site, "done")
            return row.number

    def close(self, number: int) -> None:
        """End an invitation that nobody has used."""
        with self._database.write() as session:
            row = session.get(InvitationRow, number)
            if row is not None and row.state == OPEN:
                _forget(row)

    def state(self, number: int) -> tuple[str, Said]:
        """What became of an invitation (`open`, `done`, `closed`), and why the newest request was refused."""
        with self._database.read() as session:
            row = session.get_one(InvitationRow, number)
            over = row.state == OPEN and parse_time(row.expires) <= self._clock()
            return (CLOSED if over else row.state), row.said  # type: ignore[return-value]

    def live(self) -> Sequence[Invitation]:
        """Those whose words open something now; words of older ones are forgotten."""
        now = self._clock()
        with self._database.read() as session:
            rows = list(session.scalars(_live()))
        if any(parse_time(row.expires) <= now for row in rows):
            with self._database.write() as session:
                self._end(session, now)
        return [
            Invitation(row.number, row.site, bytes.fromhex(row.code), parse_time(row.expires))
            for row in rows
            if parse_time(row.expires) > now
        ]

    def accept(self, handed: HandIn, live: Sequence[Invitation], identity: HubIdentity) -> HandOut:
        """Enrol the site whose words a hand-in has.

        1. It opens under the words of one invitation, and is the very offer that they were made for.
        2. The node's configuration trusts this hub's instruction key and no other, and its witness key.
        3. It is a request of the site that the operator named.
        4. What the registry asks for (`Registry.enrol`).
        5. The very same again, within a minute, is answered with the same: an answer was lost. Another one with these
           words is not.

        Raises `Refused`; what had the right words is recorded.
        """
        found, secret = _matching(handed, live)  # (1)
        refused: Refused | None = None
        with self._database.write() as session:
            row = session.get_one(InvitationRow, found.number)
            try:
                answer = self._answer(session, row, handed, identity)
            except Refused as error:
                refused = error
                if error.said not in ("no_such_words", row.said):  # a node asks again every other second
                    row.said = error.said
                    note(session, self._clock(), row.actor, "node_approve", row.site, "refused", _CODES[error.said])
        if refused is not None:
            raise refused
        return HandOut(answer=answer, tag=introduction.answer_tag(secret, answer))

    def _answer(self, session: Session, row: InvitationRow, handed: HandIn, identity: HubIdentity) -> str:
        offered, now = hashlib.sha256(handed.offer.encode("utf-8")).hexdigest(), self._clock()
        if row.state == DONE and row.request == offered and row.answer is not None:  # (5)
            return row.answer
        if row.state != OPEN or parse_time(row.expires) <= now:
            raise Refused("no_such_words")
        try:
            offer = decode(EnrolmentOffer, handed.offer.encode("utf-8"))
            request = decode(EnrolmentRequest, offer.request.encode("utf-8"))
        except Malformed as error:
            raise Refused("refused", row.site, error.message) from error
        trusted = offer.hub_keys == [identity.instruction.verify_key.text]
        if not trusted or identity.witness.text not in offer.witness_keys:  # (2)
            raise Refused("other_hub", row.site)
        if request.site != row.site:  # (3)
            raise Refused("another_site", row.site)
        try:
            answer = self._registry.enrol(session, request, identity, row.actor, again=row.again).decode("utf-8")
        except (UsageFault, Malformed) as error:  # (4)
            raise Refused("refused", row.site, error.message) from error
        row.state, row.said, row.request, row.answer = DONE, "", offered, answer
        row.expires = print_time(now + _SAID_AGAIN)
        return answer

    def _end(self, session: Session, now: datetime, site: str = "") -> None:
        """Forget the words of those that are over, and of a site's."""
        for row in session.scalars(_live()):
            if row.site == site or parse_time(row.expires) <= now:
                _forget(row)


_CODES: Mapping[str, Code] = {
    "other_hub": Code.UNTRUSTED_KEY,
    "another_site": Code.SITE_NOT_NAMED,
    "refused": Code.UNTRUSTED_KEY,
}


def _live() -> Select[InvitationRow]:
    return select(InvitationRow).where(InvitationRow.code != "").order_by(InvitationRow.number)


def _forget(row: InvitationRow) -> None:
    row.code, row.answer = "", None
    if row.state == OPEN:
        row.state = CLOSED


def _matching(handed: HandIn, live: Sequence[Invitation]) -> tuple[Invitation, bytes]:
    sealed = bytes.fromhex(handed.sealed)
    for each in live:
        secret = introduction.unseal(each.code, sealed, handed.offer)
        if secret is not None:
            return each, secret
    raise Refused("no_such_words")
