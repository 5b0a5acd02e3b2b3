"""What was set aside, by the link's word on its own socket, as every role is shown it."""

from __future__ import annotations

import json
import tempfile

import pytest

from mediator.errors import Denied
from mediator.roles import Role
from node.cli.it import set_aside as command
from node.ipc import jobs, link
from node.ipc import node as words
from node.ipc.channel import Client
from node.ipc.messages import Empty
from tests.node.core.process.test_process import Served

SUBJECT = "ab" * 32


def test_five_failures_set_a_document_aside_and_staff_see_it_and_what_to_do(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(served.config.paths.link_socket) as client:
        told = [client.call(link.FAILED, link.Failed("document", SUBJECT, "internal_error", False)) for _ in range(6)]
    assert [each.set_aside for each in told] == [False] * 4 + [True] * 2
    assert [each.again_s for each in told[:4]] == [2.0, 4.0, 8.0, 16.0]
    for role in Role:
        with served.client(role) as client:
            (line,) = client.call(jobs.SET_ASIDE, Empty())
            assert (line.kind, line.subject, line.reason, line.times) == ("document", SUBJECT, "internal_error", 5)
            assert client.call(words.STATUS, Empty()).set_aside == 1
            with pytest.raises(Denied):  # only the link may say that something failed
                client.call(link.FAILED, link.Failed("document", SUBJECT, "internal_error", True))
    with served.core.core.store.read() as snapshot:
        assert f'"object":"document/{SUBJECT}"' in snapshot.audit_lines(snapshot.audit_size() - 1, 1)[0]
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        monkeypatch.setattr(command, "reach", lambda _path: served.config)
        command.set_aside(file.name, as_json=True)  # type: ignore[arg-type]
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["subject"] == SUBJECT and shown["what_to_do"] == command.ADVICE["document"]
