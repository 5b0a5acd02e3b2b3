"""Permits, run orders and revocation lists on their way to the nodes: checked once, kept as the texts they are.

The hub decides nothing by them. It passes on what the committee and the permit's persons have signed, so that it is
no mailbox for anybody else's; each node opens every text again with the keys its own hospital trusts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from federation.hub.database import Database, note
from federation.hub.tables import HubDocumentRow
from mediator import canonical
from mediator.analysis import LOCAL
from mediator.canonical import print_time
from mediator.errors import Code, Denied, Reason, UsageFault
from mediator.permit import check_granted, open_known_permits, open_permit, open_revocations, open_run_order
from mediator.revocations import Revocations, forks, take_up
from mediator.signatures import KeyRing, Signed, peek_payload
from mediator.sizes import check_sizes
from mediator.terms import outside, unaddressed
from mediator.types import DataPermit, RevocationList, RunOrder

_Signed = Signed[DataPermit] | Signed[RunOrder] | Signed[RevocationList]


class HubDocuments:
    """The table `documents`."""

    def __init__(self, database: Database, committee: KeyRing, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._committee = committee
        self._clock = clock

    def submit_permit(self, text: str, actor: str) -> Signed[DataPermit]:
        """Take in a data permit. The same one again is no fault; another under the same name and version is, and so is
        one whose model no site could ever release (`check_sizes`)."""
        signed = open_permit(text.strip(), self._committee)
        permit = signed.document
        if reasons := check_sizes(permit):
            raise Denied(reasons)
        with self._database.write() as session:
            self._add(session, signed, permit_name(permit.permit, permit.permit_version), permit.expires, actor)
        return signed

    def submit_revocations(self, text: str, actor: str) -> Signed[RevocationList]:
        """Take in a revocation list, whose number must be higher than any before, and which names the one before it.

        One that forks is refused here, where it can still be mended; a node revokes what it names all the same.
        """
        signed = open_revocations(text.strip(), self._committee)
        with self._database.write() as session:
            newest = self._newest_revocations(session)
            number = signed.document.number
            if newest is not None and int(newest.name) >= number and newest.sha256 != signed.sha256:
                raise Denied(Reason(Code.REVOCATION_LIST_ROLLED_BACK, f"number {newest.name} is known"))
            if newest is not None and forks(self._held(newest), signed):
                reason = Reason(Code.REVOCATION_LIST_FORKED, f"it was made from another list {newest.name}")
                raise Denied(reason, hint="sign it after the list that `cloister hub revocations print` prints")
            self._add(session, signed, str(number), None, actor)
        return signed

    def open_order(self, text: str) -> tuple[Signed[RunOrder], DataPermit]:
        """A run order and the permit it is under. Raises `Denied` when the permit is unknown or names no such key."""
        permits = self._permits()
        try:
            signed = open_run_order(text.strip(), permits)
        except Denied as denied:
            raise _permit_first(text.strip(), permits) or denied from None
        order = signed.document
        for permit in permits:
            if (permit.permit, permit.permit_version) == (order.permit, order.permit_version):
                return signed, permit
        raise Denied(Reason(Code.PERMIT_MISSING, "no permit of this id and version"))

    def signed_permit(self, permit: DataPermit) -> Signed[DataPermit]:
        """The same permit as the committee signed it."""
        name = permit_name(permit.permit, permit.permit_version)
        with self._database.read() as session:
            query = select(HubDocumentRow.text).where(
                HubDocumentRow.kind == DataPermit.KIND, HubDocumentRow.name == name
            )
            return open_permit(session.scalars(query).one(), self._committee)

    def not_granted(self, permit: DataPermit) -> tuple[Reason, ...]:
        """Why no node would serve anything under this permit now, by the committee's documents that are here; empty
        otherwise."""
        return self._not_granted(permit, self._permits())

    def ended(self, permit: str, permit_version: int) -> tuple[Reason, ...]:
        """Why a permit that was in force when its run began is no longer; empty while it is."""
        known = self._permits()
        for each in known:
            if (each.permit, each.permit_version) == (permit, permit_version):
                return self._not_granted(each, known)
        return (Reason(Code.PERMIT_MISSING, "no permit of this id and version"),)

    def _not_granted(self, permit: DataPermit, known: list[DataPermit]) -> tuple[Reason, ...]:
        siblings = [each for each in known if each.permit == permit.permit]
        return check_granted(permit, self.revocations(), siblings=siblings, now=self._clock())

    def submit_local(self, text: str, actor: str) -> Signed[RunOrder]:
        """Take in an order for a local analysis: it is passed on, and nothing is run here. Raises `Denied`."""
        signed, permit = self.open_order(text)
        order = signed.document
        reasons = []
        if order.strategy != LOCAL:
            reasons.append(Reason(Code.RUN_ORDER_MISMATCH, f"a local analysis is ordered as {LOCAL}"))
        reasons += outside(order, permit) + unaddressed(order, permit)
        reasons += order_expired(order, self._clock()) + list(self.not_granted(permit))
        if reasons:
            raise Denied(reasons)
        with self._database.write() as session:
            self.add_order(session, signed, actor)
        return signed

    def add_order(self, session: Session, signed: Signed[RunOrder], actor: str) -> None:
        """Keep a run order, within the caller's transaction."""
        self._add(session, signed, signed.document.run, signed.document.expires, actor)

    def order_text(self, run: str) -> str:
        """The text of a run's order."""
        with self._database.read() as session:
            query = select(HubDocumentRow.text).where(HubDocumentRow.kind == RunOrder.KIND, HubDocumentRow.name == run)
            return session.scalars(query).one()

    def after(self, sequence: int) -> list[tuple[int, str]]:
        """(sequence, text) of every document that came in after `sequence`.

        From the beginning (`sequence` 0): permits and orders that have not expired, and the newest revocation list,
        which goes first so that no node takes up a permit it should have known to be revoked.
        """
        now = print_time(self._clock())
        with self._database.read() as session:
            query = select(HubDocumentRow).where(
                HubDocumentRow.sequence > sequence,
                or_(HubDocumentRow.expires.is_(None), HubDocumentRow.expires > now),
            )
            rows = list(session.scalars(query.order_by(HubDocumentRow.sequence)))
            if sequence == 0:
                newest = self._newest_revocations(session)
                first = [newest] if newest is not None else []
                rows = first + [row for row in rows if row.kind != RevocationList.KIND]
        return [(row.sequence, row.text) for row in rows]

    def newest_sequence(self) -> int:
        with self._database.read() as session:
            query = select(HubDocumentRow.sequence).order_by(HubDocumentRow.sequence.desc()).limit(1)
            return session.scalar(query) or 0

    def newest_revocations(self) -> str | None:
        """The text of the newest revocation list."""
        with self._database.read() as session:
            row = self._newest_revocations(session)
            return None if row is None else row.text

    def revocations(self) -> Revocations | None:
        """All that is revoked, by every list that is here."""
        with self._database.read() as session:
            rows = session.scalars(select(HubDocumentRow).where(HubDocumentRow.kind == RevocationList.KIND)).all()
        held = None
        for row in sorted(rows, key=lambda row: int(row.name)):
            held = take_up(held, open_revocations(row.text, self._committee))
        return held

    def _held(self, row: HubDocumentRow) -> Revocations:
        return take_up(None, open_revocations(row.text, self._committee))

    def _permits(self) -> list[DataPermit]:
        with self._database.read() as session:
            texts = list(session.scalars(select(HubDocumentRow.text).where(HubDocumentRow.kind == DataPermit.KIND)))
        return open_known_permits(texts, self._committee)

    def _newest_revocations(self, session: Session) -> HubDocumentRow | None:
        rows = session.scalars(select(HubDocumentRow).where(HubDocumentRow.kind == RevocationList.KIND)).all()
        return max(rows, key=lambda row: int(row.name), default=None)

    def _add(self, session: Session, signed: _Signed, name: str, expires: datetime | None, actor: str) -> None:
        kind, now = signed.document.KIND, self._clock()
        known = session.scalar(select(HubDocumentRow).where(HubDocumentRow.kind == kind, HubDocumentRow.name == name))
        if known is not None:
            if known.sha256 != signed.sha256:
                raise UsageFault(
                    f"another {kind} of this name is known", hint="documents never change: raise its version"
                )
            return
        session.add(
            HubDocumentRow(
                kind=kind,
                name=name,
                sha256=signed.sha256,
                key_id=signed.key_id,
                received=print_time(now),
                expires=None if expires is None else canonical.print_time(expires),
                text=signed.text,
            )
        )
        note(session, now, actor, "document_submit", f"{kind.removeprefix('cloister.')}/{name}", "done")


def order_expired(order: RunOrder, now: datetime) -> list[Reason]:
    if now < order.expires:
        return []
    return [Reason(Code.RUN_ORDER_EXPIRED, f"expired {print_time(order.expires)}")]


def _permit_first(text: str, permits: Iterable[DataPermit]) -> Denied | None:
    """What to say of an order that was refused, where nobody has published the permit it claims: its key is unknown
    because the permit is, and it is the permit that has to come."""
    claimed = canonical.decode(RunOrder, peek_payload(text))
    if any((each.permit, each.permit_version) == (claimed.permit, claimed.permit_version) for each in permits):
        return None
    missing = permit_name(claimed.permit, claimed.permit_version)
    reason = Reason(Code.PERMIT_MISSING, f"this hub holds no {missing}")
    return Denied(reason, hint="publish the permit first: cloister hub permit publish")


def permit_name(permit: str, version: int) -> str:
    return f"{permit}@{version}"
