"""Who asks: what a signature of a call is worth, and every way to borrow one."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from mediator.errors import CloisterError, Code, Denied, Malformed, NotNow, UsageFault
from mediator.roles import Role
from mediator.signatures import KeyRing, open_signed
from node.ipc.caller import (
    CHALLENGE,
    LIFETIME_S,
    MAX_OPEN,
    SIGNED,
    Caller,
    Metadata,
    SignedCall,
    SignedCalls,
    Signers,
    sign_call,
)
from node.ipc.channel import Client, address
from node.ipc.messages import Empty, pack, unpack
from node.ipc.server import Call, Server
from node.ipc.verb import Handlers, Verb
from tests.mediator import samples

ANNA, NOBODY = samples.STEWARD, samples.STRANGER
SIGNERS = Signers(KeyRing([ANNA.verify_key]), {ANNA.key_id: "anna"})


@dataclass(frozen=True)
class Change:
    what: str


CHANGE, DROP = Verb("change", Change, Empty), Verb("drop", Change, Empty)
FOLLOW = Verb("follow", Change, Change, "server")
SEND = Verb("send", Change, Empty, "upload")
VERBS = (CHANGE, DROP, FOLLOW, SEND)
GRANTED = {verb.name: frozenset({Role.IT_ADMIN}) for verb in (*VERBS, CHALLENGE)}
HANDLERS: Handlers[list[str]] = Handlers()


@HANDLERS.answers(CHANGE)
def change(done: list[str], caller: Caller, request: Change) -> Empty:
    done.append(f"{caller.actor} {caller.known_by} changed {request.what}")
    return Empty()


@HANDLERS.answers(DROP)
def drop(done: list[str], caller: Caller, request: Change) -> Empty:
    done.append(f"{caller.actor} dropped {request.what}")
    return Empty()


@HANDLERS.answers(FOLLOW)
def follow(done: list[str], caller: Caller, request: Change, _call: Call) -> Iterator[Change]:
    done.append(f"{caller.actor} followed {request.what}")
    yield request


@HANDLERS.answers(SEND)
def send(done: list[str], caller: Caller, request: Change, chunks: Iterator[bytes]) -> Empty:
    done.append(f"{caller.actor} sent {len(b''.join(chunks))}")
    return Empty()


class Desk:
    """A server that writes down what it did for whom, and a way to say anything to it."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.done: list[str] = []

    def server(self, caller: Caller | Callable[[Metadata], Caller], signers: Signers | None = SIGNERS) -> Server:
        listed = None if signers is None else GRANTED
        return Server(self.socket, VERBS, HANDLERS.of(self.done), caller=caller, permissions=listed, signers=signers)

    def challenge(self) -> str:
        with Client(self.socket) as client:
            return client.call(CHALLENGE, Empty()).challenge

    def say(self, verb: Verb[Change, Empty], request: Change, text: str) -> Code | None:
        """Ask with this signature; the code of the refusal, or None where it was done."""
        with Client(self.socket, metadata={SIGNED: text}) as client:
            try:
                client.call(verb, request)
            except Denied as denied:
                return denied.reasons[0].code
        return None


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "it_admin.sock")
    with made.server(Caller("it_admin")):
        yield made


def test_a_socket_tells_a_role_and_no_person(desk: Desk) -> None:
    with Client(desk.socket) as client:
        client.call(CHANGE, Change("a"))
    assert desk.done == ["it_admin.unknown socket changed a"]


def test_a_person_is_known_by_what_they_sign(desk: Desk) -> None:
    with Client(desk.socket, key=ANNA) as client:
        client.call(CHANGE, Change("a"))
        client.call(CHANGE, Change("a"))
        assert list(client.stream(FOLLOW, Change("b"))) == [Change("b")]
    assert desk.done == ["it_admin.anna signature changed a"] * 2 + ["it_admin.anna followed b"]


def test_a_signature_gives_nobody_a_role(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "auditor.sock")
    granted = {**GRANTED, CHALLENGE.name: frozenset(Role)}
    server = Server(
        desk.socket, VERBS, HANDLERS.of(desk.done), caller=Caller("auditor"), permissions=granted, signers=SIGNERS
    )
    with server, Client(desk.socket, key=ANNA) as client, pytest.raises(Denied) as denied:
        client.call(CHANGE, Change("a"))
    assert denied.value.reasons[0].code is Code.ROLE_NOT_PERMITTED and desk.done == []


def test_a_challenge_that_was_spent_is_refused(desk: Desk) -> None:
    request = Change("a")
    text = sign_call(ANNA, CHANGE.name, pack(request), desk.challenge())
    assert desk.say(CHANGE, request, text) is None
    before = list(desk.done)
    assert desk.say(CHANGE, request, text) is Code.CHALLENGE_STALE
    assert desk.done == before == ["it_admin.anna signature changed a"]


def test_a_signature_for_another_verb_is_refused_and_its_challenge_spent(desk: Desk) -> None:
    request = Change("a")
    text = sign_call(ANNA, CHANGE.name, pack(request), desk.challenge())
    assert desk.say(DROP, request, text) is Code.BAD_SIGNATURE
    assert desk.say(CHANGE, request, text) is Code.CHALLENGE_STALE
    assert desk.done == []


def test_a_request_changed_after_it_was_signed_is_refused(desk: Desk) -> None:
    text = sign_call(ANNA, CHANGE.name, pack(Change("a")), desk.challenge())
    assert desk.say(CHANGE, Change("b"), text) is Code.BAD_SIGNATURE
    assert desk.done == []


def test_the_key_of_nobody_is_refused_and_not_answered_as_nobodys(desk: Desk) -> None:
    with Client(desk.socket, key=NOBODY) as client, pytest.raises(Denied) as denied:
        client.call(CHANGE, Change("a"))
    assert denied.value.reasons[0].code is Code.UNTRUSTED_KEY and "[staff] persons" in denied.value.hint
    assert desk.done == []


def test_a_signature_under_another_persons_key_id_is_refused(desk: Desk) -> None:
    request = Change("a")
    challenge = desk.challenge()
    head = sign_call(ANNA, CHANGE.name, pack(request), challenge).split(".")[0]
    rest = sign_call(NOBODY, CHANGE.name, pack(request), challenge).split(".")[1:]
    assert desk.say(CHANGE, request, ".".join([head, *rest])) is Code.BAD_SIGNATURE
    assert desk.done == []


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é"])
def test_what_is_no_signature_is_refused(desk: Desk, text: str) -> None:
    with Client(desk.socket, metadata={SIGNED: text}) as client, pytest.raises((CloisterError, UnicodeEncodeError)):
        client.call(CHANGE, Change("a"))
    assert desk.done == []


def test_a_signed_document_of_another_kind_is_no_signature_of_a_call(desk: Desk) -> None:
    with Client(desk.socket, metadata={SIGNED: ANNA.sign(samples.permit())}) as client, pytest.raises(Malformed):
        client.call(CHANGE, Change("a"))
    assert desk.done == []


def test_a_challenge_nobody_handed_out_or_of_another_socket_is_refused(desk: Desk, tmp_path: Path) -> None:
    request, other = Change("a"), Desk(tmp_path / "steward.sock")
    with other.server(Caller("it_admin")):
        elsewhere = other.challenge()
    for challenge in (elsewhere, "0" * 64, hashlib.sha256(b"x").hexdigest()):
        text = sign_call(ANNA, CHANGE.name, pack(request), challenge)
        assert desk.say(CHANGE, request, text) is Code.CHALLENGE_STALE
    assert desk.done == []


def test_bytes_that_are_still_to_come_are_signed_by_nobody(desk: Desk) -> None:
    text = sign_call(ANNA, SEND.name, pack(Change("a")), desk.challenge())
    with Client(desk.socket, metadata={SIGNED: text}) as client, pytest.raises(Denied):
        client.upload(SEND, Change("a"), [b"other"])
    assert desk.done == []
    with Client(desk.socket, key=ANNA) as client, pytest.raises(UsageFault, match="signed"):
        client.upload(SEND, Change("a"), [b"x"])  # and not sent as nobody's
    assert desk.done == []


def test_two_signatures_under_one_call_are_refused(desk: Desk) -> None:
    """Whichever of them would be looked at: a call says one thing."""
    request = Change("a")
    text = sign_call(ANNA, CHANGE.name, pack(request), desk.challenge())
    channel = grpc.insecure_channel(address(desk.socket))
    ask = channel.unary_unary("/cloister/change")
    with pytest.raises(grpc.RpcError):
        ask(pack(request), metadata=((SIGNED, text), (SIGNED, text)), timeout=10)
    channel.close()
    assert desk.done == []


# --- challenges ---------------------------------------------------------------------------------------------------


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def signed(calls: SignedCalls, challenge: str) -> Caller:
    frame = pack(Change("a"))
    return calls.caller(Caller("it_admin"), sign_call(ANNA, "change", frame, challenge), "change", frame)


def test_a_challenge_that_is_too_old_is_refused() -> None:
    clock = Clock()
    calls = SignedCalls(SIGNERS, clock)
    young, old = calls.challenge().challenge, calls.challenge().challenge
    clock.now_s = LIFETIME_S - 0.01
    assert signed(calls, young) == Caller("it_admin", "anna", "signature")
    clock.now_s = LIFETIME_S
    with pytest.raises(Denied) as denied:
        signed(calls, old)
    assert denied.value.reasons[0].code is Code.CHALLENGE_STALE
    clock.now_s = 0.0
    with pytest.raises(Denied):
        signed(calls, old)  # presented once, it is gone


def test_whoever_asks_for_a_million_challenges_costs_no_memory() -> None:
    calls = SignedCalls(SIGNERS)
    made = [calls.challenge().challenge for _ in range(MAX_OPEN + 1)]
    assert len(set(made)) == len(made) and len(calls._open) == MAX_OPEN
    assert signed(calls, made[-1]).person == "anna"
    with pytest.raises(Denied):
        signed(calls, made[0])


def test_an_empty_list_of_persons_knows_nobody() -> None:
    calls = SignedCalls(Signers())
    with pytest.raises(Denied) as denied:
        signed(calls, calls.challenge().challenge)
    assert denied.value.reasons[0].code is Code.UNTRUSTED_KEY


def test_what_is_signed_is_written_down() -> None:
    """The form of a signed call: verb, hash of the request as it is sent, challenge."""
    frame = pack(Change("a"))
    opened = open_signed(SignedCall, sign_call(ANNA, "change", frame, "0" * 64), SIGNERS.ring)
    assert opened.document == SignedCall("change", hashlib.sha256(b'J2{"what":"a"}').hexdigest(), "0" * 64)
    assert unpack(Change, frame) == Change("a")


# --- a process that vouches ---------------------------------------------------------------------------------------


def vouched(metadata: Metadata) -> Caller:
    """As a process would be taken at its word that serves many persons and has asked each for a password."""
    try:
        return Caller(metadata["role"], metadata["person"], "voucher")
    except KeyError:
        raise UsageFault("a call without a person") from None


def test_a_process_that_vouches_says_who_asks_call_by_call(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "web.sock")
    with desk.server(vouched):
        for role, person in (("it_admin", "anna"), ("it_admin", "bert")):
            with Client(desk.socket, metadata={"role": role, "person": person}) as client:
                client.call(CHANGE, Change("a"))
        before = list(desk.done)
        for metadata in ({"role": "auditor", "person": "anna"}, {"role": "it_admin"}, {}):
            with Client(desk.socket, metadata=metadata) as client, pytest.raises(CloisterError):
                client.call(CHANGE, Change("a"))
        for person in ("unknown", "Anna Silva", ""):
            metadata = {"role": "it_admin", "person": person}
            with Client(desk.socket, metadata=metadata) as client, pytest.raises(UsageFault):
                client.call(CHANGE, Change("a"))
    assert desk.done == before == ["it_admin.anna voucher changed a", "it_admin.bert voucher changed a"]


def test_on_a_socket_of_no_voucher_what_a_call_says_of_itself_counts_for_nothing(desk: Desk) -> None:
    with Client(desk.socket, metadata={"role": "data_steward", "person": "anna"}) as client:
        client.call(CHANGE, Change("a"))
    assert desk.done == ["it_admin.unknown socket changed a"]


@pytest.mark.parametrize("person", ["A", "a b", "a" * 49, "a/b"])
def test_a_person_whom_no_record_could_name_is_nobody(person: str) -> None:
    with pytest.raises(UsageFault):
        Caller("it_admin", person)


def test_a_process_is_no_person() -> None:
    assert Caller("link", person="").actor == "link"


def test_a_signed_call_takes_no_longer_than_an_unsigned_one(tmp_path: Path) -> None:
    """A pause has a budget: what its challenge took is not there for the call a second time."""
    done = list[str]()

    @SLOW_HANDLERS.answers(SLOW)
    def slow(_done: list[str], _caller: Caller, request: Change) -> Empty:
        time.sleep(float(request.what))
        return Empty()

    granted = {verb.name: frozenset({Role.IT_ADMIN}) for verb in (SLOW, CHALLENGE)}
    server = Server(
        tmp_path / "it_admin.sock", (SLOW,), SLOW_HANDLERS.of(done), caller=Caller("it_admin"), permissions=granted,
        signers=SIGNERS, threads=1,
    )  # fmt: skip
    with server, Client(tmp_path / "it_admin.sock") as other, Client(tmp_path / "it_admin.sock", key=ANNA) as anna:
        busy = threading.Thread(target=lambda: other.call(SLOW, Change("1.2")))
        busy.start()
        time.sleep(0.2)
        begun = time.monotonic()
        with pytest.raises(NotNow):
            anna.call(SLOW, Change("5"), timeout_s=2.0)
        assert 1.5 < time.monotonic() - begun < 2.6
        busy.join()


SLOW = Verb("slow", Change, Empty)
SLOW_HANDLERS: Handlers[list[str]] = Handlers()
