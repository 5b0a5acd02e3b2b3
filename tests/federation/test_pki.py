"""The certificate authority: what it signs, and what it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtensionOID, NameOID

from federation import pki
from mediator.errors import CloisterError, Malformed, UsageFault

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.Authority.create(tmp_path / "pki", "hub", ["hub.example", "10.0.0.7"], NOW)


def test_a_nodes_certificate_names_its_site_and_serves_for_nothing_else(authority: pki.Authority) -> None:
    certificate = authority.issue_node(pki.signing_request(pki.new_key(), "aachen"), "aachen", NOW)
    assert pki.common_name(certificate.subject) == "aachen" and authority.issued(certificate)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - NOW == pki.NODE_LIFE


def test_nothing_a_request_asks_for_is_copied(authority: pki.Authority) -> None:
    key = pki.new_key()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "aachen")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    certificate = authority.issue_node(pem, "aachen", NOW)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_for_another_site_is_refused(authority: pki.Authority) -> None:
    with pytest.raises(Malformed, match="another site"):
        authority.issue_node(pki.signing_request(pki.new_key(), "bergen"), "aachen", NOW)


def test_a_request_with_two_names_or_another_key_is_refused(authority: pki.Authority) -> None:
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in ("aachen", "bergen")]
    builder = x509.CertificateSigningRequestBuilder()
    two = builder.subject_name(x509.Name(names)).sign(pki.new_key(), hashes.SHA256())
    one = x509.Name(names[:1])
    other = builder.subject_name(one).sign(ed25519.Ed25519PrivateKey.generate(), None)
    curve = builder.subject_name(one).sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    for request in (two, other, curve):
        with pytest.raises(Malformed):
            authority.issue_node(request.public_bytes(serialization.Encoding.PEM).decode(), "aachen", NOW)
    for text in ("", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "x" * 20_000):
        with pytest.raises(Malformed):
            authority.issue_node(text, "aachen", NOW)


def test_the_server_certificate_answers_to_its_names(authority: pki.Authority) -> None:
    certificate = pki.parse_certificate(authority.server_certificate.read_text())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]


def test_the_revocation_list_holds_what_was_revoked(authority: pki.Authority) -> None:
    authority.sign_revocations([pki.Revoked(77, NOW)], NOW)
    crl = x509.load_pem_x509_crl(authority.crl.read_bytes())
    assert [entry.serial_number for entry in crl] == [77]
    assert crl.next_update_utc == NOW + pki.CRL_LIFE
    key = authority.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)


def test_another_authoritys_certificate_is_not_ours(authority: pki.Authority, tmp_path: Path) -> None:
    other = pki.Authority.create(tmp_path / "other", "hub", ["hub.example"], NOW)
    certificate = other.issue_node(pki.signing_request(pki.new_key(), "aachen"), "aachen", NOW)
    assert not authority.issued(certificate)


def test_an_authority_is_made_once_and_its_keys_are_private(authority: pki.Authority) -> None:
    with pytest.raises(UsageFault):
        pki.Authority.create(authority.folder, "hub", ["hub.example"], NOW)
    for name in ("ca.key", "server.key"):
        assert (authority.folder / name).stat().st_mode & 0o777 == 0o600


def test_renewal_is_due_after_two_thirds(authority: pki.Authority) -> None:
    certificate = authority.issue_node(pki.signing_request(pki.new_key(), "aachen"), "aachen", NOW)
    assert not pki.due_for_renewal(certificate, NOW + timedelta(days=19))
    assert pki.due_for_renewal(certificate, NOW + timedelta(days=20))


def test_a_site_name_is_an_identifier() -> None:
    with pytest.raises((CloisterError, ValueError)):
        pki.signing_request(pki.new_key(), "Aachen; DROP")


def test_a_strangers_certificate_with_what_is_no_extension_and_no_common_name_is_still_told() -> None:
    key, now = pki.new_key(), datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a\x1b[2Jb")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x01"), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert not pki.names_host(certificate, "hub.example")
    assert pki.issuer_of(certificate).startswith("O=a") and pki.issuer_of(certificate).isprintable()
