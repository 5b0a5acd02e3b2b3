"""The channel on real sockets: every kind of verb, and every way a peer can fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import (
    CloisterError,
    Code,
    Denied,
    EngineUnavailable,
    IntegrityBroken,
    Malformed,
    NotNow,
    Reason,
    UsageFault,
)
from mediator.roles import Role
from node.ipc.caller import Caller
from node.ipc.channel import Client
from node.ipc.messages import Empty
from node.ipc.server import Call, Server
from node.ipc.verb import Handlers, Verb
from tests.sim.users import as_user


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Number:
    number: int


ECHO = Verb("echo", Text, Text)
COUNT = Verb("count", Number, Number, "server")
STORE = Verb("store", Text, Number, "upload")
FETCH = Verb("fetch", Number, Text, "download")
FAIL = Verb("fail", Text, Empty)
LISTED = (ECHO, COUNT, STORE, FETCH, FAIL)

ERRORS: dict[str, Exception] = {
    "denied": Denied([Reason(Code.PERMIT_EXPIRED, "at noon"), Reason(Code.HOSPITAL_PAUSED)], hint="ask"),
    "usage": UsageFault("wrong", hint="do this"),
    "malformed": Malformed("not that"),
    "broken": IntegrityBroken("flipped"),
    "later": NotNow("busy"),
    "engine": EngineUnavailable("no engine"),
    "largest": Denied([Reason(Code.PERMIT_EXPIRED, "🫁" * 999)] * 99, hint="\x01" * 999),
    "foreign": ValueError("PATIENT^NAME"),
}


ANSWERS: Handlers[Any] = Handlers()
SOMEBODY = Caller("somebody")


class Peer:
    """A server of all five kinds, which remembers what it saw."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.left = threading.Event()
        self.torn: list[str] = []
        self.receiving = False

    @ANSWERS.answers(ECHO)
    def echo(self, _caller: Caller, request: Text) -> Text:
        return request

    @ANSWERS.answers(COUNT)
    def count(self, _caller: Caller, request: Number, call: Call) -> Iterator[Number]:
        try:
            for number in range(request.number):
                yield Number(number=number)
            if request.number > 5:
                raise Denied(Reason(Code.ROUNDS_EXHAUSTED))
            if request.number < 2:
                call.sleep(20)
        finally:
            self.left.set()

    @ANSWERS.answers(STORE)
    def store(self, _caller: Caller, request: Text, chunks: Iterator[bytes]) -> Number:
        self.receiving = True
        try:
            content = b"".join(chunks)
        except CloisterError as error:
            self.torn.append(type(error).__name__)
            raise
        self.stored.append(content)
        return Number(number=len(content))

    @ANSWERS.answers(FETCH)
    def fetch(self, _caller: Caller, request: Number, call: Call) -> Iterator[Text | bytes]:
        yield Text(text="first")
        yield b"x" * request.number
        yield Text(text="last")

    @ANSWERS.answers(FAIL)
    def fail(self, _caller: Caller, request: Text) -> Empty:
        raise ERRORS[request.text]


def served(socket: Path, peer: Peer) -> Server:
    return Server(socket, LISTED, ANSWERS.of(peer), caller=SOMEBODY)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "run" / "peer.sock"


@pytest.fixture
def client(socket: Path, peer: Peer) -> Iterator[Client]:
    with served(socket, peer), Client(socket) as client:
        yield client


def test_a_message_goes_there_and_back(client: Client) -> None:
    assert client.call(ECHO, Text(text="Grüße")).text == "Grüße"


def test_a_stream_arrives_in_order_and_ends(client: Client) -> None:
    assert [item.number for item in client.stream(COUNT, Number(number=3))] == [0, 1, 2]


def test_an_upload_larger_than_a_chunk_arrives_whole(client: Client, peer: Peer) -> None:
    content = os.urandom(3 * (1 << 20) + 17)
    assert client.upload(STORE, Text(text="model"), [content, b"", b"tail"]).number == len(content) + 4
    assert peer.stored == [content + b"tail"]


def test_a_download_mixes_messages_and_chunks(client: Client) -> None:
    items = list(client.download(FETCH, Number(number=(1 << 20) + 1)))
    assert items[0] == Text(text="first") and items[-1] == Text(text="last")
    assert [len(item) for item in items[1:-1] if isinstance(item, bytes)] == [1 << 20, 1]


@pytest.mark.parametrize("name", ["denied", "usage", "malformed", "broken", "later", "engine"])
def test_our_errors_arrive_as_the_same_class(client: Client, name: str) -> None:
    sent = ERRORS[name]
    assert isinstance(sent, CloisterError)
    with pytest.raises(CloisterError) as caught:
        client.call(FAIL, Text(text=name))
    assert type(caught.value) is type(sent)
    assert (caught.value.message, caught.value.hint) == (sent.message, sent.hint)
    if isinstance(sent, Denied) and isinstance(caught.value, Denied):
        assert caught.value.reasons == sent.reasons


def test_the_largest_error_arrives_too(client: Client) -> None:
    """Of characters that take the most room: an error that its trailers had no room for would be no error of ours."""
    with pytest.raises(Denied) as caught:
        client.call(FAIL, Text(text="largest"))
    assert len(caught.value.reasons) == 20 and caught.value.reasons[0].detail == "🫁" * 200


def test_a_foreign_exception_crosses_without_its_text(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CloisterError) as caught:
        client.call(FAIL, Text(text="foreign"))
    assert type(caught.value) is CloisterError and caught.value.exit_code == 1
    assert "PATIENT" not in caught.value.message + caught.value.hint + caplog.text
    assert "ValueError" in caplog.text


def test_a_refusal_in_mid_stream_arrives_after_what_came_before(client: Client) -> None:
    seen = []
    with pytest.raises(Denied) as caught:
        for item in client.stream(COUNT, Number(number=6)):
            seen.append(item.number)
    assert seen == [0, 1, 2, 3, 4, 5] and caught.value.reasons[0].code is Code.ROUNDS_EXHAUSTED


def test_many_long_reasons_still_cross(tmp_path: Path) -> None:
    reasons = [Reason(Code.TENSOR_SHAPE, "ü" * 1000) for _ in range(500)]

    def refuse(_caller: Caller, request: Text) -> Text:
        raise Denied(reasons)

    path = tmp_path / "long.sock"
    with Server(path, [ECHO], {ECHO: refuse}, caller=SOMEBODY), Client(path) as client, pytest.raises(Denied) as caught:
        client.call(ECHO, Text(text=""))
    assert len(caught.value.reasons) == 20


def test_a_verb_not_on_the_list_is_refused(tmp_path: Path, peer: Peer) -> None:
    path = tmp_path / "few.sock"
    with Server(path, [ECHO], {ECHO: peer.echo}, caller=SOMEBODY), Client(path) as client:
        for attempt in (
            lambda: client.call(FAIL, Text(text="foreign")),
            lambda: list(client.stream(COUNT, Number(number=1))),
            lambda: client.upload(STORE, Text(text=""), [b"bytes"]),
        ):
            with pytest.raises(Denied) as caught:
                attempt()
            assert caught.value.reasons[0].code is Code.VERB_NOT_PERMITTED
    assert peer.stored == []


def test_an_empty_verb_list_denies_everything(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with Server(path, [], {}, caller=SOMEBODY), Client(path) as client, pytest.raises(Denied):
        client.call(ECHO, Text(text=""))


def test_a_role_that_may_not_ask_is_refused_before_the_handler(tmp_path: Path, peer: Peer) -> None:
    path = tmp_path / "asked.sock"
    granted = {verb.name: frozenset({Role.AUDITOR} if verb is ECHO else ()) for verb in LISTED}
    server = Server(path, LISTED, ANSWERS.of(peer), caller=Caller("auditor"), permissions=granted)
    with server, Client(path) as client:
        assert client.call(ECHO, Text(text="a")).text == "a"
        for attempt in (
            lambda: client.upload(STORE, Text(text=""), [b"x"]),
            lambda: client.call(FAIL, Text(text="foreign")),
            lambda: list(client.stream(COUNT, Number(number=1))),
        ):
            with pytest.raises(Denied) as caught:
                attempt()
            assert caught.value.reasons[0].code is Code.ROLE_NOT_PERMITTED
    assert peer.stored == [] and not peer.left.is_set()


def test_nobody_there_is_not_now(socket: Path) -> None:
    with Client(socket) as client:
        with pytest.raises(NotNow, match="nobody answers"):
            client.call(ECHO, Text(text=""))
        with pytest.raises(NotNow):
            client.wait(0.2)


def test_a_slow_answer_is_not_now(client: Client) -> None:
    with pytest.raises(NotNow, match="no answer on"):
        list(client.stream(COUNT, Number(number=0), timeout_s=0.2))


def test_a_client_finds_its_server_again(socket: Path, peer: Peer) -> None:
    with Client(socket) as client:
        for _ in range(2):
            with served(socket, peer):
                client.wait(5)
                assert client.call(ECHO, Text(text="again")).text == "again"


def test_a_handler_learns_that_its_caller_left(client: Client, peer: Peer) -> None:
    stream = client.stream(COUNT, Number(number=1))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert peer.left.wait(5)


def test_a_server_that_stops_ends_its_waiting_streams_at_once(socket: Path, peer: Peer) -> None:
    server = served(socket, peer)
    server.start()
    with Client(socket) as client:
        waiting = threading.Thread(target=lambda: list(client.stream(COUNT, Number(number=0))))
        waiting.start()
        while not server._dispatch._streams:
            time.sleep(0.01)
        began = time.monotonic()
        server.stop(grace_s=10)
        waiting.join(5)
        assert time.monotonic() - began < 2 and not waiting.is_alive()


def test_an_upload_whose_source_fails_is_never_complete(
    client: Client, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        client.upload(STORE, Text(text="model"), chunks())
    assert (peer.stored, peer.torn, caplog.text) == ([], ["NotNow"], "")


def test_an_upload_whose_sender_is_killed_is_never_complete(socket: Path, peer: Peer) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        "from tests.node.ipc.test_channel import *\n"
        "def chunks():\n"
        "    yield b'half' * 100\n"
        "    print('sent', flush=True)\n"
        "    time.sleep(60)\n"
        "Client(pathlib.Path(sys.argv[1])).upload(STORE, Text(text='model'), chunks())\n"
    )
    with served(socket, peer):
        child = subprocess.Popen([sys.executable, "-c", script, str(socket)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"sent\n"
        while not peer.receiving:
            time.sleep(0.01)
        child.kill()
        child.wait()
        child.stdout.close()
        deadline = time.monotonic() + 10
        while not peer.torn and time.monotonic() < deadline:
            time.sleep(0.02)
    assert (peer.stored, peer.torn) == ([], ["NotNow"])


def test_a_second_server_on_a_live_socket_is_refused(client: Client, socket: Path, peer: Peer) -> None:
    with pytest.raises(NotNow, match="another process serves"):
        served(socket, peer).start()
    assert client.call(ECHO, Text(text="still here")).text == "still here"


def test_a_socket_left_by_a_killed_server_is_replaced(socket: Path, peer: Peer) -> None:
    script = (
        "import sys, pathlib\n"
        "from tests.node.ipc.test_channel import *\n"
        "server = served(pathlib.Path(sys.argv[1]), Peer()); server.start()\n"
        "print('up', flush=True); server.wait()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(socket)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert socket.is_socket()
    with served(socket, peer), Client(socket) as client:
        assert client.call(ECHO, Text(text="new")).text == "new"


def test_a_file_in_the_way_is_never_removed(socket: Path, peer: Peer) -> None:
    socket.parent.mkdir()
    socket.write_text("precious")
    with pytest.raises(UsageFault, match="not a socket"):
        served(socket, peer).start()
    assert socket.read_text() == "precious"


def test_socket_and_folder_carry_their_modes(client: Client, socket: Path) -> None:
    assert socket.stat().st_mode & 0o7777 == 0o660
    assert socket.parent.stat().st_mode & 0o7777 == 0o711


def test_the_socket_goes_with_its_server(socket: Path, peer: Peer) -> None:
    with served(socket, peer):
        assert socket.is_socket()
    assert not socket.exists()
    assert [path.name for path in socket.parent.iterdir()] == ["peer.lock"]


def test_a_path_the_kernel_cannot_hold_is_refused(tmp_path: Path, peer: Peer) -> None:
    with pytest.raises(UsageFault, match="107 bytes"):
        served(tmp_path / ("x" * 120) / "a.sock", peer).start()


def test_a_path_with_odd_characters_works(tmp_path: Path, peer: Peer) -> None:
    path = tmp_path / "a folder %41 ü" / "a.sock"
    with served(path, peer), Client(path) as client:
        assert client.call(ECHO, Text(text="a")).text == "a"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_another_user_without_the_group_may_not_connect(client: Client, socket: Path) -> None:
    for folder in [socket.parent, *socket.parents]:
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)\n"
    )
    run = subprocess.run(as_user([sys.executable, "-I", "-c", code, str(socket)]))
    assert run.returncode == 13
