"""One certificate at a time: which of them open the hub's door, how a site gets its next, and how theft shows.

A site has one current certificate. Its renewal is for the same key, after two thirds of its life; the old one ends when
the new one is first shown. So who has stolen a certificate with its key can go on with it only in the site's place, and
either sends the other to a door that no longer opens. That, and a second renewal of one certificate, are *alarms*: an
event of verdict `alarm` here, and a word to the site, which writes it down as well. A new key takes enrolling anew.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from federation import pki
from federation.hub.database import Database, note
from federation.hub.overview import ALARM
from federation.hub.peers import Peer, peer_of
from federation.hub.tables import CertificateRow, EventRow, SiteRow
from mediator.canonical import parse_time, print_time
from mediator.errors import CloisterError, Code, Denied, NotNow, Reason

log = logging.getLogger("cloister.hub")

ACTIVE, REVOKED = "active", "revoked"
# so many certificates are made in place of one; who asks still is given the last of them
MAX_RENEWALS = 5
# connections begun with the old certificate may arrive after the first with the new one
CROSSING = timedelta(seconds=60)
# what one certificate does again and again is written down this often
_SAID_AGAIN = timedelta(days=1)


@dataclass(frozen=True)
class Credential:
    """A certificate in force: whose, until when, and whether it was never shown before."""

    peer: Peer
    expires: datetime
    fresh: bool


@dataclass(frozen=True)
class Standing:
    """The certificates of active sites that are neither revoked nor expired, by serial number.

    `ended` were replaced by a newer one: they open nothing, but who shows one is told so. Of two, the one of the higher
    `number` was read later.
    """

    in_force: Mapping[int, Credential] = field(default_factory=dict)
    ended: frozenset[int] = frozenset()
    number: int = field(default=0, compare=False)

    @property
    def serials(self) -> tuple[frozenset[int], frozenset[int]]:
        """What is different when anybody may come in who could not before, or the other way round."""
        return frozenset(self.in_force), self.ended


class Certificates:
    """The certificates in `hub.db`, issued by one authority."""

    def __init__(self, database: Database, authority: pki.Authority, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._authority = authority
        self._clock = clock
        # reads are numbered in the order in which they see the database
        self._reading, self._number = threading.Lock(), 0

    def standing(self) -> Standing:
        """Who may come in at this moment."""
        now = print_time(self._clock())
        with self._reading, self._database.read() as session:
            self._number += 1
            number = self._number
            query = (
                select(CertificateRow, SiteRow)
                .join(SiteRow, SiteRow.site == CertificateRow.site)
                .where(SiteRow.state == ACTIVE, CertificateRow.revoked.is_(None), CertificateRow.expires > now)
            )
            in_force, ended = {}, set()
            for row, site in session.execute(query):
                if row.ended is None:
                    expires = parse_time(row.expires)
                    in_force[int(row.serial, 16)] = Credential(peer_of(site), expires, row.used is None)
                else:
                    ended.add(int(row.serial, 16))
        return Standing(in_force, frozenset(ended), number)

    def renew(self, site: str, serial: int, request: str) -> str:
        """A new certificate (PEM) in place of the one shown, from a signing request.

        1. The site is active and the certificate shown is its current one.
        2. The request is for the very key of that certificate.
        3. Two thirds of its life are over.
        4. The very same request again is answered with the same certificate: an answer was lost, or could not be kept.
           Nobody but who made it has it.
        5. Another request is a second renewal, and an alarm: a link forgot its request, or two have this key. It ends
           what was given before. Past `MAX_RENEWALS` there is no new one, but the last again: a thief who asks and asks
           must not lock the site out.

        The new one is in force from when it is first shown; until then the one shown stays. Raises `Denied`, `NotNow`,
        `Malformed`; refusals are recorded.
        """
        now, asked = self._clock(), hashlib.sha256(request.encode()).hexdigest()
        refusal: CloisterError | None = None
        with self._database.write() as session:
            owner, row = session.get(SiteRow, site), session.get(CertificateRow, f"{serial:x}")
            if owner is None or owner.state != ACTIVE or row is None or row.revoked or row.ended:  # (1)
                raise Denied(Reason(Code.SITE_NOT_NAMED, "this site is not enrolled with this certificate"))
            certificate = self._authority.issue_node(request, site, now)
            held = pki.parse_certificate(row.pem)
            if certificate.public_key() != held.public_key():  # (2)
                refusal = Denied(Reason(Code.UNTRUSTED_KEY, "a renewal is for the same key; enrol anew for another"))
                _say(session, now, row, "node_renew", ALARM, Code.UNTRUSTED_KEY)
            elif not pki.due_for_renewal(held, now):  # (3)
                refusal = NotNow("a certificate is renewed after two thirds of its life")
                _say(session, now, row, "node_renew", "refused", "too_early")
            elif (given := _successor(session, row)) is not None and given.request == asked:  # (4)
                return given.pem
            elif row.renewals >= MAX_RENEWALS and given is not None:  # (5)
                _say(session, now, row, "node_renew", ALARM, Code.RENEWED_TWICE)
                return given.pem
            elif row.renewals >= MAX_RENEWALS:
                refusal = NotNow("this certificate was renewed too often", hint="enrol the site anew")
                _say(session, now, row, "node_renew", "refused", "too_often")
            else:
                row.renewals += 1
                if row.renewals > 1:  # (5)
                    _say(session, now, row, "node_renew", ALARM, Code.RENEWED_TWICE)
                _end_others(session, site, now, but=row.serial, unused=True)
                session.add(certificate_row(certificate, site, now, asked))
                note(session, now, site, "node_renew", _name(row), "done")
        if refusal is not None:
            raise refusal
        return pki.certificate_pem(certificate).decode("ascii")

    def take_up(self, serial: int) -> None:
        """A certificate is shown for the first time: from now on it is its site's only one."""
        now = self._clock()
        with self._database.write() as session:
            row = session.get(CertificateRow, f"{serial:x}")
            if row is None or row.used or row.ended or row.revoked:
                return
            row.used = print_time(now)
            _end_others(session, row.site, now, but=row.serial)
            note(session, now, row.site, "node_certificate", _name(row), "done")

    def shown_after_end(self, serial: int) -> str | None:
        """A replaced certificate was shown. The site that must be told of it; none when that was said before."""
        now = self._clock()
        with self._database.write() as session:
            row = session.get(CertificateRow, f"{serial:x}")
            if row is None or row.ended is None or timedelta(0) <= now - parse_time(row.ended) < CROSSING:
                return None
            return row.site if _say(session, now, row, "node_certificate", ALARM, Code.CERTIFICATE_REPLACED) else None


def certificate_row(certificate: Any, site: str, now: datetime, request: str | None = None) -> CertificateRow:
    return CertificateRow(
        serial=f"{certificate.serial_number:x}",
        site=site,
        issued=print_time(now),
        expires=print_time(certificate.not_valid_after_utc),
        pem=pki.certificate_pem(certificate).decode("ascii"),
        request=request,
    )


def _successor(session: Session, row: CertificateRow) -> CertificateRow | None:
    """The certificate that was made in place of this one and never shown."""
    query = select(CertificateRow).where(
        CertificateRow.site == row.site,
        CertificateRow.serial != row.serial,
        CertificateRow.request.is_not(None),
        CertificateRow.used.is_(None),
        CertificateRow.ended.is_(None),
        CertificateRow.revoked.is_(None),
    )
    return session.scalars(query).first()


def _end_others(session: Session, site: str, now: datetime, *, but: str = "", unused: bool = False) -> None:
    query = select(CertificateRow).where(
        CertificateRow.site == site, CertificateRow.serial != but, CertificateRow.ended.is_(None)
    )
    for row in session.scalars(query):
        if not (unused and row.used):
            row.ended = print_time(now)


def _say(session: Session, now: datetime, row: CertificateRow, action: str, verdict: str, code: str) -> bool:
    """Write down what somebody did with a certificate; false where the same was written within a day."""
    since, until = print_time(now - _SAID_AGAIN), print_time(now)  # what a clock ahead wrote silences nothing
    same = select(EventRow.sequence).where(
        EventRow.object == _name(row), EventRow.code == code, EventRow.verdict == verdict,
        EventRow.time > since, EventRow.time <= until,
    )  # fmt: skip
    if session.scalar(same.limit(1)) is not None:
        return False
    if verdict == ALARM:
        log.error("alarm: %s at %s: its certificate may be in other hands (see cloister hub status)", code, row.site)
    note(session, now, row.site, action, _name(row), verdict, code)
    return True


def _name(row: CertificateRow) -> str:
    return f"certificate/{row.serial}"
