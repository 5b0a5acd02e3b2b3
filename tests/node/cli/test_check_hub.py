"""`cloister check` about the way to the hub: a real handshake with a real authority's server, before any enrolment."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from federation import pki, tls
from federation.client.standing import WORDS
from federation.pki import Authority
from mediator.errors import NotNow
from node.cli.findings import finding, report
from node.cli.it.check_hub import certificate, connection, reachable
from node.cli.it.check_running import fingerprint
from node.host.config import NodeConfig, load_config
from tests.federation.ground import free_port
from tests.node.host.minimal import MINIMAL


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[int]:
    """The port of a server as the hub's door is, which lets nobody in."""
    authority = Authority.create(tmp_path / "pki", "harbour", ["hub.example"], datetime.now(UTC))
    context = tls.ServerContext(authority.ca, authority.server_certificate, authority.server_key, authority.crl).context
    loop = asyncio.new_event_loop()

    async def serve() -> int:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        return int(server.sockets[0].getsockname()[1])

    port = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield port
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def configured(folder: Path, port: int, host: str = "127.0.0.1", name: str = "") -> NodeConfig:
    text = MINIMAL.replace('"hub.example"', f'"{host}"').replace("9443", str(port))
    text = text.replace("/var/lib/cloister", str(folder / "state"))
    if name:
        text = text.replace("[hub]\n", f'[hub]\nserver_name = "{name}"\n')
    (folder / "node.toml").write_text(text)
    return load_config(folder / "node.toml")


def test_a_hub_that_answers_is_seen_before_enrolment(hub: int, tmp_path: Path) -> None:
    found = reachable(configured(tmp_path, hub))
    assert found["state"] == "ok" and "harbour certificate authority" in found["detail"], found


def test_a_hub_by_a_name_that_its_certificate_does_not_have(hub: int, tmp_path: Path) -> None:
    found = reachable(configured(tmp_path, hub, name="elsewhere.example"))
    assert found["state"] == "missing" and "not for elsewhere.example" in found["detail"]
    assert reachable(configured(tmp_path, hub, name="hub.example"))["state"] == "ok"


@pytest.mark.parametrize(
    ("issuer", "begin", "end", "state", "said"),
    [
        ("hub", -1, 300, "ok", "CN=hub for 300 more days"),
        ("hub", -40, -12, "missing", "expired on"),
        ("hub", 40, 80, "missing", "is not valid before"),
        ("proxy", -1, 300, "missing", "a certificate of CN=TLS inspection,O=Hospital, which is not the hub"),
    ],
)
def test_a_certificate_that_the_link_would_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issuer: str, begin: int, end: int, state: str, said: str
) -> None:
    names = {
        "hub": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")]),
        "proxy": x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hospital"),
                x509.NameAttribute(NameOID.COMMON_NAME, "TLS inspection"),
            ]
        ),
    }
    keys, now = {name: pki.new_key() for name in names}, datetime.now(UTC)

    def made(by: str, host: str, first: int, last: int) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(names["hub"])
            .issuer_name(names[by])
            .public_key(keys["hub"].public_key())
            .serial_number(1)
            .not_valid_before(now + timedelta(days=first))
            .not_valid_after(now + timedelta(days=last, minutes=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
            .sign(keys[by], hashes.SHA256())
        )

    shown = made(issuer, "127.0.0.1.example", begin, end).public_bytes(serialization.Encoding.DER)
    monkeypatch.setattr(tls, "shown_by", lambda *_: shown)
    config = configured(tmp_path, 1, name="127.0.0.1.example")
    if issuer == "proxy":  # before enrolment nobody can tell
        assert reachable(config)["state"] == "ok"
    config.paths.link.mkdir(parents=True)
    (config.paths.link / "ca.crt").write_bytes(pki.certificate_pem(made("hub", "x", -1, 9)))
    found = reachable(config)
    assert found["state"] == state and said in found["detail"], found


@pytest.mark.parametrize("host", ["hub..invalid", f"{'a' * 70}.invalid"])
def test_a_host_that_can_be_no_name(host: str) -> None:
    with pytest.raises(NotNow, match="no address"):
        tls.shown_by(host, 1, host, 1.0)


def test_nobody_at_the_hubs_port_and_something_else_there(tmp_path: Path) -> None:
    assert "nothing listens" in reachable(configured(tmp_path, free_port()))["detail"]
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            taken, _ = plain.accept()
            with taken:
                taken.recv(4096)
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        found = reachable(configured(tmp_path, plain.getsockname()[1]))
    assert found["state"] == "warning" and "does not speak TLS 1.3" in found["detail"] and "[hub] port" in found["mend"]
    found = reachable(configured(tmp_path, 1, host="no-such-host.invalid"))
    assert "no address" in found["detail"] and "resolver" in found["mend"]


@pytest.mark.parametrize(
    ("age_days", "state", "said"), [(0, "ok", "30.0 days"), (25, "warning", "not renewed"), (40, "missing", "expired")]
)
def test_the_days_that_a_certificate_has_left(tmp_path: Path, age_days: int, state: str, said: str) -> None:
    config = configured(tmp_path, 1)
    config.paths.link.mkdir(parents=True)
    assert certificate(config)["mend"] == "cloister node enrol"
    made = datetime.now(UTC) - timedelta(days=age_days)
    authority = Authority.create(tmp_path / "pki", "harbour", ["hub.example"], made)
    issued = authority.issue_node(pki.signing_request(pki.new_key(), "north"), "north", made)
    (config.paths.link / "tls.crt").write_bytes(pki.certificate_pem(issued))
    found = certificate(config)
    assert found["state"] == state and said in found["detail"], found


def status(**changes: Any) -> Any:
    return SimpleNamespace(**({"hub_connected": False, "hub_trouble": "", "hub_clock_ahead_s": None} | changes))


@pytest.mark.parametrize("trouble", [each for each in WORDS if each != "not_enrolled"])
def test_each_trouble_with_the_hub_is_missing_and_has_its_words(trouble: str) -> None:
    said, clock = connection(status(hub_trouble=trouble))
    assert (said["state"], said["detail"]) == ("missing", WORDS[trouble].meaning) and said["mend"]  # type: ignore[index]
    assert clock["state"] == "unknown"


@pytest.mark.parametrize(
    ("ahead", "state", "said"),
    [(1.0, "ok", "1 s ahead"), (-60.0, "ok", "60 s behind"), (121.0, "missing", "121 s ahead"),
     (-3600.0, "missing", "behind")],
)  # fmt: skip
def test_the_hubs_clock_is_compared(ahead: float, state: str, said: str) -> None:
    _, clock = connection(status(hub_connected=True, hub_clock_ahead_s=ahead))
    assert clock["state"] == state and said in clock["detail"]


def test_a_file_that_was_changed_since_the_node_started_is_said(tmp_path: Path) -> None:
    config = configured(tmp_path, 1)
    assert fingerprint(config, config.fingerprint)["state"] == "ok"
    found = fingerprint(config, configured(tmp_path, 2).fingerprint)
    assert found["state"] == "warning" and "restart" in found["mend"]


@pytest.mark.parametrize("state", ["warning", "missing"])
def test_a_finding_that_is_no_good_without_what_mends_it_cannot_be_made(state: Any) -> None:
    with pytest.raises(ValueError, match="mends"):
        finding("x", state, "y")


def test_a_finding_drives_no_terminal_and_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[1A\x1b[2Kx\nok      hub: connected\n\x1b[8m"
    report([finding("hub address", "warning", evil, evil)], as_json=False)
    said = capfd.readouterr().out
    assert "\x1b" not in said and len(said.splitlines()) == 2 and "\nok" not in said
