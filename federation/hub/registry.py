"""Who may connect: enrolled sites, their certificates and keys, and their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from federation import pki
from federation.control import (
    EnrolmentAnswer,
    EnrolmentBundle,
    EnrolmentRequest,
    Inventory,
    decode,
    encode,
    request_id,
    same_request_id,
    signed_part,
)
from federation.hub.certificates import ACTIVE, REVOKED, certificate_row
from federation.hub.database import Database, note
from federation.hub.overview import Overview
from federation.hub.peers import Peer, peer_of
from federation.hub.tables import CertificateRow, SiteRow
from mediator.canonical import parse_time, print_time
from mediator.errors import Code, Denied, Malformed, Reason, UsageFault
from mediator.signatures import SigningKey, VerifyKey


@dataclass(frozen=True)
class HubIdentity:
    """What this hub says of itself in a bundle: where it is, and its keys."""

    url: str
    instruction: SigningKey
    witness: VerifyKey


class Registry:
    """Sites and certificates in `hub.db`, issued by one authority."""

    def __init__(self, database: Database, authority: pki.Authority, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._authority = authority
        self._clock = clock

    def approve(self, raw: bytes, told: str, identity: HubIdentity, actor: str, *, again: bool = False) -> bytes:
        """Enrol the site of a request (JSON) and return its bundle (JSON), signed. `told` is the request id that the
        site read out: a request that was changed on its way has another, and that is recorded.

        Raises `Malformed`, `Denied`, `UsageFault`.
        """
        request = decode(EnrolmentRequest, raw)
        if not same_request_id(told, request_id(request)):
            with self._database.write() as session:
                note(session, self._clock(), actor, "node_approve", request.site, "refused", Code.UNTRUSTED_KEY)
            reason = "the site read out another request id: this request is not the one it made"
            raise Denied(Reason(Code.UNTRUSTED_KEY, reason), hint="ask the site for its request again, by another way")
        with self._database.write() as session:
            return self.enrol(session, request, identity, actor, again=again)

    def may_come(self, site: str, *, again: bool) -> None:
        """Raise `UsageFault` for a site that could not be enrolled as it stands, whatever its request."""
        with self._database.read() as session:
            _check_comes(session.get(SiteRow, site), site, again=again)

    def enrol(
        self, session: Session, request: EnrolmentRequest, identity: HubIdentity, actor: str, *, again: bool
    ) -> bytes:
        """Enrol the site of a request that is known to be its own, within the caller's transaction.

        1. The site is not enrolled and active: revoke it first, or a stranger's request with the same name would take
           its place.
        2. A site that was revoked comes back with `again` only, recorded, and never with a key that it showed
           before or that was revoked.
        3. Its Flower key is no other site's.

        Raises `Malformed`, `UsageFault`.
        """
        now, row = self._clock(), session.get(SiteRow, request.site)
        _check_flower_key(request.flower_key)
        certificate = self._authority.issue_node(request.request, request.site, now)
        _check_comes(row, request.site, again=again)  # (1)
        if row is not None:  # (2)
            _check_new_key(session, certificate, request.site)
        taken = select(SiteRow.site).where(SiteRow.flower_key == request.flower_key, SiteRow.site != request.site)
        if session.scalar(taken) is not None:  # (3)
            raise UsageFault("another site has this Flower key")
        session.merge(
            SiteRow(
                site=request.site,
                state=ACTIVE,
                enrolled=print_time(now),
                flower_key=request.flower_key,
                release_key=request.release_key,
                audit_key=request.audit_key,
            )
        )
        session.flush()
        session.add(certificate_row(certificate, request.site, now))
        note(session, now, actor, "node_approve", request.site, "done", "again" if row is not None else "")
        return self._answer(request, certificate, identity)

    def _answer(self, request: EnrolmentRequest, certificate: x509.Certificate, identity: HubIdentity) -> bytes:
        bundle = EnrolmentBundle(
            site=request.site,
            hub=identity.url,
            certificate=pki.certificate_pem(certificate).decode("ascii"),
            ca=self._authority.ca.read_text("ascii"),
            instruction_keys=[identity.instruction.verify_key.text],
            witness_keys=[identity.witness.text],
            flower_key=request.flower_key,
            release_key=request.release_key,
        )
        text = encode(bundle).decode("utf-8")
        signature = identity.instruction.sign_bytes(signed_part(text)).hex()
        return encode(EnrolmentAnswer(bundle=text, signature=signature))

    def revoke(self, site: str, actor: str) -> None:
        """End a site: every certificate of it goes on the revocation list. Raises `UsageFault` for an unknown one."""
        now = self._clock()
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is None:
                raise UsageFault("no such site is enrolled")
            row.state = REVOKED
            unrevoked = select(CertificateRow).where(CertificateRow.site == site, CertificateRow.revoked.is_(None))
            for certificate in session.scalars(unrevoked):
                certificate.revoked = print_time(now)
            note(session, now, actor, "node_revoke", site, "done")
        self.sign_revocations()

    def sign_revocations(self) -> None:
        """Write the list of revoked certificates anew; expired ones may leave it (RFC 5280 section 3.3)."""
        now = self._clock()
        with self._database.read() as session:
            query = select(CertificateRow.serial, CertificateRow.revoked).where(
                CertificateRow.revoked.is_not(None), CertificateRow.expires > print_time(now)
            )
            entries = [pki.Revoked(int(serial, 16), parse_time(at)) for serial, at in session.execute(query) if at]
        self._authority.sign_revocations(entries, now)

    def active(self) -> dict[str, Peer]:
        """Every active site, by name."""
        with self._database.read() as session:
            return {row.site: peer_of(row) for row in session.scalars(select(SiteRow).where(SiteRow.state == ACTIVE))}

    def seen(self, site: str) -> None:
        """Note that a site's events stream stands."""
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is not None:
                row.connected = print_time(self._clock())

    def speaks(self, site: str, spoken: int) -> None:
        """Note which protocol a site's link says it speaks."""
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is not None:
                row.protocol = spoken

    def take_inventory(self, site: str, inventory: Inventory) -> None:
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is not None:
                row.inventory, row.inventoried = inventory.model_dump_json(), print_time(self._clock())

    def near_their_end(self, within: timedelta) -> list[str]:
        """Active sites whose newest certificate ends soon, or has."""
        soon = print_time(self._clock() + within)
        rows = Overview(self._database.path).nodes()
        return [row["site"] for row in rows if row["state"] == ACTIVE and (row["certificate_expires"] or "") < soon]


def _check_comes(row: SiteRow | None, site: str, *, again: bool) -> None:
    if row is not None and row.state == ACTIVE:
        raise UsageFault(f"{site} is enrolled", hint="revoke it before enrolling it anew")
    if row is not None and not again:
        raise UsageFault(f"{site} was revoked", hint="if it is to come back: --again")


def _check_new_key(session: Session, certificate: x509.Certificate, site: str) -> None:
    shown = select(CertificateRow.pem).where(
        CertificateRow.site == site, or_(CertificateRow.used.is_not(None), CertificateRow.revoked.is_not(None))
    )
    if any(pki.parse_certificate(pem).public_key() == certificate.public_key() for pem in session.scalars(shown)):
        raise UsageFault("this request is for a key that was revoked", hint="the site: cloister node enrol --new-keys")


def _check_flower_key(pem: str) -> None:
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except Exception as error:
        raise Malformed("the Flower key is not a public key (PEM)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed("the Flower key is not an elliptic-curve key")
