"""Persons at core's real sockets: who signed stands in the log, who typed a name does not, and nobody borrows one."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediator.errors import Code, Denied, UsageFault
from mediator.roles import Role
from mediator.signatures import SigningKey
from node.cli import main
from node.host.config import NodeConfig, load_config
from node.host.state import prepare_state
from node.ipc import images as words
from node.ipc import node as node_words
from node.ipc.caller import CHALLENGE, SIGNED, sign_call
from node.ipc.channel import Client
from node.ipc.messages import Empty, pack
from node.ipc.persons import signers
from tests.mediator import samples
from tests.node.core.process.test_images import add as add_image
from tests.node.core.process.test_images import facts
from tests.node.core.process.test_process import Served, configured
from tests.node.host.test_config import MINIMAL, write
from tests.sim.images import Tiny

SEED = bytes(range(32))
ANA = SigningKey(SEED)


@pytest.fixture
def config() -> Iterator[NodeConfig]:
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    configured(root)
    file = root / "node.toml"
    person = f'{{ subject = "a.silva", public_key = "{ANA.verify_key.text}" }}'
    file.write_text(f"{file.read_text()}[staff]\npersons = [{person}]\n")
    made = load_config(file)
    prepare_state(made)
    yield made
    shutil.rmtree(root)


def told(served: Served, since: int = 2) -> list[str]:
    with served.core.core.store.read() as snapshot:
        lines = [json.loads(line) for line in snapshot.audit_lines(since, 100)]
    return [f"{each['actor']} {each['action']} {each['verdict']}" for each in lines]


def as_ana(served: Served, role: Role) -> Client:
    return Client(served.config.paths.staff_socket(role.value), key=ANA)


def test_who_signed_stands_in_the_log(served: Served, tmp_path: Path) -> None:
    one = facts(tmp_path, Tiny())
    with as_ana(served, Role.IT_ADMIN) as client:
        add_image(client, one)
        client.call(words.IMAGE_APPROVE, words.ApproveImage(one.image, "a.silva"))
        assert client.call(words.IMAGES, Empty())[0].approved_by == "a.silva"
    assert told(served) == ["it_admin.a.silva image_add done", "it_admin.a.silva image_approve done"]


def test_a_name_that_was_typed_is_a_note_and_another_than_the_signers_is_refused(
    served: Served, tmp_path: Path
) -> None:
    one = facts(tmp_path, Tiny())
    with as_ana(served, Role.IT_ADMIN) as client:
        add_image(client, one)
        for verb, request in (
            (words.IMAGE_APPROVE, words.ApproveImage(one.image, "b.costa")),
            (words.IMAGE_WITHDRAW, words.WithdrawImage(one.image, "b.costa")),
        ):
            with pytest.raises(UsageFault, match="another person"):
                client.call(verb, request)  # type: ignore[arg-type]
    assert told(served) == ["it_admin.a.silva image_add done"]
    with served.client(Role.IT_ADMIN) as client:
        client.call(words.IMAGE_APPROVE, words.ApproveImage(one.image, "a.silva"))
        assert client.call(words.IMAGES, Empty())[0].approved_by == "a.silva"
    assert told(served)[1:] == ["it_admin.unknown image_approve done"]


def test_a_steward_without_a_name_is_called_by_the_id_of_the_key(served: Served) -> None:
    steward = samples.STEWARD
    with Client(served.config.paths.staff_socket("data_steward"), key=steward) as client:
        client.call(node_words.PAUSE, Empty())
    assert told(served) == [f"data_steward.{steward.key_id} pause done"]


def test_a_signature_of_a_pause_that_was_watched_cannot_be_used_again(served: Served) -> None:
    socket = served.config.paths.staff_socket("it_admin")
    with Client(socket) as client:
        challenge = client.call(CHALLENGE, Empty()).challenge
        text = sign_call(ANA, "pause", pack(Empty()), challenge)
    with Client(socket, metadata={SIGNED: text}) as client:
        client.call(node_words.PAUSE, Empty())
        before = told(served)
        for verb in (node_words.PAUSE, node_words.RESUME):
            with pytest.raises(Denied) as denied:
                client.call(verb, Empty())  # type: ignore[arg-type]
            assert denied.value.reasons[0].code is Code.CHALLENGE_STALE
    assert told(served) == before == ["it_admin.a.silva pause done"] and served.core.core.switch.on


def test_a_key_of_nobody_is_refused_and_changes_nothing(served: Served) -> None:
    with Client(served.config.paths.staff_socket("it_admin"), key=samples.STRANGER) as client:
        with pytest.raises(Denied) as denied:
            client.call(node_words.PAUSE, Empty())
        assert denied.value.reasons[0].code is Code.UNTRUSTED_KEY
    assert told(served) == [] and not served.core.core.switch.on


def test_a_person_signs_on_the_command_line(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "ana.key"
    key.write_text(SEED.hex() + "\n")
    key.chmod(0o600)
    file = served.config.paths.root.parent / "node.toml"
    for word, code in (("pause", 0), ("resume", 0)):
        monkeypatch.setattr(sys, "argv", ["cloister", "node", word, "--config", str(file), "--key", str(key)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code, capsys.readouterr()
    assert told(served) == ["it_admin.a.silva pause done", "it_admin.a.silva resume done"]


def test_reviewers_and_stewards_are_persons_too_and_a_name_of_its_own_counts_first(tmp_path: Path) -> None:
    bert, steward = samples.RESEARCHER.verify_key, samples.STEWARD.verify_key
    people = [f'{{ subject = "{name}", public_key = "{key.text}" }}' for name, key in (("bert", bert), ("s", steward))]
    text = f"{MINIMAL}\n[airlock]\npersons = [{people[0]}]\n[staff]\npersons = [{people[1]}]\n"
    found = signers(load_config(write(tmp_path, text)))
    assert dict(found.persons) == {bert.key_id: "bert", steward.key_id: "s"} and set(found.ring) == set(found.persons)
    assert dict(signers(load_config(write(tmp_path, MINIMAL))).persons) == {}


@pytest.mark.parametrize("subject", ["unknown", "A", "a" * 49, ""])
def test_a_name_that_no_record_could_tell_from_nobodys_is_refused_in_the_configuration(
    tmp_path: Path, subject: str
) -> None:
    person = f'{{ subject = "{subject}", public_key = "{ANA.verify_key.text}" }}'
    for section in ("staff", "airlock"):
        with pytest.raises(UsageFault, match=section):
            load_config(write(tmp_path, f"{MINIMAL}\n[{section}]\npersons = [{person}]\n"))


def test_two_names_for_one_key_are_refused(tmp_path: Path) -> None:
    persons = ", ".join(f'{{ subject = "{name}", public_key = "{ANA.verify_key.text}" }}' for name in ("a", "b"))
    with pytest.raises(UsageFault, match="same key"):
        load_config(write(tmp_path, f"{MINIMAL}\n[staff]\npersons = [{persons}]\n"))
