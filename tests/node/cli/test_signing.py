"""`cloister permit sign` and `job order`, run as people run them: what nobody could use is not signed."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mediator.canonical import to_plain
from mediator.signatures import VerifyKey
from node.host.keys import new_signing_key
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT, Done
from tests.mediator import samples

IMAGE, VERSION = "sha256:" + "1c" * 32, samples.VERSION


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A committee's and a researcher's keys, and a draft that can be signed."""
    for name in ("committee", "researcher"):
        new_signing_key(tmp_path / name)
    draft(tmp_path)
    return tmp_path


def key_of(folder: Path, name: str) -> VerifyKey:
    return VerifyKey.from_text((folder / f"{name}.pub").read_text())


def draft(folder: Path, **changes: Any) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    document = samples.permit(
        issuer=key_of(folder, "committee").key_id, images=(IMAGE, samples.OTHER_IMAGE),
        persons=(samples.Person("researcher-1", "institute", key_of(folder, "researcher").text),),
        not_before=now - timedelta(days=1), expires=now + timedelta(days=30), maximum_rounds=20,
    )  # fmt: skip
    plain = {"kind": document.KIND, "version": document.VERSION, **to_plain(document)}
    (folder / "draft.json").write_text(json.dumps(plain | changes))


def run(folder: Path, *words: object) -> Done:
    texts = tuple(map(str, words))
    ended = subprocess.run(
        [str(CLOISTER), *texts], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, timeout=60,
        env=dict(ENVIRONMENT), check=False,
    )  # fmt: skip
    return Done(texts, ended.returncode, ended.stdout, ended.stderr)


def sign(folder: Path, key: str = "committee") -> Done:
    return run(folder, "permit", "sign", "draft.json", "--key", key, "--out", "permit.jws")


def order(folder: Path, **changes: object) -> Done:
    given = {"image": IMAGE, "site": samples.SITE, "rounds": 20, "key": "researcher", "run": "r"} | changes
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return run(folder, "job", "order", "--permit", "permit.jws", "--out", "order.jws", *words)


def test_what_is_signed_is_opened(desk: Path) -> None:
    assert sign(desk).code == 0 and order(desk).code == 0
    assert run(desk, "permit", "show", "permit.jws", "--key", "committee.pub").code == 0
    assert run(desk, "permit", "show", "order.jws", "--key", "researcher.pub", "--json").json()["rounds"] == 20


def test_another_issuer_than_the_key_that_signs_is_refused_and_told_whose_id_belongs_there(desk: Path) -> None:
    sign(desk, key="researcher").fault(3, "issuer", key_of(desk, "researcher").key_id)
    assert not (desk / "permit.jws").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": ["sha256:" + "0" * 64]}, "image 1 is a placeholder"), ({"issuer": "0" * 32}, "issuer"),
        ({"datasets": []}, "datasets is empty"), ({"expires": "2020-01-01T00:00:00Z",
          "not_before": "2019-01-01T00:00:00Z"}, "permit_expired"), ({"maximum_rounds": 0}, "maximum_rounds"),
        ({"datasets": [{"site": "a", "versions": []}]}, "a has no version"),
    ],
)  # fmt: skip
def test_a_draft_that_nobody_could_use_is_refused_and_nothing_is_written(
    desk: Path, changes: dict[str, Any], says: str
) -> None:
    draft(desk, **changes)
    done = sign(desk)
    done.fault(3, says)
    assert "hint: mend the draft: nothing was signed" in done.err
    assert not (desk / "permit.jws").exists()


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"rounds": 99}, 3, "more than 20 rounds"), ({"site": "atlantis"}, 3, "no data of atlantis"),
        ({"image": "sha256:" + "0" * 64}, 3, "image_not_permitted"), ({"key": "committee"}, 3, "person_not_named"),
        ({"strategy": "krum"}, 3, "not one of fedavg, local"), ({"config": '{"epochs": 99}'}, 3, "epochs"),
        ({"image": "sha256:1c"}, 2, "too little"), ({"strategy": "local"}, 3, "does not allow analyse"),
        ({"image": "latest"}, 2, "digest"), ({"image": "sha256:2222"}, 0, ""), ({"image": "1c1c1c1c"}, 0, ""),
        ({"site": "hospital-"}, 2, "hospital-a, hospital-b"),
    ],
)  # fmt: skip
def test_an_order_its_permit_does_not_cover_is_refused(
    desk: Path, changes: dict[str, object], code: int, says: str
) -> None:
    assert sign(desk).code == 0
    done = order(desk, **changes)
    if code:
        done.fault(code, says)
        assert "site" not in changes or "hospital-a, hospital-b" in done.err
        assert code != 3 or "cloister permit show permit.jws" in done.err
    else:
        assert done.code == 0, done
    assert (desk / "order.jws").exists() is (code == 0)


def test_an_order_ends_with_its_permit(desk: Path) -> None:
    assert sign(desk).code == 0
    assert order(desk, hours=24 * 90).code == 0
    ends = run(desk, "permit", "show", "order.jws", "--json").json()["expires"]
    assert ends == run(desk, "permit", "show", "permit.jws", "--json").json()["expires"]


# ---- what is there is not overwritten


def test_a_key_or_a_draft_named_by_out_is_left_as_it_is(desk: Path) -> None:
    before = {path.name: path.read_bytes() for path in desk.iterdir()}
    revoke = ("permit", "revocations", "--number", 1, "--key", "committee", "--out")
    for name in ("committee", "researcher", "committee.pub", "draft.json"):
        run(desk, *revoke, name).fault(2, f"{name} is there already")
    run(desk, "permit", "sign", "draft.json", "--key", "committee", "--out", "draft.json").fault(2, "there already")
    (desk / "link").symlink_to("absent")
    run(desk, *revoke, "link").fault(2, "link is there already")
    (desk / "link").unlink()
    assert {path.name: path.read_bytes() for path in desk.iterdir()} == before


def test_signing_the_same_again_is_no_fault_and_another_document_in_its_place_is(desk: Path) -> None:
    assert sign(desk).code == 0 and sign(desk).code == 0
    signed = (desk / "permit.jws").read_bytes()
    draft(desk, maximum_rounds=21)
    sign(desk).fault(2, "permit.jws is there already")
    assert (desk / "permit.jws").read_bytes() == signed
    assert order(desk).code == 0
    order(desk).fault(2, "order.jws is there already")  # its nonce is another: two orders, not one


def test_the_wrong_half_of_a_key_is_named(desk: Path) -> None:
    assert sign(desk).code == 0
    done = run(desk, "permit", "sign", "draft.json", "--key", "committee.pub", "--out", "other.jws")
    done.fault(2, "committee.pub is a public key")
    assert "hint: give the private one: committee\n" in done.err
    for words in (("permit", "show", "permit.jws"), ("audit", "verify", ".")):
        done = run(desk, *words, "--key", "committee")
        done.fault(2, "committee is a private key")
        assert "hint: give its public half: committee.pub" in done.err


# ---- slips in a draft


def test_a_slip_in_a_draft_is_told_with_its_place(desk: Path) -> None:
    draft(desk, expires="2027-13-01")
    sign(desk).fault(2, "expires: not an RFC 3339 time in UTC, as 2027-01-31T00:00:00Z is")
    first = json.loads((desk / "draft.json").read_text())["persons"][0]
    draft(desk, persons=[first, first | {"public_key": 7}])
    sign(desk).fault(2, "persons[2].public_key: not of type str")
    draft(desk)
    text = (desk / "draft.json").read_bytes()
    (desk / "draft.json").write_bytes(b"\xef\xbb\xbf" + text)
    sign(desk).fault(2, "draft.json begins with a byte order mark")
    (desk / "draft.json").write_bytes(text[:-1])
    sign(desk).fault(2, "draft.json is not JSON: line 1, column ")
