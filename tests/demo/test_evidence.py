"""A refusal counts only with a proof that came from the part that refused."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.demo import evidence
from federation import pki, tls


def write(folder: Path, *records: dict[str, object], tail: str = "") -> Path:
    folder.mkdir()
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "segment-000001.jsonl").write_text("".join(lines[:1]))
    (folder / "segment-000002.jsonl").write_text("".join(lines[1:]) + tail)
    (folder / "checkpoint-000001.json").write_text("{}")
    return folder


def record(sequence: int, verdict: str, code: str) -> dict[str, object]:
    return {"sequence": sequence, "verdict": verdict, "code": code, "action": "instruction"}


def test_only_a_refused_record_with_the_right_code_is_proof(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "audit",
        record(0, "allowed", "permit_missing"),
        record(1, "refused", "permit_expired"),
        record(2, "refused", "permit_missing"),
    )
    found = evidence.find_refusal("aster", evidence.records(folder), {"permit_missing"})
    assert found is not None
    assert found.plain() == {
        "site": "aster", "audit_sequence": 2, "action": "instruction", "code": "permit_missing",
    }  # fmt: skip


def test_a_refusal_from_before_the_attempt_is_no_proof(tmp_path: Path) -> None:
    folder = write(tmp_path / "audit", record(0, "refused", "permit_missing"), record(1, "done", ""))
    assert evidence.last_sequence(folder) == 1
    assert evidence.find_refusal("aster", evidence.records(folder, after=0), {"permit_missing"}) is None


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    folder = write(tmp_path / "audit", record(0, "done", ""), record(1, "done", ""), tail='{"sequence": 2, "ver')
    assert evidence.last_sequence(folder) == 1


def test_an_empty_log_has_no_last_record(tmp_path: Path) -> None:
    assert evidence.last_sequence(tmp_path) == -1


def test_waiting_for_a_proof_that_never_comes_ends() -> None:
    assert evidence.wait_for(lambda: None, within_s=0.1) is None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[int, pki.Authority]]:
    """A TLS server made by the hub's own code, answering 404 to whoever is let in."""
    authority = pki.Authority.create(tmp_path / "pki", "hub", ["127.0.0.1"], datetime.now(UTC))
    files = (authority.ca, authority.server_certificate, authority.server_key, authority.crl)
    context = tls.ServerContext(*files).context
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=answer_once, args=(listener, context), daemon=True)
        serving.start()
        yield listener.getsockname()[1], authority
        serving.join(timeout=5)


def answer_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as channel:
            channel.recv(4096)
            channel.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
    except ssl.SSLError:
        connection.close()


def test_a_client_without_a_certificate_hears_the_alert(hub: tuple[int, pki.Authority]) -> None:
    port, authority = hub
    alert = evidence.alert_without_certificate("127.0.0.1", port, authority.ca)
    assert alert == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_nodes_certificate_is_let_in_on_the_same_socket(hub: tuple[int, pki.Authority], tmp_path: Path) -> None:
    port, authority = hub
    key = pki.new_key()
    certificate = authority.issue_node(pki.signing_request(key, "aster"), "aster", datetime.now(UTC))
    (tmp_path / "node.crt").write_bytes(pki.certificate_pem(certificate))
    (tmp_path / "node.key").write_bytes(pki.key_pem(key))
    status = evidence.status_with_certificate(
        "127.0.0.1", port, authority.ca, tmp_path / "node.crt", tmp_path / "node.key"
    )
    assert status == 404


def test_a_port_that_nobody_serves_is_no_tls_alert(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path / "pki", "hub", ["127.0.0.1"], datetime.now(UTC))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    assert evidence.alert_without_certificate("127.0.0.1", closed, authority.ca) == ""
