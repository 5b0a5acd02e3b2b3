"""The hub's certificate authority: the server's certificate, one short-lived certificate per node, the revocation list.

A node's certificate names its site (`CN`) and may be used for nothing but proving that to the hub (clientAuth). Keys
are ECDSA P-256: every TLS 1.3 stack has it. The node makes its own key; only a signing request crosses (RFC 2986).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from durable.files import replace_file
from federation.files import make_folder
from mediator.errors import IntegrityBroken, Malformed, UsageFault
from mediator.grammar import check_identifier
from mediator.images import printable

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
# a stolen node key is worth at most this long, even where nobody notices
NODE_LIFE = timedelta(days=30)
# fail closed: a hub that cannot sign a fresh list for a week lets nobody in
CRL_LIFE = timedelta(days=7)
# clocks differ; a certificate is valid from a little before it was made
_BACKDATE = timedelta(minutes=5)
_MAX_PEM_BYTES = 16 << 10


@dataclass(frozen=True)
class Revoked:
    """A revoked certificate: its serial number and when it was revoked (UTC)."""

    serial: int
    at: datetime


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def signing_request(key: ec.EllipticCurvePrivateKey, site: str) -> str:
    """A certificate signing request (PEM) for `site`."""
    check_identifier(site, "site")
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(site)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def parse_certificate(pem: str) -> x509.Certificate:
    """The certificate in `pem`, or `Malformed`."""
    try:
        if len(pem) > _MAX_PEM_BYTES:
            raise ValueError("too large")
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except Exception as error:
        raise Malformed("not a certificate (PEM)") from error


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `authority` is an authority and signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(authority)
        return authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except Exception:  # noqa: BLE001 - one that cannot be verified was not signed by it
        return False


def parse_der(der: bytes) -> x509.Certificate:
    """The certificate in `der`, or `Malformed`."""
    try:
        return x509.load_der_x509_certificate(der)
    except Exception as error:
        raise Malformed("not a certificate (DER)") from error


def names_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host, by the names in it (RFC 9525): an authority here writes no wildcards."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):  # the last: an extension that is none
        return False
    return _general_name(host) in list(names)


def common_name(name: x509.Name) -> str:
    """The one common name in `name`, or `Malformed`."""
    values = [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(values) != 1 or len(list(name)) != 1:
        raise Malformed("a subject with other than one common name")
    return values[0]


def issuer_of(certificate: x509.Certificate) -> str:
    """Who made a certificate, by its own word and on one line, whatever that is (RFC 4514)."""
    try:
        return printable(certificate.issuer.rfc4514_string())
    except Exception:  # noqa: BLE001 - it is read only now, and may be no name at all
        return "an authority without a name that can be read"


def serial_of(der: bytes) -> int:
    """The serial number of a certificate the TLS layer has verified."""
    return x509.load_der_x509_certificate(der).serial_number


def due_for_renewal(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether two thirds of the certificate's life are over."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= begin + (end - begin) * 2 / 3


class Authority:
    """The certificate authority in one folder: `ca.crt`, `ca.key`, `server.crt`, `server.key`, `nodes.crl`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.server_certificate = folder / "server.crt"
        self.server_key = folder / "server.key"
        self.crl = folder / "nodes.crl"

    @classmethod
    def create(cls, folder: Path, hub: str, hosts: Sequence[str], now: datetime) -> Authority:
        """A new authority with a server certificate for `hosts` (names and addresses). Raises `UsageFault`."""
        authority = cls(make_folder(folder))
        if authority.ca.exists():
            raise UsageFault("this hub has a certificate authority already", hint="choose another state folder")
        key = new_key()
        name = _name(f"{hub} certificate authority")
        certificate = (
            _builder(name, name, key, now, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        replace_file(folder / "ca.key", key_pem(key))
        replace_file(authority.ca, certificate_pem(certificate), 0o644)
        authority.issue_server(hosts, now)
        authority.sign_revocations((), now)
        return authority

    @property
    def certificate(self) -> x509.Certificate:
        return parse_certificate(self.ca.read_text("ascii"))

    def issue_server(self, hosts: Sequence[str], now: datetime) -> None:
        """A new key and certificate for the ingress, which also answers to this machine's own names."""
        key = new_key()
        names = [_general_name(host) for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1"])]
        certificate = (
            self._leaf(_name(hosts[0]), key.public_key(), now, SERVER_LIFE, ExtendedKeyUsageOID.SERVER_AUTH)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        replace_file(self.server_key, key_pem(key))
        replace_file(self.server_certificate, certificate_pem(certificate), 0o644)

    def issue_node(self, request: str, site: str, now: datetime) -> x509.Certificate:
        """A certificate for `site` from its signing request.

        1. The request is well formed and signed by the key it carries.
        2. Its key is ECDSA P-256.
        3. It names exactly this site; whatever else it asks for is not copied.
        """
        try:
            if len(request) > _MAX_PEM_BYTES:
                raise ValueError("too large")
            parsed = x509.load_pem_x509_csr(request.encode("ascii"))
            # a key, a signature or a name is looked at only when it is asked for, and any of them may be odd
            public, genuine, name = parsed.public_key(), parsed.is_signature_valid, common_name(parsed.subject)
        except Malformed:
            raise
        except Exception as error:  # (1)
            raise Malformed("not a certificate signing request (PEM)") from error
        if not genuine:  # (1)
            raise Malformed("a signing request that its own key did not sign")
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":  # (2)
            raise Malformed("a signing request with a key other than ECDSA P-256")
        if name != site:  # (3)
            raise Malformed("a signing request for another site")
        leaf = self._leaf(_name(site), public, now, NODE_LIFE, ExtendedKeyUsageOID.CLIENT_AUTH)
        return leaf.sign(self._key, hashes.SHA256())

    def sign_revocations(self, revoked: Iterable[Revoked], now: datetime) -> None:
        """Write `nodes.crl`, valid for `CRL_LIFE`."""
        key = self._key
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - _BACKDATE)
            .next_update(now + CRL_LIFE)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.at).build()
            )
        crl = builder.sign(key, hashes.SHA256())
        replace_file(self.crl, crl.public_bytes(serialization.Encoding.PEM), 0o644)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed `certificate`."""
        return issued_by(certificate, self.certificate)

    @property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IntegrityBroken("the certificate authority's key is not ECDSA")
        return key

    def _leaf(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        now: datetime,
        life: timedelta,
        purpose: x509.ObjectIdentifier,
    ) -> x509.CertificateBuilder:
        issuer = self._key.public_key()
        return (
            _builder(subject, self.certificate.subject, public, now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
