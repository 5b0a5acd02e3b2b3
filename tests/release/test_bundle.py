"""A bundle is the one that was signed, for this machine, or nothing of it is written anywhere."""

from __future__ import annotations

import ctypes
import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.install import bundle
from deploy.install.bundle import Bundle, Machine, this_machine
from deploy.install.release_keys import Refused, asked_of_library, asked_of_program, read_keys, signed
from deploy.release.keys import public_line
from deploy.release.pack import pack
from tests.release.making import HERE, LONG, RELEASE, forge, make, new_key, sources

KEY = new_key()
Members = list[tuple[bytes, bytes]]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(path: Path, *, machine: Machine | None = HERE, keys: Any = None) -> Refused:
    """What is said of a bundle that is not to be used; nothing was written beside it."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(Refused) as caught:
        Bundle.verify(path, [KEY.public] if keys is None else keys, machine=machine)
    assert sorted(path.parent.rglob("*")) == before
    assert caught.value.hint and "\n" not in str(caught.value)
    return caught.value


# --- what is good ---------------------------------------------------------------------------------------------


def test_a_bundle_is_what_went_in_and_names_its_signer(tmp_path: Path) -> None:
    found = Bundle.verify(make(tmp_path, KEY), [new_key("Another").public, KEY.public], machine=HERE)
    assert found.signed_by == f"A publisher ({KEY.public.fingerprint})"
    assert (found.manifest.version, found.manifest.protocol, found.manifest.commit) == ("0.2.0", 2, "5" * 40)
    assert [file.path for file in found.of("wheel")] == [LONG, "wheels/cloister-0.2.0-py3-none-any.whl"]
    found.unpack(tmp_path / "out")
    expected = {source.path: source.here.read_bytes() for source in sources(tmp_path / "sources")}
    assert tree(tmp_path / "out") == expected
    assert (tmp_path / "out/install.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/images/cloister-sentinel.tar").stat().st_mode & 0o777 == 0o644


def test_a_bundle_is_a_plain_tar_file_that_any_tar_and_openssl_open(tmp_path: Path) -> None:
    path, pem = make(tmp_path, KEY), tmp_path / "key.pem"
    pem.write_bytes(KEY.public.pem)
    subprocess.run(["tar", "-xf", path.name, "manifest.json", "manifest.json.sig"], cwd=tmp_path, check=True)
    command = "openssl pkeyutl -verify -rawin -pubin -inkey key.pem -sigfile manifest.json.sig -in manifest.json"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(path) as file:
        assert {(each.uid, each.gid, each.mtime) for each in file} == {(0, 0, RELEASE.made_s)}


def test_the_same_files_give_the_same_bytes_whatever_their_times_modes_and_order(tmp_path: Path) -> None:
    first = make(tmp_path / "a", KEY)
    for source in sources(tmp_path / "c"):
        os.utime(source.here, (5, 5))
        source.here.chmod(0o600)
    second = pack(tmp_path / "b", RELEASE, list(reversed(sources(tmp_path / "c"))), KEY)
    assert first.read_bytes() == second.read_bytes()


# --- what is not what was signed ------------------------------------------------------------------------------


def test_one_byte_changed_anywhere_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, KEY)
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            file.seek(place)
            file.write(bytes([byte ^ 1]))
            with pytest.raises(Refused) as caught:
                Bundle.verify(path, [KEY.public], machine=HERE)
            assert caught.value.code == 4, (place, str(caught.value))
            file.seek(place)
            file.write(bytes([byte]))
    assert Bundle.verify(path, [KEY.public], machine=HERE)


def test_a_bundle_cut_off_anywhere_or_with_more_behind_it_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, KEY)
    whole = path.read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, len(whole), 101), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        assert refused(cut).code == 4
    for more in (b"\0", bytes(512), bytes(10240), b"x"):
        cut.write_bytes(whole + more)
        assert "shorter or longer" in str(refused(cut))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "no release key is trusted here"),
        ([new_key("Somebody else").public], "not signed by a release key that is trusted here: Somebody else"),
    ],
)
def test_a_bundle_signed_by_nobody_we_trust_is_refused_whatever_it_says_of_itself(
    keys: Any, says: str, tmp_path: Path
) -> None:
    answer = refused(make(tmp_path, KEY), keys=keys)
    assert answer.code == 4 and says in str(answer) and "--release-key" in answer.hint


def test_a_signature_over_another_manifest_is_refused(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a", KEY), make(tmp_path / "b", KEY, replace(RELEASE, version="0.2.1"))
    raw, theirs = bytearray(one.read_bytes()), other.read_bytes()
    place, there = raw.index(b"manifest.json.sig") + 512, theirs.index(b"manifest.json.sig") + 512
    raw[place : place + 64] = theirs[there : there + 64]
    one.write_bytes(raw)
    assert "not signed" in str(refused(one))


def _link(members: Members) -> None:
    entry = tarfile.TarInfo("images/cloister-sentinel.tar")
    entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, "/etc/passwd", RELEASE.made_s
    members[1] = (entry.tobuf(tarfile.GNU_FORMAT), bytes(512))


def _leaving(members: Members) -> None:
    members[1] = (bundle.header("../../etc/cron.d/x", 512, RELEASE.made_s), members[1][1])


def _mode(members: Members) -> None:
    entry = tarfile.TarInfo.frombuf(members[1][0], "utf-8", "strict")
    entry.mode = 0o4755
    members[1] = (entry.tobuf(tarfile.GNU_FORMAT), members[1][1])


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (_link, "images/cloister-sentinel.tar is a link or no file"),
        (_leaving, "images/cloister-sentinel.tar was expected, and something else"),
        (_mode, "images/cloister-sentinel.tar is another size or mode"),
        (lambda each: each.pop(1), "shorter or longer"), (lambda each: each.append(each[1]), "shorter or longer"),
        (lambda each: each.reverse(), "was expected, and something else"),
        (lambda each: each.__setitem__(1, (each[1][0], b"j" * 512)), "images/cloister-sentinel.tar was changed"),
        (lambda each: each.__setitem__(1, (b"\0" * 512, each[1][1])), "is missing or damaged"),
    ],
)  # fmt: skip
def test_a_member_that_the_signed_manifest_does_not_say_is_refused(
    members: Callable[[Members], None], says: str, tmp_path: Path
) -> None:
    answer = refused(forge(tmp_path, KEY, members=members))
    assert answer.code == 4 and says in str(answer)


def _first(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["files"][0].__setitem__(name, value)


@pytest.mark.parametrize(
    "change",
    [
        *(
            _first("path", path)
            for path in (
                "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", ".", "a/", "a/.b", "a\\b", "a\0b", "a\nb", "é",
                "a/b/c/d", "x" * 152, "/".join(["x" * 100] * 2), None, 5, "manifest.json", "install.sh",
                "install.sh/x", "zz",
            )
        ),
        _first("kind", "program"), _first("kind", ["wheel"]), _first("size", -1), _first("size", True),
        _first("size", 8**11), _first("size", "12"), _first("sha256", "0" * 63), _first("sha256", None),
        _first("name", "a b"), _first("digest", "md5:1"), _first("more", 1), lambda each: each["files"][0].pop("name"),
        lambda each: each.pop("systems"), lambda each: each.update(more=1), lambda each: each.update(kind="cloister"),
        lambda each: each.update(files={}), lambda each: each.update(systems=[]), lambda each: each.update(version="2"),
        lambda each: each.update(version="0.2.0/../x"), lambda each: each.update(protocol=True),
        lambda each: each.update(made_s=-1), lambda each: each.update(key="SHA256:another"),
        lambda each: each.update(commit=None), lambda each: each.update(files=[each["files"][0]] * 2),
        lambda each: each.update(files=[each["files"][0]] * 4001), lambda each: each.update(systems="debian-12"),
    ],
)  # fmt: skip
def test_a_manifest_that_breaks_the_grammar_is_refused_though_a_trusted_key_signed_it(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    assert refused(forge(tmp_path, KEY, change)).code == 4


@pytest.mark.parametrize(
    "raw", [b"", b"[" * 100_000, b"{}", b"[]", b"null", b"\xff", b'{"kind":"cloister.bundle","kind":1}']
)
def test_a_signed_text_that_is_no_manifest_is_refused(raw: bytes, tmp_path: Path) -> None:
    assert refused(forge(tmp_path, KEY, raw=raw)).code == 4


def test_what_is_no_bundle_is_refused_before_any_of_it_is_unfolded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    bomb = gzip.compress(bytes(200 << 20), 9)
    for content in (b"", b"x", bytes(20_000), bomb, b"\x28\xb5\x2f\xfd" + bytes(2000), os.urandom(5000)):
        path.write_bytes(content)
        assert refused(path).code == 4
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "../outside")
    assert "no bundle" in str(refused(path))


def test_a_manifest_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(bundle.header("manifest.json", 7 << 30, RELEASE.made_s))
        file.truncate(7 << 30)
    assert "no bundle" in str(refused(path))


def test_a_file_whose_length_the_manifest_inflates_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = forge(tmp_path, KEY, _first("size", 7 << 30))
    assert "shorter or longer" in str(refused(path))


@pytest.mark.parametrize("kind", ["none", "folder", "pipe"])
def test_what_is_no_file_is_told(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    assert refused(path).code in (2, 4)


# --- for this machine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(HERE, arch="aarch64"), "another architecture"), (replace(HERE, python="cp312"), "version of Python"),
        (replace(HERE, system="ubuntu-24.04"), "another system"),
    ],
)  # fmt: skip
def test_a_bundle_for_another_machine_is_refused_and_says_which(machine: Machine, says: str, tmp_path: Path) -> None:
    answer = refused(make(tmp_path, KEY), machine=machine)
    assert answer.code == 2 and says in str(answer)
    assert "debian-12, x86_64, cp311" in str(answer) and machine.system in str(answer)
    assert Bundle.verify(make(tmp_path / "other", KEY), [KEY.public], machine=None)


def test_a_format_of_tomorrow_is_refused_by_its_number(tmp_path: Path) -> None:
    answer = refused(forge(tmp_path, KEY, lambda manifest: manifest.update(format=2, more="fields")))
    assert answer.code == 2 and "format 1" in str(answer)


def test_a_machine_is_named_as_its_os_release_does(tmp_path: Path) -> None:
    said = tmp_path / "os-release"
    said.write_text('NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n')
    assert this_machine("cp312", said).system == "ubuntu-24.04" and this_machine("cp312", said).python == "cp312"
    assert this_machine(os_release=tmp_path / "none").system == "unknown-unknown"


# --- unpacking ------------------------------------------------------------------------------------------------


def test_a_bundle_that_changes_after_it_was_verified_leaves_nothing(tmp_path: Path) -> None:
    path = make(tmp_path, KEY)
    found = Bundle.verify(path, [KEY.public], machine=HERE)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"a wheel")] ^= 1
    path.write_bytes(whole)
    with pytest.raises(Refused) as caught:
        found.unpack(tmp_path / "out")
    assert caught.value.code == 4 and not list(tmp_path.glob("out*"))


def test_a_folder_or_a_link_that_is_there_is_left_alone(tmp_path: Path) -> None:
    found = Bundle.verify(make(tmp_path, KEY), [KEY.public], machine=HERE)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "half.partial").symlink_to(tmp_path / "there")
    for name in ("there", "link", "half"):
        with pytest.raises(Refused) as caught:
            found.unpack(tmp_path / name)
        assert caught.value.code == 2
    assert not list((tmp_path / "there").iterdir()) and not (tmp_path / "nowhere").exists()
    assert (tmp_path / "half.partial").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root alone")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    found = Bundle.verify(make(tmp_path, KEY), [KEY.public], machine=HERE)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        with pytest.raises(Refused) as caught:
            found.unpack(small / "out")
        assert caught.value.code == 5 and not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- keys -----------------------------------------------------------------------------------------------------


def test_both_ways_to_ask_openssl_agree(tmp_path: Path) -> None:
    crypto, message = ctypes.CDLL("libcrypto.so.3"), b"a manifest"
    good = KEY.sign(message)
    other = new_key()
    for key, text, signature, right in (
        (KEY, message, good, True), (KEY, message + b" ", good, False), (other, message, good, False),
        (KEY, message, other.sign(message), False), (KEY, message, bytes(64), False), (KEY, b"", KEY.sign(b""), True),
        (KEY, bytes(100_000), KEY.sign(bytes(100_000)), True),
    ):  # fmt: skip
        assert asked_of_library(crypto, key.public, text, signature) is right
        assert signed(key.public, text, signature) is right
        if text:  # the program takes no empty file
            assert asked_of_program(key.public, text, signature) is right
    for short in (b"", good[:-1], good + b"\0"):
        assert not signed(KEY.public, message, short)


def test_no_openssl_at_all_is_told() -> None:
    with pytest.raises(Refused) as caught:
        asked_of_program(KEY.public, b"x", bytes(64), program="/nowhere/openssl")
    assert caught.value.code == 2 and "openssl" in caught.value.hint


def test_a_fingerprint_is_the_one_that_openssh_prints(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(public_line(KEY.private, "A publisher"))
    (key,) = read_keys([file])
    assert key == KEY.public
    said = subprocess.run(["ssh-keygen", "-lf", str(file)], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == key.fingerprint and shutil.which("ssh-keygen")


def test_a_file_of_keys_may_hold_several_and_comments(tmp_path: Path) -> None:
    file, other = tmp_path / "keys", new_key("B")
    file.write_text(
        f"# whom we trust\n\n{public_line(KEY.private, 'A and sons')}{public_line(other.private, 'B')}"
        f"{public_line(KEY.private, 'again')}"
    )
    assert [key.name for key in read_keys([file, file])] == ["A and sons", "B"]
    assert read_keys([]) == ()


@pytest.mark.parametrize(
    "line",
    [
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== a", "ssh-ed25519", "ssh-ed25519 AAAA a", "ssh-ed25519 !!!! a",
        public_line(KEY.private, "").strip(), public_line(KEY.private, "a\x1b[2J"), "é", KEY.public.raw.hex(),
        "command=\"x\" " + public_line(KEY.private, "a"),
    ],
    ids=["another kind", "no key", "short", "no base64", "no name", "odd name", "no words", "hex", "options"],
)  # fmt: skip
def test_a_line_that_is_no_key_is_refused_by_its_number(line: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n{line}\n")
    with pytest.raises(Refused) as caught:
        read_keys([file])
    assert caught.value.code == 2 and "line 2" in str(caught.value)
    with pytest.raises(Refused):
        read_keys([tmp_path / "none"])
