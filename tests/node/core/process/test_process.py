"""The core process with its real sockets, in this process; a fake stands for the engine alone."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mediator.audit_check import verify_log
from mediator.errors import CloisterError, Code, Denied, Malformed
from mediator.roles import PERMISSIONS, Role, may
from mediator.signatures import KeyRing
from node.core import staff
from node.core.core import CoreProcess
from node.core.process import link_server
from node.host.config import NodeConfig, load_config
from node.host.keys import public_path, read_verify_key
from node.host.state import prepare_state
from node.ipc import documents, link
from node.ipc import node as words
from node.ipc.caller import CHALLENGE
from node.ipc.channel import Client
from node.ipc.messages import Empty, SignedText
from node.ipc.staff import STAFF
from tests.mediator import samples
from tests.sim.runner import FakeRunner


@dataclass
class Served:
    config: NodeConfig
    core: CoreProcess
    runner: FakeRunner

    def client(self, role: Role) -> Client:
        return Client(self.config.paths.staff_socket(role.value))


def configured(root: Path) -> NodeConfig:
    keys = {
        "committee": samples.COMMITTEE, "stewards": samples.STEWARD, "hub": samples.HUB, "witnesses": samples.HUB,
    }  # fmt: skip
    trust = "\n".join(f'{purpose} = ["{key.verify_key.text}"]' for purpose, key in keys.items())
    file = root / "node.toml"
    file.write_text(
        f'site = "{samples.SITE}"\nstate_dir = "{root}/state"\n[hub]\nhost = "hub"\nport = 1\n[trust]\n{trust}\n'
        f'[engine]\nsentinel = "{samples.IMAGE}"\n[intake]\nsource_roots = ["{root}"]\n'
    )
    return load_config(file)


@pytest.fixture
def config() -> Iterator[NodeConfig]:
    # a Unix socket's name has at most 107 bytes
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    made = configured(root)
    prepare_state(made)
    yield made
    shutil.rmtree(root)


@pytest.fixture
def served(config: NodeConfig) -> Iterator[Served]:
    runner = FakeRunner(read_verify_key(config.paths.verdict_public_key), {})
    core = CoreProcess(config, runner)
    core.start()
    servers = [link_server(config.paths.link_socket, core, group=None)]
    servers += staff.servers(config, core)
    for server in servers:
        server.start()
    yield Served(config, core, runner)
    for server in servers:
        server.stop()
    core.stop()


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_node_that_just_started_has_a_log_that_verifies(served: Served) -> None:
    paths = served.config.paths
    served.core.export()
    files = [(path.name, path.read_bytes()) for path in sorted(paths.audit.iterdir())]
    report = verify_log(files, KeyRing([read_verify_key(public_path(paths.audit_key))]))
    assert report.ok and report.site == samples.SITE and report.checkpointed == report.records == 2


def test_every_verb_is_refused_to_every_role_that_may_not_ask_it(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the request: the role is asked before it is read."""
    asked = {verb.name: verb for verb in (*STAFF, CHALLENGE)}
    assert asked.keys() == PERMISSIONS.keys()
    with served.core.core.store.read() as snapshot:
        before = snapshot.audit_size()
    refused = []
    for role in Role:
        with served.client(role) as client:
            for name, verb in asked.items():
                if not may(role.value, name):
                    nobodys = replace(verb, request=Empty, answer=Empty)
                    with pytest.raises(Denied) as denied:
                        if verb.stream == "server":
                            next(client.stream(nobodys, Empty()))
                        else:
                            client.call(nobodys, Empty())
                    assert denied.value.reasons[0].code is Code.ROLE_NOT_PERMITTED, (role, name)
                    refused.append((role, name))
    with served.core.core.store.read() as snapshot:
        assert snapshot.audit_size() == before, "nothing was changed"
    assert {(role, name) for name, roles in PERMISSIONS.items() for role in set(Role) - roles} == set(refused)
    told = [record.getMessage() for record in caplog.records if "role_not_permitted" in record.getMessage()]
    assert told == [f"verb {name} refused to {role.value}: role_not_permitted" for role, name in refused]


def test_every_role_may_look(served: Served) -> None:
    for role in Role:
        with served.client(role) as client:
            assert client.call(words.STATUS, Empty()).site == samples.SITE


def test_who_asked_stands_in_the_log(served: Served) -> None:
    with served.client(Role.IT_ADMIN) as client:
        assert client.call(words.PAUSE, Empty()).all_ended
        client.call(words.RESUME, Empty())
        assert not client.call(words.STATUS, Empty()).paused
    with served.core.core.store.read() as snapshot:
        newest = snapshot.audit_lines(2, 10)
    assert ['"actor":"it_admin.unknown"' in line for line in newest] == [True, True]


def test_a_document_from_the_hub_signed_by_nobody_we_trust_is_answered_and_written_down(served: Served) -> None:
    forged = samples.STRANGER.sign(samples.permit())
    with Client(served.config.paths.link_socket) as hub:
        answer = hub.call(link.DELIVER_DOCUMENT, SignedText(forged))
        assert (answer.outcome, answer.code) == ("refused", Code.UNTRUSTED_KEY)
        answer = hub.call(link.DELIVER_DOCUMENT, SignedText(text=samples.COMMITTEE.sign(samples.permit())))
        assert (answer.outcome, answer.code) == ("accepted", None)
    with served.client(Role.AUDITOR) as client:
        assert [each.permit for each in client.call(documents.PERMITS, Empty())] == ["lesions-2026"]


def test_an_alarm_about_the_certificate_is_written_down_once_a_day(served: Served) -> None:
    with Client(served.config.paths.link_socket) as hub:
        for _ in range(50):  # a link in the wrong hands may say it without end
            hub.call(link.CERTIFICATE_ALARM, link.Alarm(Code.CERTIFICATE_REPLACED))
        with pytest.raises(Malformed):
            hub.call(link.CERTIFICATE_ALARM, link.Alarm(Code.STOPPED))
    with served.core.core.store.read() as snapshot:
        lines = [line for line in snapshot.audit_lines(0, 1000) if '"certificate_alarm"' in line]
    assert len(lines) == 1 and '"code":"certificate_replaced"' in lines[0] and '"verdict":"failed"' in lines[0]


def test_the_hub_counts_as_connected_only_while_a_link_says_so_and_listens(served: Served) -> None:
    with Client(served.config.paths.link_socket) as hub:
        hub.call(link.HELLO, link.Hello(link_version="1", connected=True))
        assert not served.core.hub_connected, "nobody takes answers"
    with Client(served.config.paths.link_socket) as hub:
        stream = hub.stream(link.OUTBOX, Empty())
        threading.Thread(target=lambda: list(_until_closed(stream)), daemon=True).start()
        eventually(lambda: served.core.hub_connected)
    eventually(lambda: not served.core.hub_connected)


def _until_closed(stream: Iterator[object]) -> Iterator[object]:
    try:
        yield from stream
    except CloisterError:
        return


def test_what_an_engine_that_was_away_at_the_start_still_holds_is_removed_later(config: NodeConfig) -> None:
    runner = FakeRunner(read_verify_key(config.paths.verdict_public_key), {})
    left = config.paths.work / "train-left-over"
    left.mkdir()
    runner.away = True
    core = CoreProcess(config, runner)
    core.start()
    try:
        assert left.exists() and not core.sandboxes.settled()
        runner.away = False
        eventually(lambda: not left.exists() and core.sandboxes.settled())
    finally:
        core.stop()


def test_why_a_node_stopped_whose_folders_were_changed_is_on_record(config: NodeConfig) -> None:
    core = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
    core.start()
    core.stop(changed=True)
    segments = sorted(path for path in config.paths.audit.iterdir() if path.suffix == ".jsonl")
    records = [json.loads(line) for path in segments for line in path.read_text().splitlines()]
    stopped = [(each["object"], each["verdict"]) for each in records if each["action"] == "node_stop"]
    assert stopped == [("state", "failed"), (f"site/{samples.SITE}", "done")]
