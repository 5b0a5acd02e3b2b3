"""The configuration: strict, and clear about what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mediator.errors import UsageFault
from node.host.config import load_config, read_secret
from node.host.paths import MAX_SOCKET_BYTES
from node.ipc.sockets import check_length
from tests.node.host.minimal import MINIMAL

KEY = "ab" * 32


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def fault(tmp_path: Path, text: str) -> UsageFault:
    with pytest.raises(UsageFault) as caught:
        load_config(write(tmp_path, text))
    return caught.value


def test_a_minimal_configuration_trusts_nobody_and_takes_nothing_in(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert not any(config.trust.ring(purpose) for purpose in ("committee", "stewards", "hub", "witnesses"))
    assert config.intake.source_roots == () and config.limits.gpus == 0 and config.intake.workers == 1
    assert config.limits.max_revocation_age_s == 86_400
    assert config.hub.url == "https://hub.example:9443" and config.hub.name == "hub.example"
    assert config.database_url() == "sqlite:////var/lib/cloister/core/node.db"
    assert config.limits.ceiling.memory_bytes == 8 << 30
    assert not config.users.separate
    assert {entry.uid for entry in config.users.accounts().values()} == {os.geteuid()}


@pytest.mark.parametrize(
    ("extra", "key", "hint"),
    [
        ("[hub2]\nx = 1", "hub2", "did you mean hub?"),
        ("[limits]\nmemory_byte = 1", "limits.memory_byte", "did you mean memory_bytes?"),
        ("[logging]\ncolour = true", "logging.colour", "remove it"),
    ],
)
def test_an_unknown_key_is_named_with_its_file(tmp_path: Path, extra: str, key: str, hint: str) -> None:
    error = fault(tmp_path, f"{MINIMAL}\n{extra}\n")
    assert f"unknown key {key}" in error.message and "node.toml" in error.message and hint in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('site = "north"', "", "the key site is missing"),
        ('site = "north"', 'site = "Nord Klinik"', "site: a site is not"),
        ('"/var/lib/cloister"', '"var/lib"', "state_dir: a path here is absolute"),
        ('"/var/lib/cloister"', f'"/{"s" * 84}"', "state_dir: too long for the sockets below it: at most 84 bytes"),
        ('"/var/lib/cloister"', '"/var/../etc"', "state_dir: a path here is absolute"),
        ("port = 9443", 'port = "9443"', "hub.port: should be a valid integer"),
        ("port = 9443", "port = 70000", "hub.port: should be less than"),
        ("port = 9443", "port = 9443.0", "hub.port: should be a valid integer"),
        ("sha256:", "latest:", "engine.sentinel: an image is not a digest"),
        ("[engine]", '[trust]\ncommittee = ["xyz"]\n[engine]', "trust.committee.0: a public key is 64"),
        ("[engine]", '[users]\ncore = "a"\n[engine]', "users: core, intake, broker and link are four"),
        ("[engine]", "[users]\ncore=1\nintake=1\nbroker=2\nlink=3\n[engine]", "users: core, intake"),
        ("[engine]", "[limits]\ncpus = inf\n[engine]", "is not finite"),
        ("[engine]", "[limits]\ngpus = -1\n[engine]", "limits.gpus: should be greater"),
        ("[engine]", "[intake]\nworkers = 0\n[engine]", "intake.workers: should be greater"),
        ("[hub]", 'database = "postgresql://u:secret@h/d"\n[hub]', "database: a secret is a reference"),
        ("[hub]", "[hub", "not a configuration"),
    ],
)
def test_a_wrong_value_gets_one_clear_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    error = fault(tmp_path, MINIMAL.replace(old, new, 1))
    assert said in error.message and "\n" not in error.message
    assert "secret@" not in error.message


def test_a_file_that_cannot_be_read_is_a_usage_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="cannot read"):
        load_config(tmp_path / "nothing.toml")
    (tmp_path / "node.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageFault, match="not a configuration"):
        load_config(tmp_path / "node.toml")


def test_the_configuration_is_frozen(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.site = "south"  # type: ignore[misc]


def test_the_fingerprint_follows_every_value_and_no_spelling(tmp_path: Path) -> None:
    first = load_config(write(tmp_path, MINIMAL)).fingerprint
    assert load_config(write(tmp_path, f"# a comment\n{MINIMAL}")).fingerprint == first
    assert load_config(write(tmp_path, MINIMAL.replace("9443", "9444"))).fingerprint != first


def test_trusted_keys_become_rings(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, f'{MINIMAL}\n[trust]\nhub = ["{KEY}"]\n'))
    assert len(config.trust.ring("hub")) == 1 and len(config.trust.ring("committee")) == 0


def test_a_secret_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:hunter2@h/d\n")
    secret.chmod(0o600)
    config = load_config(write(tmp_path, f'database = "file:{secret}"\n{MINIMAL}'))
    assert config.database_url() == "postgresql://u:hunter2@h/d"
    assert "hunter2" not in repr(config) and str(secret) not in repr(config)
    secret.chmod(0o640)
    with pytest.raises(UsageFault, match="others than its owner"):
        read_secret(f"file:{secret}")


def test_users_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    text = f"{MINIMAL}\n[users]\ncore = 60001\nintake = 60002\nbroker = 60003\nlink = 'nobody'\n"
    accounts = load_config(write(tmp_path, text)).users.accounts()
    assert (accounts["core"].uid, accounts["core"].gid, accounts["link"].uid) == (60001, 60001, 65534)


@pytest.mark.parametrize(
    "users",
    [
        "core=1\nintake=2\nbroker=3\nlink='no-such-user'",
        "core=0\nintake=2\nbroker=3\nlink=4",
        "job_uid=4\ncore=1\nintake=2\nbroker=3\nlink=4",
    ],
)
def test_users_that_would_not_separate_anything_are_refused(tmp_path: Path, users: str) -> None:
    config = load_config(write(tmp_path, f"{MINIMAL}\n[users]\n{users}\n"))
    with pytest.raises(UsageFault):
        config.users.accounts()


def test_staff_groups_are_found(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, f"{MINIMAL}\n[staff]\nit_admin = 'root'\nauditor = 77\n"))
    assert config.staff.groups() == {"it_admin": 0, "data_steward": None, "auditor": 77}
    lost = load_config(write(tmp_path, f"{MINIMAL}\n[staff]\nit_admin = 'no-such-group'\n"))
    with pytest.raises(UsageFault):
        lost.staff.groups()


def test_the_longest_state_folder_leaves_room_for_every_socket(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(MINIMAL.replace("/var/lib/cloister", "/" + "s" * 83))
    sockets = load_config(tmp_path / "node.toml").paths.sockets
    assert max(len(str(path)) for path in sockets) == MAX_SOCKET_BYTES
    for path in sockets:
        check_length(path)


@pytest.mark.parametrize(
    "persons",
    [
        ("airlock", "a.silva", KEY, "staff", "r.costa", KEY),
        ("airlock", "a.silva", KEY, "staff", "a.silva", "cd" * 32),
    ],
)  # fmt: skip
def test_one_key_for_two_names_or_one_name_for_two_keys_is_refused(tmp_path: Path, persons: tuple[str, ...]) -> None:
    text = MINIMAL
    for place, subject, key in (persons[:3], persons[3:]):
        text += f'\n[[{place}.persons]]\nsubject = "{subject}"\npublic_key = "{key}"\n'
    assert "stands for two" in fault(tmp_path, text).message


def test_a_person_may_be_reviewer_and_staff_with_one_key(tmp_path: Path) -> None:
    each = f'persons]]\nsubject = "a.silva"\npublic_key = "{KEY}"\n'
    config = load_config(write(tmp_path, f"{MINIMAL}\n[[airlock.{each}\n[[staff.{each}"))
    assert config.airlock.persons == config.staff.persons
