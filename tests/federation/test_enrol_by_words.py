"""Enrolment by six words: attacks on the real hub's port, by who lies on the way, hears the words, or only knocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from federation import control, introduction, pki
from federation.client import enrolment
from federation.client.enrolment import LinkConfig
from federation.client.hand_in import CLOSED, Offer, hand_in, knock
from federation.client.link import run_link
from federation.hub.invitations import MAX_OPEN
from federation.hub.state import HubState
from federation.hub.tables import InvitationRow
from mediator.errors import Denied, Malformed, NotNow, UsageFault
from mediator.signatures import KeyRing, SigningKey
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT, attempt, cloister
from tests.federation.ground import COMMITTEE, Town, found, key
from tests.federation.test_ingress import ask, plain_context, refusal

HANDSHAKE_S = 2.0
STRANGER = key("z").verify_key


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"), ingress=f"handshake_s = {HANDSHAKE_S}")
    town.start()
    yield town
    town.stop()


@pytest.fixture(autouse=True)
def closed(town: Town) -> Iterator[None]:
    """Every test begins and ends with no invitation."""
    yield
    with town.hub.database.write() as session:  # those that were answered too, which stay for a minute
        for row in session.scalars(select(InvitationRow)):
            row.code = ""
    town.hub.notify()
    until(lambda: "CERTIFICATE_REQUIRED" in refusal(town, plain_context(town)))


def until(holds: object, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def offer_of(
    town: Town, site: str, folder: Path, *, hub: SigningKey | None = None, witnesses: list[str] | None = None
) -> Offer:
    request = enrolment.make_request(folder, site, release_key=STRANGER, audit_key=STRANGER)
    hub_key, witness = (hub or town.hub.instruction_key).verify_key.text, town.hub.witness_key.verify_key.text
    return Offer.of(request, [hub_key], [witness] if witnesses is None else witnesses)


def invited(town: Town, site: str, words: str, *, again: bool = False) -> int:
    """An invitation that the running hub knows of by now."""
    number = town.hub.invite(site, words, again=again)
    until(lambda: refusal(town, plain_context(town)) == "no alert")
    return number


def post(town: Town, body: bytes, path: str = control.ENROL) -> tuple[int, str]:
    """A stranger's request, over a handshake without a certificate; the status, and the code of what it says."""
    with contextlib.closing(_dial(town)) as channel:
        head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        channel.sendall(head.encode() + body)
        raw = b""
        with contextlib.suppress(ConnectionError):
            while piece := channel.recv(1 << 16):
                raw += piece
    status, answer = int(raw.split(b" ")[1]), raw.partition(b"\r\n\r\n")[2]
    return status, json.loads(answer).get("code", "")


def _dial(town: Town) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", town.config.ingress.port), 10)
    return plain_context(town).wrap_socket(plain, server_hostname="127.0.0.1")


def try_in(town: Town, offer: Offer, wait_s: float = 8.0, hub: str = "") -> bytes:
    return asyncio.run(hand_in(hub or town.config.ingress.url, offer, wait_s, lambda _: None))


def handed(offer: Offer, text: str = "", sealed: str = "") -> bytes:
    """A hand-in, with what somebody put in the place of its offer or its seal."""
    given = offer.handed_in()
    changed = {"offer": text or given.offer, "sealed": sealed or given.sealed}
    return control.encode(given.model_copy(update=changed))


def known(town: Town) -> set[str]:
    return {row["site"] for row in town.hub.nodes()}


# --- as it should be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["node", "operator"])
def test_a_node_with_the_words_is_let_in_whoever_begins(town: Town, tmp_path: Path, first: str) -> None:
    """From the words being typed to a handshake with the new certificate, within seconds."""
    site, said = f"first-{first}", list[str]()
    offer = offer_of(town, site, tmp_path / "link")
    if first == "operator":
        invited(town, site, offer.words)
        answer = try_in(town, offer)
    else:
        answers = list[bytes]()
        waiting = threading.Thread(
            target=lambda: answers.append(asyncio.run(hand_in(town.config.ingress.url, offer, 20, said.append)))
        )
        waiting.start()
        until(lambda: said)
        assert said == [CLOSED]
        town.hub.invite(site, offer.words)
        waiting.join()
        (answer,) = answers
    enrolment.install(tmp_path / "link", town.opened(answer))
    asyncio.run(knock(tmp_path / "link"))
    assert site in known(town)


def test_an_answer_that_was_lost_is_given_again_and_no_second_certificate(town: Town, tmp_path: Path) -> None:
    offer = offer_of(town, "lost-answer", tmp_path / "link")
    number = invited(town, "lost-answer", offer.words)
    first = try_in(town, offer)
    assert town.hub.invitations.state(number) == ("done", "")
    assert try_in(town, offer) == first
    assert len([row for row in town.hub.events(0) if row["object"] == "lost-answer" and row["verdict"] == "done"]) == 2
    town.hub.uninvite(number)
    assert try_in(town, offer) == first, "the operator's command has ended meanwhile"
    with town.hub.database.write() as session:
        session.get_one(InvitationRow, number).expires = "2020-01-01T00:00:00Z"
    town.hub.notify()
    until(lambda: town.hub.invitations.live() == [])
    with pytest.raises(NotNow):
        try_in(town, offer, wait_s=0)
    assert town.hub.invitations.state(number) == ("done", "")


def test_a_revoked_site_comes_back_with_words_again_and_new_keys(town: Town, tmp_path: Path) -> None:
    folder = tmp_path / "link"
    offer = offer_of(town, "comes-back", folder)
    invited(town, "comes-back", offer.words)
    enrolment.install(folder, town.opened(try_in(town, offer)))
    with pytest.raises(UsageFault, match="is enrolled"):
        town.hub.invite("comes-back", offer_of(town, "comes-back", folder).words)
    town.hub.revoke("comes-back")
    with pytest.raises(UsageFault, match="was revoked"):
        town.hub.invite("comes-back", offer.words)
    old = offer_of(town, "comes-back", folder)
    number = invited(town, "comes-back", old.words, again=True)
    with pytest.raises(NotNow, match="refuses this request"):
        try_in(town, old, wait_s=0)
    assert town.hub.invitations.state(number) == ("open", "refused")
    request = enrolment.make_request(folder, "comes-back", release_key=STRANGER, audit_key=STRANGER, new_keys=True)
    fresh = Offer.of(request, [town.hub.instruction_key.verify_key.text], [town.hub.witness_key.verify_key.text])
    invited(town, "comes-back", fresh.words, again=True)
    enrolment.install(folder, town.opened(try_in(town, fresh)))
    asyncio.run(knock(folder))


# --- who only knocks ------------------------------------------------------------------------------------------


def test_without_an_invitation_nobody_without_a_certificate_passes_the_handshake(town: Town, tmp_path: Path) -> None:
    assert "CERTIFICATE_REQUIRED" in refusal(town, plain_context(town))
    with pytest.raises(NotNow) as caught:
        try_in(town, offer_of(town, "uninvited", tmp_path / "link"), wait_s=0)
    assert CLOSED in caught.value.message and "uninvited" not in known(town)


def test_while_a_site_is_enrolled_a_stranger_reaches_that_one_path_and_no_other(town: Town, tmp_path: Path) -> None:
    invited(town, "one-path", offer_of(town, "one-path", tmp_path / "link").words)
    for path in (control.RELEASES, control.RENEW, control.INVENTORY, control.WITNESS, "/v1/fleet/pull-messages", "/",
                 control.ENROL + "/", "//v1/enrol", "/v1/control/../enrol", "/v1/enrol?x=1"):  # fmt: skip
        status, code = post(town, b"{}", path)
        assert status in (400, 403, 404) and code in ("site_not_named", "malformed", "http"), (path, status, code)
    status, _ = ask(town, plain_context(town), "GET", control.EVENTS)
    assert status == 403


def test_certificates_are_looked_at_as_ever_while_a_site_is_enrolled(town: Town, tmp_path: Path) -> None:
    """The door that is open for those without one is open for no bad one."""
    offer = offer_of(town, "as-ever", tmp_path / "link")
    invited(town, "as-ever", offer.words)
    now, node = datetime.now(UTC), pki.new_key()
    other = pki.Authority.create(tmp_path / "pki", "other", ["127.0.0.1"], now)
    for name, authority in (("another authority's", other), ("revoked", town.hub.authority)):
        made = authority.issue_node(pki.signing_request(node, "aachen"), "aachen", now)
        (tmp_path / "tls.crt").write_bytes(pki.certificate_pem(made))
        (tmp_path / "tls.key").write_bytes(pki.key_pem(node))
        if authority is town.hub.authority:
            town.hub.authority.sign_revocations([pki.Revoked(made.serial_number, now)], now)
            town.hub.notify()
            time.sleep(1.5)
        context = plain_context(town)
        context.load_cert_chain(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
        assert refusal(town, context) in ("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_REVOKED"), name
    # and an enrolled site has no business at the strangers' path
    context = plain_context(town, "aachen")
    assert ask(town, context, "POST", control.ENROL)[0] == 403
    assert ask(town, context, "GET", "/v1/control/none")[0] == 404
    town.hub.registry.sign_revocations()


def test_codes_that_are_guessed_open_nothing_and_leave_nothing(town: Town, tmp_path: Path) -> None:
    own = offer_of(town, "guessed", tmp_path / "own")
    invited(town, "guessed", offer_of(town, "guessed", tmp_path / "link").words)
    before = town.hub.events(0)
    for guess in range(60):
        sealed = introduction.seal(guess.to_bytes(introduction.CODE_BYTES, "big"), own.secret, own.text)
        assert post(town, handed(own, sealed=sealed.hex())) == (403, "no_such_words")
    for junk in (b"", b"{}", b"[" * 60_000, b'"' + b"x" * 100_000, handed(own)[:-1], handed(own, sealed="zz")):
        assert post(town, junk) == (400, "malformed")
    assert town.hub.events(0) == before and "guessed" not in known(town)


def test_a_flood_of_hand_ins_keeps_out_neither_the_node_nor_the_sites(town: Town, tmp_path: Path) -> None:
    """Silent ones, endless ones and wrong ones, from the node's own address: nothing is kept of any."""
    offer, own = offer_of(town, "flooded", tmp_path / "link"), offer_of(town, "flooded", tmp_path / "own")
    number = invited(town, "flooded", offer.words)
    before, ending = town.hub.events(0), threading.Event()

    def flood(which: int) -> None:
        while not ending.is_set():
            with contextlib.suppress(OSError, IndexError, ValueError):
                if which % 3 == 0:
                    post(town, handed(own))
                elif which % 3 == 1:
                    post(town, b"x" * (4 << 20))
                else:
                    with contextlib.closing(_dial(town)) as channel:
                        channel.sendall(b"POST /v1/enrol HTTP/1.1\r\nHost: hub\r\nContent-Length: 9\r\n\r\n")
                        ending.wait(0.5)

    crowd = [threading.Thread(target=flood, args=(which,)) for which in range(12)]
    for each in crowd:
        each.start()
    try:
        time.sleep(1)
        context = plain_context(town, "aachen")
        assert ask(town, context, "GET", "/v1/control/none")[0] == 404
        enrolment.install(tmp_path / "link", town.opened(try_in(town, offer, wait_s=30)))
    finally:
        ending.set()
        for each in crowd:
            each.join()
    assert town.hub.invitations.state(number) == ("done", "")
    more = town.hub.events(0)[len(before) :]
    assert [(row["action"], row["object"]) for row in more] == [("node_approve", "flooded")]
    log = (town.folder / "hub.log").read_text()
    assert log.count("that no words fit") <= MAX_OPEN * 4, "said once for each invitation"


def test_a_stranger_who_drips_is_cut_off(town: Town, tmp_path: Path) -> None:
    invited(town, "dripped", offer_of(town, "dripped", tmp_path / "link").words)
    with contextlib.closing(_dial(town)) as channel:
        begun = time.monotonic()
        channel.sendall(b"POST /v1/enrol HTTP/1.1\r\nHost: hub\r\nContent-Length: 999\r\n\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 4 * HANDSHAKE_S:
                channel.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - begun < 2 * HANDSHAKE_S


def test_so_many_invitations_are_open_at_a_time_and_no_more(town: Town, tmp_path: Path) -> None:
    for number in range(MAX_OPEN):
        town.hub.invite(f"many-{number}", introduction.words_of(bytes([number]) * introduction.CODE_BYTES))
    one_more = introduction.words_of(bytes(introduction.CODE_BYTES))
    with pytest.raises(NotNow, match="being enrolled"):
        town.hub.invite("many", introduction.words_of(b"m" * introduction.CODE_BYTES))
    town.hub.invite("many-0", one_more)  # in place of its own
    assert len(town.hub.invitations.live()) == MAX_OPEN


def test_words_are_forgotten_when_their_time_is_over(town: Town, tmp_path: Path) -> None:
    offer = offer_of(town, "late", tmp_path / "link")
    past = HubState(town.config, lambda: datetime.now(UTC) - timedelta(minutes=31))
    number = past.invite("late", offer.words)
    town.hub.notify()
    with pytest.raises(NotNow):
        try_in(town, offer, wait_s=0)
    until(lambda: town.hub.invitations.state(number) == ("closed", ""))
    assert town.hub.invitations.live() == [] and "late" not in known(town)
    with contextlib.closing(past):
        assert offer.code.hex().encode() not in past.database.path.read_bytes()


# --- who lies on the way --------------------------------------------------------------------------------------


class Middle:
    """Somebody between node and hub, with a certificate of his own making, who answers what `play` says."""

    def __init__(self, folder: Path, play: object) -> None:
        self._play = play
        self.authority = pki.Authority.create(folder, "middle", ["127.0.0.1"], datetime.now(UTC))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(str(self.authority.server_certificate), str(self.authority.server_key))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.heard: list[control.HandIn] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"https://127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as channel:
                raw = b""
                while b"\r\n\r\n" not in raw:
                    raw += channel.recv(1 << 16)
                head, _, body = raw.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                while len(body) < length:
                    body += channel.recv(1 << 16)
                hand = control.decode(control.HandIn, body)
                self.heard.append(hand)
                answer = control.encode(self._play(hand))  # type: ignore[operator]
                status = b"200 OK" if answer.startswith(b'{"version":1,"answer"') else b"403 Forbidden"
                head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(answer))
                channel.sendall(head + answer)


def test_a_request_that_is_swapped_on_its_way_is_not_enrolled(town: Town, tmp_path: Path) -> None:
    """By one who has not heard the words: with the node's seal, with one of his own, with half of each."""
    offer, own = offer_of(town, "swapped", tmp_path / "link"), offer_of(town, "swapped", tmp_path / "own")
    number = invited(town, "swapped", offer.words)
    hand = offer.handed_in()
    mixed = control.decode(control.EnrolmentOffer, offer.text.encode())
    mixed = mixed.model_copy(update={"request": control.decode(control.EnrolmentOffer, own.text.encode()).request})
    swapped = (own.text, control.encode(mixed).decode(), offer.text + " ")
    for forged in (*(handed(offer, text) for text in swapped), handed(own, sealed=hand.sealed), handed(own)):
        assert post(town, forged) == (403, "no_such_words")
    assert town.hub.invitations.state(number) == ("open", "") and "swapped" not in known(town)
    assert try_in(town, offer), "and the node itself is"


def test_who_has_heard_the_words_can_hand_in_no_keys_of_his_own(town: Town, tmp_path: Path) -> None:
    """The telephone need not be secret: the words are a hash of the node's own offer."""
    offer, own = offer_of(town, "overheard", tmp_path / "link"), offer_of(town, "overheard", tmp_path / "own")
    number = invited(town, "overheard", offer.words)
    secret = introduction.unseal(offer.code, bytes.fromhex(offer.handed_in().sealed), offer.text)
    assert secret is not None
    for guess in (secret, own.secret, bytes(32)):
        sealed = introduction.seal(offer.code, guess, own.text).hex()
        assert post(town, handed(own, sealed=sealed)) == (403, "no_such_words")
    assert town.hub.invitations.state(number) == ("open", "") and "overheard" not in known(town)


def answer_of(middle: pki.Authority, town: Town, offer: Offer, signer: SigningKey, lists: SigningKey) -> str:
    """A whole answer by another authority, signed by `signer`, which lists the keys of `lists`."""
    shown = control.decode(control.EnrolmentOffer, offer.text.encode())
    request = control.decode(control.EnrolmentRequest, shown.request.encode())
    certificate = middle.issue_node(request.request, request.site, datetime.now(UTC))
    bundle = control.EnrolmentBundle(
        site=request.site, hub=town.config.ingress.url, certificate=pki.certificate_pem(certificate).decode(),
        ca=middle.ca.read_text(), instruction_keys=[lists.verify_key.text],
        witness_keys=[town.hub.witness_key.verify_key.text], flower_key=request.flower_key,
        release_key=request.release_key,
    )  # fmt: skip
    text = control.encode(bundle).decode()
    signature = signer.sign_bytes(control.signed_part(text)).hex()
    return control.encode(control.EnrolmentAnswer(bundle=text, signature=signature)).decode()


def test_another_hub_that_answers_is_not_believed(town: Town, tmp_path: Path) -> None:
    """Without the words it cannot answer, even where the configuration trusts it; with them it is not trusted."""
    offer, evil = offer_of(town, "lured", tmp_path / "link"), key("m")

    def without_words(hand: control.HandIn) -> control.HandOut:
        guess = introduction.answer_tag(introduction.new_secret(), "")
        answer = answer_of(middle.authority, town, offer, evil, evil)
        return control.HandOut(answer=answer, tag=guess)

    middle = Middle(tmp_path / "one", without_words)
    with middle as address, pytest.raises(NotNow, match="who was not told the words"):
        try_in(town, offer, wait_s=0, hub=address)
    assert middle.heard and offer.secret.hex() not in middle.heard[0].sealed

    def with_words(hand: control.HandIn) -> control.HandOut:
        secret = introduction.unseal(introduction.code_in(offer.words), bytes.fromhex(hand.sealed), hand.offer)
        assert secret is not None
        answer = answer_of(listener.authority, town, offer, evil, town.hub.instruction_key)
        return control.HandOut(answer=answer, tag=introduction.answer_tag(secret, answer))

    listener = Middle(tmp_path / "two", with_words)
    with listener as address:
        answer = try_in(town, offer, wait_s=0, hub=address)
    with pytest.raises(Denied, match="no hub key that this node's configuration trusts"):
        town.opened(answer)
    assert "lured" not in known(town)


def test_a_node_that_trusts_another_hub_is_not_enrolled_and_both_are_told(town: Town, tmp_path: Path) -> None:
    """A hub key that came by a forged mail, say: the hub sees whom the node would believe."""
    for site, offer in {
        "misled-hub": offer_of(town, "misled-hub", tmp_path / "1", hub=key("m")),
        "misled-witness": offer_of(town, "misled-witness", tmp_path / "2", witnesses=[key("m").verify_key.text]),
    }.items():
        number = invited(town, site, offer.words)
        for _ in range(3):
            with pytest.raises(NotNow, match="are not its own"):
                try_in(town, offer, wait_s=0)
        assert town.hub.invitations.state(number) == ("open", "other_hub") and site not in known(town)
        refused = [row for row in town.hub.events(0) if row["object"] == site and row["verdict"] == "refused"]
        assert [(row["action"], row["code"]) for row in refused] == [("node_approve", "untrusted_key")]


def test_a_hand_in_of_before_opens_nothing_later(town: Town, tmp_path: Path) -> None:
    """Recorded on its way, and sent again: after the site was enrolled, revoked, and is being enrolled anew."""
    offer = offer_of(town, "replayed", tmp_path / "link")
    recorded, number = handed(offer), invited(town, "replayed", offer.words)
    try_in(town, offer)
    town.hub.uninvite(number)
    town.hub.revoke("replayed")
    request = enrolment.make_request(
        tmp_path / "link", "replayed", release_key=STRANGER, audit_key=STRANGER, new_keys=True
    )
    fresh = Offer.of(request, [town.hub.instruction_key.verify_key.text], [town.hub.witness_key.verify_key.text])
    second = invited(town, "replayed", fresh.words, again=True)
    assert post(town, recorded) == (403, "no_such_words")
    assert town.hub.invitations.state(second) == ("open", "")
    assert next(row for row in town.hub.nodes() if row["site"] == "replayed")["state"] == "revoked"


def test_words_for_one_site_enrol_no_other(town: Town, tmp_path: Path) -> None:
    """Not one that is there, not one that is not: the operator has said whose words they are."""
    for site in ("bergen", "zurich"):
        offer = offer_of(town, site, tmp_path / site)
        number = invited(town, "for-another", offer.words)
        before = town.hub.nodes()
        with pytest.raises(NotNow, match="another site"):
            try_in(town, offer, wait_s=0)
        assert town.hub.invitations.state(number) == ("open", "another_site") and town.hub.nodes() == before
    with pytest.raises(UsageFault, match="bergen is enrolled"):
        town.hub.invite("bergen", offer_of(town, "bergen", tmp_path / "bergen").words)


def test_the_answer_to_another_node_is_of_no_use(town: Town, tmp_path: Path) -> None:
    offer, own = offer_of(town, "taken", tmp_path / "link"), offer_of(town, "taken", tmp_path / "own")
    invited(town, "taken", offer.words)
    answer = try_in(town, offer)
    stolen = control.HandOut(answer=answer.decode(), tag=introduction.answer_tag(offer.secret, answer.decode()))
    with pytest.raises(Malformed, match="not told the words"):
        own.opened(stolen)
    with pytest.raises(Malformed, match="another key"):
        enrolment.install(tmp_path / "own", enrolment.open_answer(
            answer, KeyRing([town.hub.instruction_key.verify_key]), datetime.now(UTC)))  # fmt: skip
    assert not (tmp_path / "own" / "bundle.json").exists()


# --- the commands ---------------------------------------------------------------------------------------------

NODE = """site = "{site}"
state_dir = "{folder}/state"
[hub]
host = "127.0.0.1"
port = {port}
[trust]
committee = ["{committee}"]
hub = ["{hub}"]
witnesses = ["{witness}"]
[engine]
sentinel = "sha256:{sentinel}"
{users}
"""
LINK_UID = 31004
USERS = f"[users]\ncore = 31001\nintake = 31002\nbroker = 31003\nlink = {LINK_UID}\n" if os.geteuid() == 0 else ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="enrol-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def node_at(town: Town, folder: Path, site: str, hub: str = "", users: str = "") -> Path:
    config = folder / "node.toml"
    config.write_text(
        NODE.format(
            site=site, folder=folder, port=town.config.ingress.port, committee=COMMITTEE.verify_key.text,
            hub=hub or town.hub.instruction_key.verify_key.text, witness=town.hub.witness_key.verify_key.text,
            sentinel="ab" * 32, users=users,
        )
    )  # fmt: skip
    cloister("node", "init", "--config", config)
    return config


def begin(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(CLOISTER), *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd="/", env=dict(ENVIRONMENT),
    )  # fmt: skip


def misheard(words: str) -> str:
    """The words with another first letter, such that it is noticed: one slip in 256 is not."""
    for letter in "bdfghjkl":
        try:
            introduction.code_in(other := letter + words[1:])
        except UsageFault:
            return other
    raise AssertionError(words)


async def test_one_command_each_and_the_waiting_link_is_connected(town: Town, folder: Path) -> None:
    """Hospital IT's command and the operator's, on the telephone with one another; the link was running before."""
    config, hub = node_at(town, folder, "by-command"), ("--config", town.folder / "hub.toml")
    town.keys["by-command"] = key("z")
    core = town.core("by-command")
    link = asyncio.create_task(run_link(LinkConfig(folder / "state" / "link", folder / "spool", "test"), core))
    try:
        node = await asyncio.to_thread(begin, "node", "enrol", "--config", config, "--json")
        assert node.stdout is not None
        words = json.loads(await asyncio.to_thread(node.stdout.readline))["words"]
        begun = time.monotonic()
        operator = await asyncio.to_thread(begin, "hub", "node", "approve", "--site", "by-command", *hub)
        _, told = await asyncio.to_thread(operator.communicate, f"{words.upper()}\n", 60)
        assert operator.returncode == 0 and "enrolled by-command; its certificate ends" in told, told
        out, said = await asyncio.to_thread(node.communicate, None, 60)
        assert node.returncode == 0 and "the hub lets this node in" in said, said
        assert json.loads(out)["site"] == "by-command" and words in said and CLOSED in said
        while not core.connected:
            assert time.monotonic() < begun + 60
            await asyncio.sleep(0.05)
        print(f"from the words to the connection: {time.monotonic() - begun:.1f} s")
    finally:
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
    attempt("node", "enrol", "--config", config).fault(2, "this node is enrolled")
    attempt("hub", "node", "approve", "--site", "by-command", *hub).fault(2, "by-command is enrolled")


def test_both_commands_say_what_is_wrong(town: Town, folder: Path) -> None:
    """A configuration with another hub's key, a slip of the pen, a hub that is asked to wait no longer; and then it is
    mended. As root, with a user for each process."""
    evil, hub = key("m").verify_key.text, ("--config", town.folder / "hub.toml")
    config = node_at(town, folder, "by-mistake", evil, USERS)
    node = begin("node", "enrol", "--config", config, "--json", "--wait", "20")
    assert node.stdout is not None
    words = json.loads(node.stdout.readline())["words"]
    slip = begin("hub", "node", "approve", "--site", "by-mistake", *hub)
    _, told = slip.communicate(misheard(words))
    assert slip.returncode == 2 and "misheard" in told, told
    operator = begin("hub", "node", "approve", "--site", "by-mistake", "--wait", "10", *hub)
    _, told = operator.communicate(words)
    assert operator.returncode == 5 and "cloister hub keys" in told, told
    node.kill()
    said = node.communicate()[1]
    assert "keys in this node's configuration are not its own" in said, said
    assert "by-mistake" not in known(town)
    keys = cloister("hub", "keys", *hub, "--json").json()
    trusted = {row["trust"]: row["key"] for row in keys}
    assert trusted["witnesses"] == town.hub.witness_key.verify_key.text
    config.write_text(config.read_text().replace(evil, trusted["hub"]))
    node = begin("node", "enrol", "--config", config, "--json")
    assert node.stdout is not None
    cloister_in = begin("hub", "node", "approve", "--site", "by-mistake", *hub)
    _, told = cloister_in.communicate(json.loads(node.stdout.readline())["words"])
    assert node.wait(60) == 0 and cloister_in.returncode == 0, (told, node.communicate())
    kept = (folder / "state" / "link" / "bundle.json").stat()
    assert (kept.st_uid, kept.st_mode & 0o777) == (LINK_UID if USERS else os.geteuid(), 0o600)


def test_a_command_that_cannot_work_says_so_at_once(town: Town, folder: Path) -> None:
    hub = ("--config", town.folder / "hub.toml")
    for words in (("--site", "delft", "--out", "b.json"), ("--site", "NO!"), (), ("--site", "aachen")):
        done = attempt("hub", "node", "approve", *words, *hub)
        assert done.code == 2, done
    assert not (folder / "state").exists()
    config = node_at(town, folder, "no-trust")
    trusted = f'hub = ["{town.hub.instruction_key.verify_key.text}"]'
    config.write_text(config.read_text().replace(trusted, ""))
    done = attempt("node", "enrol", "--config", config)
    done.fault(2, "trusts no hub yet")
    port = f"port = {town.config.ingress.port}"
    absent = config.read_text().replace("[trust]", f'[trust]\nhub = ["{"aa" * 32}"]').replace(port, "port = 1")
    config.write_text(absent)
    done = attempt("node", "enrol", "--config", config, "--wait", "0")
    done.fault(5, "nothing answers at the hub's address")
