"""A stolen node certificate: what it can still be used for, and how both sides hear of it. Real hub, real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import sqlite3
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from federation import control, pki
from federation.client import enrolment
from federation.hub import certificates
from federation.hub.certificates import certificate_row
from federation.hub.state import HubState
from federation.hub.tables import CertificateRow
from mediator.errors import Code, UsageFault
from tests.federation.ground import Town, found, told

# a certificate of 30 days is renewed after 20
OLD = timedelta(days=25)
EVENTS, RENEW = control.EVENTS, control.RENEW


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"))
    town.start()
    yield town
    town.stop()


class Holder:
    """Somebody who has a site's certificate and key: the site itself, or a thief with copies of both files."""

    def __init__(self, town: Town, site: str, folder: Path) -> None:
        self.town, self.site, self.folder = town, site, folder

    def stolen(self, to: Path) -> Holder:
        shutil.copytree(self.folder, to)
        return Holder(self.town, self.site, to)

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.town.hub.authority.ca))
        context.load_cert_chain(str(self.folder / "tls.crt"), str(self.folder / "tls.key"))
        return http.client.HTTPSConnection("127.0.0.1", self.town.config.ingress.port, context=context, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        for _ in range(3):
            # the hub cuts off what stands with an ended certificate, and may meet a connection that has just begun
            with contextlib.closing(self.connect()) as connection, contextlib.suppress(ConnectionError):
                connection.request(method, path, body=body)
                response = connection.getresponse()
                return response.status, json.loads(response.read() or b"{}")
        raise AssertionError("cut off each time")

    @property
    def known(self) -> bool:
        """Whether the door lets this holder in: it says 404 for what is not there, and 403 to who may not ask."""
        return self.ask("GET", "/v1/control/none")[0] == 404

    def renew(self, key: ec.EllipticCurvePrivateKey | None = None) -> tuple[int, Any]:
        request = pki.signing_request(key, self.site) if key else enrolment.renewal_request(self.folder, self.site)
        status, answer = self.ask("POST", RENEW, control.encode(control.Renewal(request=request)))
        if status == 200:
            (self.folder / "tls.crt").write_text(answer["certificate"])
        return status, answer


def holder(town: Town, site: str, age: timedelta = OLD) -> Holder:
    """A site enrolled `age` ago, which the running hub knows by now."""
    town.enrol(site, age)
    mine = Holder(town, site, town.link_folder(site))
    until(lambda: mine.known)
    return mine


def until(holds: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alarms(town: Town, site: str) -> list[str]:
    return [alarm["code"] for alarm in town.hub.alarms() if alarm["site"] == site]


def cross(town: Town, site: str) -> None:
    """Let the time pass in which connections begun before a renewal may still arrive."""
    earlier = (datetime.now(UTC) - 2 * certificates.CROSSING).strftime("%Y-%m-%dT%H:%M:%SZ")
    with town.hub.database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE certificates SET ended = ? WHERE site = ? AND ended IS NOT NULL", (earlier, site)
        )


def test_a_renewal_for_another_key_is_refused(town: Town) -> None:
    """Else who had a certificate for an hour would have one for ever."""
    mine = holder(town, "key")
    before = town.hub.certificates.standing().serials
    status, answer = mine.renew(pki.new_key())
    assert (status, answer["code"]) == (403, "untrusted_key")
    assert town.hub.certificates.standing().serials == before and mine.known
    assert alarms(town, "key") == [Code.UNTRUSTED_KEY]


def test_a_renewal_before_two_thirds_of_its_life_is_refused(town: Town) -> None:
    mine = holder(town, "early", timedelta(days=19, hours=20))
    before = town.hub.certificates.standing().serials
    assert mine.renew()[0] == 503
    assert town.hub.certificates.standing().serials == before and mine.known and alarms(town, "early") == []


def test_a_renewed_certificate_is_the_only_one_once_it_was_shown(town: Town, tmp_path: Path) -> None:
    mine = holder(town, "one")
    with contextlib.closing(mine.connect()) as stands:
        stands.request("GET", EVENTS)
        response = stands.getresponse()
        assert response.readline().startswith(b'{"version":1')
        old = mine.stolen(tmp_path / "old")
        assert mine.renew()[0] == 200
        assert old.known, "until the new one is shown, the old one is current: the answer may be lost"
        begun = time.monotonic()
        assert mine.known
        with contextlib.suppress(OSError, http.client.HTTPException):
            while response.readline():
                pass
        assert time.monotonic() - begun < 2, "a connection that stood with the old one ends at once"
    status, answer = old.ask("GET", EVENTS)
    assert (status, answer["code"]) == (403, "certificate_replaced") and mine.known
    assert old.renew()[0] == 403
    assert alarms(town, "one") == [], "the site's own connections may have crossed with its renewal"


def test_a_stolen_certificate_used_after_its_renewal_alarms_hub_and_site(town: Town, tmp_path: Path) -> None:
    mine = holder(town, "robbed")
    thief = mine.stolen(tmp_path / "thief")
    assert mine.renew()[0] == 200 and mine.known
    cross(town, "robbed")
    with contextlib.closing(mine.connect()) as stream:
        stream.request("GET", EVENTS, headers={control.ALARMS_HEADER: "1"})
        response = stream.getresponse()
        for _ in range(3):  # a thousand tries are told once
            assert thief.renew() == (403, {"version": 1, "code": "certificate_replaced", "message": thief_hears()})
        assert alarms(town, "robbed") == [Code.CERTIFICATE_REPLACED]
        line = b""
        while b'"alarm"' not in line:
            line = response.readline()
            assert line, "the stream has ended"
        assert b'"certificate_replaced.' in line
    assert mine.known


def thief_hears() -> str:
    return "certificate_replaced: another certificate has taken this one's place"


async def test_a_site_whose_thief_renewed_first_alarms_too(town: Town, tmp_path: Path) -> None:
    mine = await asyncio.to_thread(holder, town, "late")
    thief = mine.stolen(tmp_path / "thief")
    assert (await asyncio.to_thread(thief.renew))[0] == 200 and await asyncio.to_thread(lambda: thief.known)
    core = town.core("late")
    async with town.links(core):
        for _ in range(100):
            if core.alarms:
                break
            await asyncio.sleep(0.1)
    assert core.alarms == [Code.CERTIFICATE_REPLACED]


async def test_a_second_renewal_of_one_certificate_alarms_hub_and_site(town: Town, tmp_path: Path) -> None:
    mine = await asyncio.to_thread(holder, town, "twice")
    thief = mine.stolen(tmp_path / "thief")
    assert (await asyncio.to_thread(thief.renew))[0] == 200
    core = town.core("twice")
    async with town.links(core):  # its certificate is due, so the link renews
        for _ in range(100):
            if core.alarms:
                break
            await asyncio.sleep(0.1)
        assert core.alarms == [Code.RENEWED_TWICE] and alarms(town, "twice") == [Code.RENEWED_TWICE]
        assert not await asyncio.to_thread(lambda: thief.known), "the newest is the one that counts"
    again = town.core("twice")
    async with town.links(again):
        await asyncio.sleep(1.0)
    assert again.alarms == [], "an alarm is handed to core once"


def test_one_certificate_is_not_renewed_without_end(town: Town, tmp_path: Path) -> None:
    mine = holder(town, "often")
    thief = mine.stolen(tmp_path / "thief")
    certificate = (thief.folder / "tls.crt").read_text()
    given = []
    for _ in range(certificates.MAX_RENEWALS + 2):
        (thief.folder / "tls.crt").write_text(certificate)
        assert thief.renew()[0] == 200
        given.append((thief.folder / "tls.crt").read_text())
    assert len(set(given)) == certificates.MAX_RENEWALS and len(set(given[-3:])) == 1
    assert alarms(town, "often") == [Code.RENEWED_TWICE]
    assert mine.renew()[0] == 200 and mine.known, "a thief who asks and asks does not lock the site out"


def test_an_expired_certificate_is_none_and_its_connection_ends(town: Town) -> None:
    mine = holder(town, "ends", pki.NODE_LIFE - timedelta(seconds=4))
    with contextlib.closing(mine.connect()) as stream, contextlib.closing(mine.connect()) as idle:
        stream.request("GET", EVENTS)
        response = stream.getresponse()
        idle.request("GET", "/v1/control/none")
        idle.getresponse().read()
        begun = time.monotonic()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while response.readline():
                pass
        assert time.monotonic() - begun < 8
        with pytest.raises((OSError, http.client.HTTPException)):
            idle.request("GET", "/v1/control/none")
            idle.getresponse()
    serials = town.hub.certificates.standing().serials[0]
    certificate = pki.parse_certificate((mine.folder / "tls.crt").read_text())
    assert certificate.serial_number not in serials


def test_a_stolen_certificate_without_its_key_signs_nothing(town: Town) -> None:
    """The key in a request is the one that signed it."""
    mine = holder(town, "unsigned")
    other = pki.new_key()
    public = serialization.load_pem_private_key((mine.folder / "tls.key").read_bytes(), None).public_key()
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    request = pki.signing_request(other, "unsigned").encode()
    der = x509.load_pem_x509_csr(request).public_bytes(serialization.Encoding.DER)
    swapped = der.replace(other.public_key().public_bytes(*spki), public.public_bytes(*spki))
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(swapped).decode()
    pem += "-----END CERTIFICATE REQUEST-----\n"
    status, _ = mine.ask("POST", RENEW, control.encode(control.Renewal(request=pem)))
    assert status == 400 and mine.known


def test_a_hub_of_before_has_one_current_certificate_a_site_when_it_is_next_shown(tmp_path: Path) -> None:
    """Before, a site could have many; the newest is the one that its link shows."""
    old = found(tmp_path)
    path = old.hub.database.path
    key, now = pki.new_key(), datetime.now(UTC)
    csr = pki.signing_request(key, "aachen")
    issued = [old.hub.authority.issue_node(csr, "aachen", now + timedelta(seconds=n)) for n in (1, 2)]
    with old.hub.database.write() as session:
        for n, certificate in enumerate(issued, 1):
            session.add(certificate_row(certificate, "aachen", now + timedelta(seconds=n)))
    old.hub.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(
            "DROP INDEX events_by_object; ALTER TABLE certificates DROP COLUMN used;"
            "ALTER TABLE certificates DROP COLUMN ended; ALTER TABLE certificates DROP COLUMN renewals;"
            "ALTER TABLE certificates DROP COLUMN request;"
            "ALTER TABLE sites DROP COLUMN protocol; DROP TABLE invitations;"
            "UPDATE certificates SET revoked = issued WHERE site = 'bergen';"
            "UPDATE sites SET state = 'revoked' WHERE site = 'bergen';"
            "UPDATE alembic_version SET version_num = '0002'"
        )
    hub = HubState(old.config)
    aachen = {
        serial: shown for serial, shown in hub.certificates.standing().in_force.items() if shown.peer.site == "aachen"
    }
    assert len(aachen) == 3 and [serial for serial, shown in aachen.items() if shown.fresh] == [issued[1].serial_number]
    hub.certificates.take_up(issued[1].serial_number)
    standing = hub.certificates.standing()
    assert {issued[0].serial_number} <= standing.ended and issued[1].serial_number in standing.in_force
    assert len(standing.in_force) == 2 and len(standing.ended) == 2
    with hub.database.read() as session:
        rows = session.scalars(select(CertificateRow).where(CertificateRow.site == "bergen")).all()
        assert [row.used for row in rows] == [row.issued for row in rows]
    release, audit = (old.keys[name].verify_key for name in ("bergen", "bergen/audit"))
    request = enrolment.make_request(old.link_folder("bergen"), "bergen", release_key=release, audit_key=audit)
    with pytest.raises(UsageFault, match="a key that was revoked"):
        hub.approve(request, told(request), again=True)
