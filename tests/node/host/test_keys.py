"""Key files: who can reach them is checked on the file that was really opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mediator.errors import UsageFault
from node.host.keys import new_raw_key, new_signing_key, public_path, read_raw_key, read_signing_key, read_verify_key


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.key"
    new_signing_key(path)
    return path


def test_a_key_survives_its_file(tmp_path: Path) -> None:
    key = new_signing_key(tmp_path / "a.key")
    again = read_signing_key(tmp_path / "a.key")
    assert again.key_id == key.key_id
    assert read_verify_key(tmp_path / "a.key.pub") == key.verify_key
    assert key.verify_key.verifies(again.sign_bytes(b"m"), b"m")


def test_files_carry_their_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        new_signing_key(tmp_path / "a.key")
        new_raw_key(tmp_path / "site.key")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"a.key": 0o600, "a.key.pub": 0o644, "site.key": 0o600}


def test_a_key_is_never_overwritten(key_file: Path) -> None:
    before = key_file.read_bytes(), public_path(key_file).read_bytes()
    with pytest.raises(UsageFault, match="never overwritten"):
        new_signing_key(key_file)
    with pytest.raises(UsageFault, match="never overwritten"):
        new_raw_key(key_file)
    assert (key_file.read_bytes(), public_path(key_file).read_bytes()) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_reach_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(UsageFault, match="others than its owner"):
        read_signing_key(key_file)


def test_a_key_behind_a_link_is_refused(key_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(key_file)
    with pytest.raises(UsageFault, match="cannot read"):
        read_signing_key(link)


def test_a_pipe_in_the_place_of_a_key_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageFault, match="not a regular file"):
        read_signing_key(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_key_of_another_user_is_refused(key_file: Path) -> None:
    os.chown(key_file, 65534, 65534)
    with pytest.raises(UsageFault, match="another user"):
        read_signing_key(key_file)
    assert read_signing_key(key_file, owner=65534)


@pytest.mark.parametrize("content", [b"", b"secret", b"G" * 64, b"a" * 64 + b"\n\n", b"a" * 63, b"\xff" * 64])
def test_a_file_that_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageFault) as caught:
        read_signing_key(path)
    assert "secret" not in str(caught.value) and "GGGG" not in str(caught.value)


def test_a_raw_key_has_exactly_32_bytes(tmp_path: Path) -> None:
    raw = new_raw_key(tmp_path / "site.key")
    assert read_raw_key(tmp_path / "site.key") == raw and len(raw) == 32
    (tmp_path / "site.key").write_bytes(raw + b"x")
    with pytest.raises(UsageFault, match="32 bytes"):
        read_raw_key(tmp_path / "site.key")


def test_a_private_key_is_not_taken_for_a_public_file(tmp_path: Path) -> None:
    (tmp_path / "x.pub").write_text("not hex")
    with pytest.raises(UsageFault, match="not a public key"):
        read_verify_key(tmp_path / "x.pub")


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_public_key_is_no_private_one_whatever_its_mode(key_file: Path, mode: int) -> None:
    public_path(key_file).chmod(mode)
    for read in (read_signing_key, read_raw_key):
        with pytest.raises(UsageFault, match="is a public key") as caught:
            read(public_path(key_file))
        assert caught.value.hint == f"give the private one: {key_file}"


def test_a_private_key_given_as_a_public_one_is_named(key_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="is a private key") as caught:
        read_verify_key(key_file)
    assert caught.value.hint == f"give its public half: {public_path(key_file)}"
    copy = tmp_path / "committee"  # a public key under another name stays one
    copy.write_bytes(public_path(key_file).read_bytes())
    assert read_verify_key(copy) == read_verify_key(public_path(key_file))


def test_a_file_that_is_no_key_is_told_so_and_not_told_to_be_closed(key_file: Path, tmp_path: Path) -> None:
    """`chmod 600 node.toml` would take the configuration from the processes that read it."""
    config = tmp_path / "node.toml"
    config.write_text("version = 1\n")
    config.chmod(0o644)
    with pytest.raises(UsageFault, match="is not a private key file") as caught:
        read_signing_key(config)
    assert "chmod" not in caught.value.hint
    key_file.chmod(0o644)
    with pytest.raises(UsageFault, match="can be reached by others") as caught:
        read_signing_key(key_file)
    assert caught.value.hint == f"chmod 600 {key_file}"
