"""Enrolment by files, as hospital IT does it: what a bundle must be, and a word for whoever may not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from federation import control, pki
from federation.client import enrolment
from federation.hub.config import load_config
from federation.hub.state import HubState
from mediator.signatures import SigningKey
from node.cli import main
from tests.end_to_end.commands import Done, attempt
from tests.sim.users import NOBODY

EXAMPLE = Path(__file__).parents[3] / "deploy" / "node.example.toml"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
HUB = """version = 1
name = "hub"
state_dir = "hub"
[ingress]
listen = "127.0.0.1"
port = 8443
hosts = ["127.0.0.1"]
[trust]
committee_keys = ["{committee}"]
"""
NODE = """site = "{site}"
state_dir = "{folder}/{site}"
[hub]
host = "127.0.0.1"
port = 8443
[trust]
committee = ["{committee}"]
hub = ["{hub}"]
witnesses = ["{witness}"]
[engine]
sentinel = "sha256:{sentinel}"
{more}
"""
COMMITTEE = SigningKey(b"c" * 32).verify_key.text


class Desk:
    """A hub's folder and nodes' folders in one place, and the command line on them, in this process."""

    def __init__(self, folder: Path, run: Callable[..., Done]) -> None:
        self.folder, self.run = folder, run
        (folder / "hub.toml").write_text(HUB.format(committee=COMMITTEE))
        self.hub = HubState.create(load_config(folder / "hub.toml"))

    def configure(self, site: str, *, hub: SigningKey | None = None, more: str = "") -> Path:
        file, hub_key = self.folder / f"{site}.toml", (hub or self.hub.instruction_key).verify_key.text
        file.write_text(
            NODE.format(
                site=site, folder=self.folder, committee=COMMITTEE, hub=hub_key,
                witness=self.hub.witness_key.verify_key.text, sentinel="ab" * 32, more=more,
            )
        )  # fmt: skip
        return file

    def node(self, site: str, **changes: Any) -> Path:
        file = self.configure(site, **changes)
        assert self.run("node", "init", "--config", file).code == 0
        return file

    def request(self, site: str, name: str = "request.json", *more: str) -> Path:
        file = self.folder / name
        words = ("node", "enrol", "request", "--config", self.folder / f"{site}.toml", "--out", file, *more)
        assert self.run(*words).code == 0
        return file

    def answer(self, request: Path, name: str = "bundle.json", *, again: bool = False) -> Path:
        raw = request.read_bytes()
        told = control.request_id(control.decode(control.EnrolmentRequest, raw))
        (self.folder / name).write_bytes(self.hub.approve(raw, told, again=again))
        return self.folder / name

    def install(self, site: str, bundle: Path) -> Done:
        return self.run("node", "enrol", "install", "--config", self.folder / f"{site}.toml", bundle)

    def link(self, site: str) -> dict[str, bytes]:
        """All that the link has: what a refused bundle may not change."""
        folder = self.folder / site / "link"
        return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}

    def signed(self, bundle: control.EnrolmentBundle, key: SigningKey | None = None) -> Path:
        """A bundle as whoever has `key` would send it: the hub's, for what the hub itself would have to be wrong in."""
        text = control.encode(bundle).decode("utf-8")
        signature = (key or self.hub.instruction_key).sign_bytes(control.signed_part(text)).hex()
        file = self.folder / "made.json"
        file.write_bytes(control.encode(control.EnrolmentAnswer(bundle=text, signature=signature)))
        return file


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """In a short path: sockets lie below it."""

    def run(*words: object) -> Done:
        texts = tuple(str(word) for word in words)
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["cloister", *texts])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Done(texts, ended.value.code, *capfd.readouterr())

    folder = Path(tempfile.mkdtemp(prefix="enrol-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        made = Desk(folder, run)
        yield made
        made.hub.close()
    finally:
        shutil.rmtree(folder)


def opened(file: Path) -> control.EnrolmentBundle:
    answer = control.decode(control.EnrolmentAnswer, file.read_bytes())
    return control.decode(control.EnrolmentBundle, answer.bundle.encode())


def test_a_site_is_enrolled_by_two_files(desk: Desk) -> None:
    desk.node("aachen")
    done = desk.install("aachen", desk.answer(desk.request("aachen")))
    assert done.code == 0 and "enrolled at https://127.0.0.1:8443" in done.err
    own = enrolment.load(desk.folder / "aachen" / "link").bundle
    assert own.site == "aachen" and own.instruction_keys == [desk.hub.instruction_key.verify_key.text]
    assert "witness " in (desk.folder / "aachen" / "audit-keys.txt").read_text()


def test_a_bundle_of_which_one_byte_was_changed_is_refused(desk: Desk) -> None:
    """Whichever byte, of the certificate, the authority, the keys or the signature."""
    desk.node("aachen")
    bundle = desk.answer(desk.request("aachen"))
    raw, before = bundle.read_bytes(), desk.link("aachen")
    for at in range(20, len(raw) - 5, len(raw) // 40):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        bundle.write_bytes(changed)
        done = desk.install("aachen", bundle)
        assert done.code in (2, 3) and "internal" not in done.err, (at, done)
        assert desk.link("aachen") == before


def test_a_bundle_that_another_key_signed_is_refused(desk: Desk) -> None:
    """A man in the middle with an authority of his own, who lists the hub's public keys."""
    desk.node("aachen")
    true, before = opened(desk.answer(desk.request("aachen"))), desk.link("aachen")
    now = datetime.now(UTC)
    evil = pki.Authority.create(desk.folder / "evil", "evil", ["127.0.0.1"], now)
    request = control.decode(control.EnrolmentRequest, (desk.folder / "request.json").read_bytes()).request
    certificate = pki.certificate_pem(evil.issue_node(request, "aachen", now)).decode()
    forged = true.model_copy(update={"ca": evil.ca.read_text(), "certificate": certificate})
    done = desk.install("aachen", desk.signed(forged, SigningKey(b"m" * 32)))
    done.fault(3, "untrusted_key", "no hub key that this node's configuration trusts")
    assert desk.link("aachen") == before
    # and the node of a hospital whose configuration names another hub does not take this one's
    desk.configure("aachen", hub=SigningKey(b"o" * 32))
    desk.install("aachen", desk.signed(true)).fault(3, "untrusted_key")
    assert desk.link("aachen") == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"site": "bergen"}, "the bundle is for the site bergen, and this one is aachen"),
        ({"hub": "https://127.0.0.1:9"}, "another hub"),
        ({"instruction_keys": ["aa" * 32]}, "the bundle's hub keys are not those pinned"),
        ({"witness_keys": ["aa" * 32]}, "the bundle's hub keys are not those pinned"),
        ({"ca": None}, "the authority in this bundle did not make its certificate"),
        ({"flower_key": None}, "another Flower key"),
    ],
)
def test_a_bundle_that_cannot_work_is_refused_even_from_the_hub(desk: Desk, changes: dict[str, Any], says: str) -> None:
    desk.node("aachen")
    true, before = opened(desk.answer(desk.request("aachen"))), desk.link("aachen")
    if "ca" in changes:
        other = pki.Authority.create(desk.folder / "other", "hub", ["127.0.0.1"], datetime.now(UTC))
        changes = {"ca": other.ca.read_text()}
    if "flower_key" in changes:
        desk.node("bergen")
        raw = desk.request("bergen", "bergen.json").read_bytes()
        changes = {"flower_key": control.decode(control.EnrolmentRequest, raw).flower_key}
    desk.install("aachen", desk.signed(true.model_copy(update=changes))).fault(2, says)
    assert desk.link("aachen") == before


def test_a_certificate_that_is_over_is_not_installed(desk: Desk) -> None:
    desk.node("aachen")
    request = desk.request("aachen").read_bytes()
    past = HubState(desk.hub.config, lambda: datetime.now(UTC) - timedelta(days=31))
    told = control.request_id(control.decode(control.EnrolmentRequest, request))
    (desk.folder / "old.json").write_bytes(past.approve(request, told))
    done = desk.install("aachen", desk.folder / "old.json")
    done.fault(2, "not in force by this machine's clock")
    assert "clock" in done.err and not (desk.folder / "aachen" / "link" / "bundle.json").exists()


def test_the_bundle_of_before_new_keys_is_refused(desk: Desk) -> None:
    """It was revoked at the hub; installed, it would look like success and never connect."""
    desk.node("aachen")
    old = desk.answer(desk.request("aachen"))
    assert desk.install("aachen", old).code == 0
    desk.hub.revoke("aachen")
    request, before = desk.request("aachen", "second.json", "--new-keys"), desk.link("aachen")
    desk.install("aachen", old).fault(2, "another key than this node's newest")
    assert desk.link("aachen") == before
    assert desk.install("aachen", desk.answer(request, "new.json", again=True)).code == 0
    assert not (desk.folder / "aachen" / "link" / "next").exists()
    desk.install("aachen", old).fault(2, "another key than this node's newest")


def test_one_file_for_another_is_said_in_words(desk: Desk) -> None:
    desk.node("aachen")
    request, before = desk.request("aachen"), desk.link("aachen")
    for file, says in (
        (request, "it is an enrolment request"),
        (desk.folder / "aachen.toml", "it is not JSON"),
        (desk.folder / "list.json", "not an enrolment bundle"),
    ):
        (desk.folder / "list.json").write_text('{"version": 1, "kind": ["x"]}')
        done = desk.install("aachen", file)
        done.fault(2, f"{file}: not an enrolment bundle", says)
        assert "node approve" in done.err and "literal_error" not in done.err
    assert desk.link("aachen") == before


def test_before_init_the_way_is_shown(desk: Desk) -> None:
    config = desk.configure("aachen")
    done = desk.run("node", "enrol", "request", "--config", config, "--out", desk.folder / "request.json")
    done.fault(2, "this node has no keys yet")
    assert "cloister node init" in done.err and not (desk.folder / "request.json").exists()


@as_root
@pytest.mark.parametrize("separate", [True, False])
def test_whoever_may_not_is_told_to_be_root(desk: Desk, *, separate: bool) -> None:
    users = "[users]\ncore = 31001\nintake = 31002\nbroker = 31003\nlink = 31004" if separate else ""
    config = desk.node("aachen", more=users)
    bundle = desk.answer(desk.request("aachen"))
    before, spare = desk.link("aachen"), desk.folder / "spare"
    spare.mkdir()
    os.chown(spare, NOBODY, NOBODY)
    for words in (("request", "--out", spare / "request.json"), ("install", bundle)):
        done = attempt("node", "enrol", *words, "--config", config, uid=NOBODY)
        done.fault(2)
        assert "run this as root" in done.err, done
    assert desk.link("aachen") == before and not list(spare.iterdir())


def test_a_request_that_could_not_be_written_makes_no_keys(desk: Desk) -> None:
    config = desk.node("aachen")
    absent = desk.folder / "absent" / "request.json"
    desk.run("node", "enrol", "request", "--config", config, "--out", absent).fault(2, "there is no folder")
    assert not absent.parent.exists() and desk.link("aachen") == {}
    with contextlib.suppress(FileExistsError):
        (desk.folder / "request.json").write_text("{}")
    done = desk.run("node", "enrol", "request", "--config", config, "--out", desk.folder / "request.json")
    done.fault(2, "is there already")
    assert json.loads((desk.folder / "request.json").read_text()) == {}
