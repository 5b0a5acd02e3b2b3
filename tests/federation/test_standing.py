"""A site that was revoked, or whose certificate is over, is told so in words; enrolled anew it goes on as it runs.

A real hub, real links, no fakes but core.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation import pki, tls
from federation.client import enrolment
from federation.client.control import ControlChannel
from federation.client.standing import WORDS, trouble_of
from federation.control import EnrolmentRequest, decode
from mediator.errors import CloisterError, Code, Denied, NotNow, Reason
from mediator.signatures import SigningKey
from tests.federation.ground import Town, found, told
from tests.sim.core import FakeCore


async def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.05)


def enrolled_anew(town: Town, site: str) -> None:
    """What the hospital and the hub's operator do by hand while the node runs."""
    folder, keys = town.link_folder(site), (town.keys[site].verify_key, town.keys[f"{site}/audit"].verify_key)
    request = enrolment.make_request(folder, site, release_key=keys[0], audit_key=keys[1], new_keys=True)
    enrolment.install(folder, town.opened(town.hub.approve(request, told(request), again=True)))


async def test_a_revoked_site_hears_it_in_words_and_goes_on_once_it_is_enrolled_anew(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cloister.link")
    core = town.core("aachen", value=1.0)
    others = [town.core(site) for site in ("bergen", "coimbra")]
    async with town.links(core, *others):
        await until(lambda: core.connected)
        town.hub.revoke("aachen")
        await until(lambda: "revoked" in core.troubles)
        assert not core.connected
        assert any(WORDS["revoked"].meaning in record.message for record in caplog.records)
        enrolled_anew(town, "aachen")
        await until(lambda: core.connected)
        town.submit("again", rounds=1)
        assert (await town.settled("again"))["state"] == "done" and core.released
    assert [record.levelname for record in caplog.records if WORDS["revoked"].meaning in record.message] == ["ERROR"]


async def test_a_node_that_is_not_enrolled_waits_until_it_is(town: Town) -> None:
    town.keys["delft"], town.keys["delft/audit"] = town.keys["aachen"], town.keys["aachen/audit"]
    core = town.core("delft")
    async with town.links(core):
        await until(lambda: core.troubles == ["not_enrolled"])
        town.enrol("delft")
        await until(lambda: core.connected)


async def test_an_expired_certificate_is_called_so(town: Town) -> None:
    town.enrol("essen", timedelta(days=40))
    core = town.core("essen")
    async with town.links(core):
        await until(lambda: "expired" in core.troubles)
    assert not core.connected


async def test_who_answers_with_another_hubs_certificate_is_called_so(town: Town, tmp_path: Path) -> None:
    other = found(tmp_path)
    shutil.copyfile(other.link_folder("bergen") / "ca.crt", town.link_folder("bergen") / "ca.crt")
    core = town.core("bergen")
    async with town.links(core):
        await until(lambda: "another_hub" in core.troubles)
    assert not core.connected


async def test_a_certificate_of_an_authority_that_the_hub_does_not_know_is_called_so(
    town: Town, tmp_path: Path
) -> None:
    other = found(tmp_path)
    for name in ("tls.crt", "tls.key"):
        shutil.copyfile(other.link_folder("coimbra") / name, town.link_folder("coimbra") / name)
    core: FakeCore = town.core("coimbra")
    async with town.links(core):
        await until(lambda: "unknown_here" in core.troubles)


def test_what_says_nothing_of_a_nodes_standing_is_no_trouble() -> None:
    assert trouble_of(NotNow("the hub does not answer")) is None
    assert trouble_of(ValueError()) is None
    assert trouble_of(Denied(Reason(Code.UNTRUSTED_KEY, ""))) is None
    assert trouble_of(Denied(Reason(Code.CERTIFICATE_REPLACED, ""))) == "replaced"


def test_new_keys_are_new_each_time_that_they_are_asked_for(tmp_path: Path) -> None:
    """The hub may have seen the ones of before, and revoked them since: the answer was lost on its way."""
    key = SigningKey(b"a" * 32).verify_key

    def made(*, new_keys: bool) -> bytes:
        raw = enrolment.make_request(tmp_path, "delft", release_key=key, audit_key=key, new_keys=new_keys)
        return decode(EnrolmentRequest, raw).flower_key.encode("ascii")

    first, second = made(new_keys=False), made(new_keys=True)
    assert made(new_keys=False) == second != first
    assert made(new_keys=True) not in (first, second)


@pytest.mark.parametrize(
    ("host", "age_days", "trouble"),
    [("127.0.0.1", 400, "hub_not_in_force"), ("127.0.0.1", -2, "hub_not_in_force"), ("127.0.0.2", 0, "hub_not_named")],
)
async def test_a_hubs_certificate_out_of_date_or_of_another_name_accuses_nobody_on_the_way(
    tmp_path: Path, host: str, age_days: int, trouble: str
) -> None:
    made = datetime.now(UTC) - timedelta(days=age_days)
    authority = pki.Authority.create(tmp_path / "hub", "hub", ["hub.example"], made)
    if age_days < 0:  # of an authority that is in force itself
        authority = pki.Authority.create(tmp_path / "now", "hub", ["hub.example"], datetime.now(UTC))
        authority.issue_server(["hub.example"], made)
    key = pki.new_key()
    (tmp_path / "tls.key").write_bytes(pki.key_pem(key))
    certificate = authority.issue_node(pki.signing_request(key, "delft"), "delft", datetime.now(UTC))
    (tmp_path / "tls.crt").write_bytes(pki.certificate_pem(certificate))
    context = tls.ServerContext(authority.ca, authority.server_certificate, authority.server_key, authority.crl).context
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), host, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    ours = tls.client_context(authority.ca, tmp_path / "tls.crt", tmp_path / "tls.key")
    channel = ControlChannel(f"https://{host}:{port}", ours)
    with pytest.raises(CloisterError) as caught:
        await channel.hello()
    assert trouble_of(caught.value) == trouble
    await channel.close()
    server.close()
