"""Handshakes in memory, between our two ends."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from federation import pki, tls

NOW = datetime.now(UTC).replace(microsecond=0)


def shown(server: tls.ServerContext, client: ssl.SSLContext) -> x509.Certificate:
    """The certificate that the server sees in a handshake of the two."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname="hub.example")
    right = server.context.wrap_bio(to_server, to_client, server_side=True)
    for side in (left, right, left, right):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    peer = right.getpeercert(binary_form=True)
    assert peer is not None
    return x509.load_der_x509_certificate(peer)


def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path / "pki", "hub", ["hub.example"], NOW)
    authority.issue_server(["hub.example"], NOW)
    authority.sign_revocations([], NOW)
    server = tls.ServerContext(authority.ca, authority.server_certificate, authority.server_key, authority.crl)
    key, certificate, key_file = pki.new_key(), tmp_path / "tls.crt", tmp_path / "tls.key"
    key_file.write_bytes(pki.key_pem(key))
    first = authority.issue_node(pki.signing_request(key, "aachen"), "aachen", NOW - timedelta(days=20))
    certificate.write_bytes(pki.certificate_pem(first))
    client = tls.client_context(authority.ca, certificate, key_file)
    assert shown(server, client) == first
    second = authority.issue_node(pki.signing_request(key, "aachen"), "aachen", NOW)
    certificate.write_bytes(pki.certificate_pem(second))
    tls.show_certificate(client, certificate, key_file)
    assert shown(server, client) == second != first
