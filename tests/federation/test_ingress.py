"""Who gets through the hub's one port: tried with real sockets against the real hub."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from federation import pki, tls
from federation.client import enrolment
from federation.client.flower import Fleet
from federation.client.hub_errors import HubUnreachable
from federation.hub.tables import EventRow
from mediator.errors import UsageFault
from tests.federation.ground import Town, found, told


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"))
    town.start()
    yield town
    town.stop()


def plain_context(town: Town, site: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(town.hub.authority.ca))
    if site is not None:
        folder = town.link_folder(site)
        context.load_cert_chain(str(folder / "tls.crt"), str(folder / "tls.key"))
    return context


@contextlib.contextmanager
def connected(town: Town, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    connection = http.client.HTTPSConnection("127.0.0.1", town.config.ingress.port, context=context, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def ask(town: Town, context: ssl.SSLContext, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    with connected(town, context) as connection:
        connection.request(method, path, body=b"" if method == "POST" else None, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def refusal(town: Town, context: ssl.SSLContext) -> str:
    """The TLS alert that answers a client. In TLS 1.3 it comes with the first read; whoever has sent something by
    then may get a reset in its place, so nothing is sent."""
    with socket.create_connection(("127.0.0.1", town.config.ingress.port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as channel:
                assert channel.recv(1) == b"", "the hub has let it in"
        except ssl.SSLError as error:
            return str(error.reason)
    return "no alert"


def test_a_client_without_a_certificate_is_refused(town: Town) -> None:
    assert "CERTIFICATE_REQUIRED" in refusal(town, plain_context(town))


def test_a_certificate_of_another_authority_is_refused(town: Town, tmp_path: Path) -> None:
    other = pki.Authority.create(tmp_path / "pki", "other", ["127.0.0.1"], datetime.now(UTC))
    node = pki.new_key()
    certificate = other.issue_node(pki.signing_request(node, "aachen"), "aachen", datetime.now(UTC))
    (tmp_path / "tls.crt").write_bytes(pki.certificate_pem(certificate))
    (tmp_path / "tls.key").write_bytes(pki.key_pem(node))
    context = plain_context(town)
    context.load_cert_chain(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    assert "UNKNOWN_CA" in refusal(town, context)


def test_a_certificate_for_servers_does_not_pass_for_a_node(town: Town) -> None:
    context = plain_context(town)
    context.load_cert_chain(str(town.hub.authority.server_certificate), str(town.hub.authority.server_key))
    assert "CERTIFICATE" in refusal(town, context)


def test_tls_1_2_is_refused(town: Town) -> None:
    context = plain_context(town, "aachen")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "PROTOCOL_VERSION" in refusal(town, context)


def test_flowers_other_apis_cannot_be_reached(town: Town) -> None:
    context = plain_context(town, "aachen")
    header = {"flwr-public-key": town.hub.registry.active()["aachen"].flower_header}
    for path in (
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/get-fab",
        "/v1/fleet/get-run",
        "/v1/fleet/../runtime/acquire-task",
        "/v1/fleet/..%2fruntime%2facquire-task",
        "/openapi.json",
        "/",
    ):
        status, body = ask(town, context, "POST", path, **header)
        assert status in (404, 405), (path, status, body)
    assert ask(town, context, "GET", "/health")[0] == 404
    assert ask(town, context, "GET", "/v1/fleet/pull-messages", **header)[0] == 405


def test_one_sites_certificate_with_anothers_flower_key_is_refused(town: Town, tmp_path: Path) -> None:
    context, registered = plain_context(town, "aachen"), town.hub.registry.active()
    for header in (registered["bergen"].flower_header, "", registered["aachen"].flower_header + "="):
        status, body = ask(town, context, "POST", "/v1/fleet/pull-messages", **{"flwr-public-key": header})
        assert status == 403 and b"untrusted_key" in body
    assert ask(town, context, "POST", "/v1/fleet/pull-messages")[0] == 403
    # with every header genuine, signed by bergen's own key
    own, other = enrolment.load(town.link_folder("aachen")), enrolment.load(town.link_folder("bergen"))
    fleet = Fleet(own.bundle.hub, tls.client_context(own.ca, own.certificate, own.key), other.flower_key, 1 << 20)
    with pytest.raises(HubUnreachable, match="403"):
        fleet.activate(0)


def test_a_body_over_the_limit_is_refused(town: Town) -> None:
    header = {"flwr-public-key": town.hub.registry.active()["aachen"].flower_header}
    with connected(town, plain_context(town, "aachen")) as connection:
        with contextlib.suppress(OSError):
            connection.request("POST", "/v1/fleet/push-object", body=b"x" * (17 << 20), headers=header)
        assert connection.getresponse().status == 413


def test_a_request_for_another_site_or_key_is_refused(town: Town, tmp_path: Path) -> None:
    key = town.keys["aachen"].verify_key
    request = enrolment.make_request(tmp_path, "aachen", release_key=key, audit_key=key)
    with pytest.raises(UsageFault, match="enrolled"):
        town.hub.approve(request, told(request))


async def test_revocation_ends_open_connections_and_refuses_new_ones(town: Town) -> None:
    context = plain_context(town, "coimbra")
    with connected(town, context) as stream, connected(town, context) as idle:
        idle.connect()
        stream.request("GET", "/v1/control/events")
        response = stream.getresponse()
        assert response.status == 200 and response.readline().startswith(b'{"version":1,"kind":"document"')
        session = idle.sock.session
        begun = time.monotonic()
        town.hub.revoke("coimbra")

        def drained() -> float:
            with contextlib.suppress(OSError, http.client.HTTPException):
                while response.readline():
                    pass
            return time.monotonic() - begun

        assert await asyncio.wait_for(asyncio.to_thread(drained), 5) < 2
        with pytest.raises((OSError, http.client.HTTPException)):
            idle.request("POST", "/v1/control/inventory")
            idle.getresponse()
    assert "CERTIFICATE_REVOKED" in refusal(town, plain_context(town, "coimbra"))
    # nor does a ticket of an earlier session help: none was ever given
    assert not session.has_ticket
    # the others go on
    assert ask(town, plain_context(town, "aachen"), "GET", "/v1/control/none")[0] == 404
    assert [node["state"] for node in town.hub.nodes()] == ["active", "active", "revoked"]


async def test_a_revoked_site_can_be_enrolled_anew(town: Town) -> None:
    """With new keys, because the operator says so, and on record."""
    folder = town.link_folder("coimbra")
    keys = {"release_key": town.keys["coimbra"].verify_key, "audit_key": town.keys["coimbra/audit"].verify_key}
    request = enrolment.make_request(folder, "coimbra", **keys)
    with pytest.raises(UsageFault, match="was revoked") as caught:
        town.hub.approve(request, told(request))
    assert "--again" in caught.value.hint
    with pytest.raises(UsageFault, match="a key that was revoked"):
        town.hub.approve(request, told(request), again=True)
    assert [node["state"] for node in town.hub.nodes()] == ["active", "active", "revoked"]
    old = (folder / "tls.key").read_bytes()
    request = enrolment.make_request(folder, "coimbra", **keys, new_keys=True)
    assert (folder / "tls.key").read_bytes() == old, "the keys in use stay until there is a bundle for the new ones"
    enrolment.install(folder, town.opened(town.hub.approve(request, told(request), again=True)))
    assert (folder / "tls.key").read_bytes() != old and not (folder / "next").exists()
    with town.hub.database.read() as session:
        lines = session.scalars(select(EventRow).where(EventRow.object == "coimbra").order_by(EventRow.sequence))
        assert [(line.action, line.code) for line in lines][-2:] == [("node_revoke", ""), ("node_approve", "again")]
    async with town.links(town.core("coimbra")):
        town.submit("anew", sites=("coimbra",), rounds=1)
        assert (await town.settled("anew"))["state"] == "done"
