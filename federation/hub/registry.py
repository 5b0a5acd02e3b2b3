"""Who may connect: enrolled sites, their certificates and keys, and their end."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from federation import pki
from federation.control import EnrolmentBundle, EnrolmentRequest, Inventory, decode, encode
from federation.hub.database import Database, note
from federation.hub.tables import CertificateRow, SiteRow
from mediator.canonical import parse_time, print_time
from mediator.errors import Code, Denied, Malformed, Reason, UsageFault
from mediator.signatures import KeyRing, VerifyKey

ACTIVE, REVOKED = "active", "revoked"


@dataclass(frozen=True)
class Peer:
    """An enrolled site as the ingress knows it. `flower_header` is the one value of `flwr-public-key` it may send."""

    site: str
    flower_key: bytes
    flower_header: str
    release_keys: KeyRing
    audit_keys: KeyRing


class Registry:
    """Sites and certificates in `hub.db`, issued by one authority."""

    def __init__(self, database: Database, authority: pki.Authority, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._authority = authority
        self._clock = clock

    def approve(self, raw: bytes, *, url: str, instruction: VerifyKey, witness: VerifyKey, actor: str) -> bytes:
        """Enrol the site of a request (JSON) and return its bundle (JSON).

        A site that is enrolled and active is refused: revoke it first, or a stranger's request with the same name
        would take its place. Raises `Malformed`, `UsageFault`.
        """
        request = decode(EnrolmentRequest, raw)
        _check_flower_key(request.flower_key)
        now = self._clock()
        certificate = self._authority.issue_node(request.request, request.site, now)
        with self._database.write() as session:
            row = session.get(SiteRow, request.site)
            if row is not None and row.state == ACTIVE:
                raise UsageFault(f"{request.site} is enrolled", hint="revoke it before enrolling it anew")
            taken = select(SiteRow.site).where(SiteRow.flower_key == request.flower_key, SiteRow.site != request.site)
            if session.scalar(taken) is not None:
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
            session.add(_certificate_row(certificate, request.site, now))
            note(session, now, actor, "node_approve", request.site, "done")
        bundle = EnrolmentBundle(
            site=request.site,
            hub=url,
            certificate=pki.certificate_pem(certificate).decode("ascii"),
            ca=self._authority.ca.read_text("ascii"),
            instruction_keys=[instruction.text],
            witness_keys=[witness.text],
            flower_key=request.flower_key,
            release_key=request.release_key,
        )
        return encode(bundle)

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

    def renew(self, site: str, request: str) -> str:
        """A new certificate (PEM) for an active site."""
        now = self._clock()
        certificate = self._authority.issue_node(request, site, now)
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is None or row.state != ACTIVE:
                raise Denied(Reason(Code.SITE_NOT_NAMED, "this site is not enrolled"))
            session.add(_certificate_row(certificate, site, now))
            note(session, now, site, "node_renew", site, "done")
        return pki.certificate_pem(certificate).decode("ascii")

    def peers(self) -> dict[int, Peer]:
        """Every certificate in force, by serial number, with the site it stands for."""
        with self._database.read() as session:
            query = (
                select(CertificateRow.serial, SiteRow)
                .join(SiteRow, SiteRow.site == CertificateRow.site)
                .where(SiteRow.state == ACTIVE, CertificateRow.revoked.is_(None))
            )
            return {int(serial, 16): _peer(row) for serial, row in session.execute(query)}

    def active(self) -> dict[str, Peer]:
        """Every active site, by name."""
        with self._database.read() as session:
            return {row.site: _peer(row) for row in session.scalars(select(SiteRow).where(SiteRow.state == ACTIVE))}

    def seen(self, site: str) -> None:
        """Note that a site opened its events stream."""
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is not None:
                row.connected = print_time(self._clock())

    def take_inventory(self, site: str, inventory: Inventory) -> None:
        with self._database.write() as session:
            row = session.get(SiteRow, site)
            if row is not None:
                row.inventory, row.inventoried = inventory.model_dump_json(), print_time(self._clock())

    def nodes(self) -> list[dict[str, Any]]:
        """Every site ever enrolled, for the command line."""
        with self._database.read() as session:
            newest: dict[str, str] = {}
            for row in session.scalars(select(CertificateRow)):
                newest[row.site] = max(newest.get(row.site, ""), row.expires)
            return [
                {
                    "site": row.site,
                    "state": row.state,
                    "enrolled": row.enrolled,
                    "connected": row.connected,
                    "certificate_expires": newest.get(row.site),
                    "witness_refused": row.checkpoint_refused,
                    "inventory": Inventory.model_validate_json(row.inventory).model_dump() if row.inventory else None,
                }
                for row in session.scalars(select(SiteRow).order_by(SiteRow.site))
            ]


def serial_of(der: bytes) -> int:
    """The serial number of a certificate the TLS layer has verified."""
    return x509.load_der_x509_certificate(der).serial_number


def _peer(row: SiteRow) -> Peer:
    pem = row.flower_key.encode("ascii")
    keys: Sequence[KeyRing] = [KeyRing([VerifyKey.from_text(text)]) for text in (row.release_key, row.audit_key)]
    return Peer(row.site, pem, base64.b64encode(pem).decode("ascii"), keys[0], keys[1])


def _certificate_row(certificate: x509.Certificate, site: str, now: datetime) -> CertificateRow:
    return CertificateRow(
        serial=f"{certificate.serial_number:x}",
        site=site,
        issued=print_time(now),
        expires=print_time(certificate.not_valid_after_utc),
        pem=pki.certificate_pem(certificate).decode("ascii"),
    )


def _check_flower_key(pem: str) -> None:
    try:
        key = serialization.load_pem_public_key(pem.encode("ascii"))
    except ValueError as error:
        raise Malformed("the Flower key is not a public key (PEM)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed("the Flower key is not an elliptic-curve key")
