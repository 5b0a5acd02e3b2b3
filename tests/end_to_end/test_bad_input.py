"""What people and machines get wrong: one clear line, the right exit code, nothing half done, never a traceback."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jws

from mediator import canonical
from mediator.signatures import SigningKey
from node.host.keys import read_signing_key
from tests.containers.bench import ENGINE_URL
from tests.end_to_end.commands import attempt, start
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import AS_ROOT, eventually, give, stop
from tests.sim.cohort import write_cohort

pytestmark = pytest.mark.engine
VECTORS = Path(__file__).parents[1] / "vectors" / "documents"
TAG = "cloister-job-torch:latest"


def changed(config: Path, old: str, new: str) -> Path:
    """A copy of a configuration beside it, with one thing changed."""
    text = config.read_text()
    assert old in text
    copy = config.with_name(f"bad-{config.name}")
    copy.write_text(text.replace(old, new, 1))
    return copy


def test_an_unknown_key_stops_every_command_before_it_does_anything(house: House, tmp_path: Path) -> None:
    node, hub = house.hospitals[0], house.hub
    bad = changed(node.config, "[audit]", "colour = 1\n[audit]")
    elsewhere = tmp_path / "state"
    bad.write_text(bad.read_text().replace(str(node.state), str(elsewhere)))
    for words in (("init",), ("serve",), ("status", "--json")):
        attempt("node", *words, "--config", bad).fault(2, "colour")
    assert not elsewhere.exists()
    bad_hub = changed(hub.config, 'name = "hub"', 'name = "hub"\ncolour = 1')
    give(bad_hub, hub.uid)
    attempt("hub", "serve", "--config", bad_hub, uid=hub.uid).fault(2, "unknown key colour")


def test_a_missing_engine_is_named_and_nothing_waits_for_it(house: House) -> None:
    bad = changed(house.hospitals[0].config, ENGINE_URL, "unix:///nowhere/docker.sock")
    done = attempt("check", "--config", bad, "--json")
    assert done.code == 5
    assert next(each for each in done.json() if each["what"] == "engine")["state"] == "missing"


def test_a_port_in_use_is_said_and_the_first_hub_goes_on(house: House, tmp_path: Path) -> None:
    folder = house.root / "second-hub"
    folder.mkdir(mode=0o700)
    give(folder, house.hub.uid)
    config = folder / "hub.toml"
    config.write_text(house.hub.config.read_text())
    attempt("hub", "init", "--config", config, uid=house.hub.uid)
    done = attempt("hub", "serve", "--config", config, uid=house.hub.uid)
    done.fault(5, f"port {house.hub.port}")
    assert house.hub.process is not None and house.hub.process.poll() is None
    assert house.hospitals[0].json("status")["hub"]["connected"]


def test_a_second_node_on_the_same_state_is_refused(house: House) -> None:
    attempt("node", "serve", "--config", house.hospitals[0].config).fault(5, "running already")


def test_an_image_by_tag_is_refused_wherever_it_is_named(house: House, rogue: Permit) -> None:
    node, out = house.hospitals[0], house.root / "tagged.jws"
    before = node.json("image", "list")
    attempt("node", "image", "approve", TAG, "--by", "it.admin", "--config", node.config).fault(2, "digest")
    draft = house.root / "tagged.json"
    draft.write_text(json.dumps(house.draft("tagged", house.rogue, images=[TAG])))
    attempt("permit", "sign", draft, "--key", house.committee.key, "--out", out).fault(2, "digest")
    attempt(
        "job", "order", "--permit", rogue.file, "--run", "tagged", "--image", TAG, "--site", node.site, "--rounds", 1,
        "--key", house.researcher.key, "--out", out,
    ).fault(2, "image")  # fmt: skip
    assert not out.exists() and node.json("image", "list") == before


def test_a_document_of_an_unknown_version_is_refused_by_everybody_who_is_handed_it(house: House) -> None:
    node, hub, file = house.hospitals[0], house.hub, house.root / "unknown.jws"
    file.write_text(of_version_9(VECTORS / "permit.jws", read_signing_key(house.committee.key)))
    before, permits = node.last(), node.json("permit", "list")
    attempt("permit", "show", file).fault(2, "version")
    attempt("node", "import", file, "--config", node.config).fault(2, "version")
    copy = hub.folder / "unknown.jws"
    shutil.copyfile(file, copy)
    give(copy, hub.uid)
    attempt("hub", "permit", "publish", copy, "--config", hub.config, uid=hub.uid).fault(2, "version")
    node.recorded(before, action="document_import", verdict="refused", code="unsupported_version")
    assert node.json("permit", "list") == permits


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"a.b.c", b"x" * 3_000_000], ids=lambda c: repr(c[:8]))
def test_rubbish_instead_of_a_document_is_refused_by_everybody_who_is_handed_it(house: House, content: bytes) -> None:
    node, hub = house.hospitals[0], house.hub
    file = hub.folder / "rubbish"
    file.write_bytes(content)
    file.chmod(0o644)
    give(file, hub.uid)
    attempt("permit", "show", file).fault(2)
    attempt("node", "import", file, "--config", node.config).fault(2)
    attempt("hub", "revocations", "publish", file, "--config", hub.config, uid=hub.uid).fault(2)


def test_a_truncated_file_is_counted_under_its_reason_and_the_rest_is_published(house: House) -> None:
    node = house.hospitals[0]
    folder = node.source / "second"
    folder.mkdir()
    studies = write_cohort(folder, node.site, 8, 5)
    files = sorted(folder.rglob("*.dcm"))
    files[0].write_bytes(files[0].read_bytes()[:1000])
    files[-1].write_bytes(files[-1].read_bytes()[:-100])
    for path in (folder, *folder.rglob("*")):
        give(path, node.uids["intake"])
    answer = node.run(
        "ingest", folder, "--project", "second", "--dataset", "second", "--clinical", "clinical.csv",
        "--column", "lesion=0:1", "--json",
    ).json()  # fmt: skip
    assert answer["excluded_instances"] == {"truncated": 2} and answer["excluded"] == {}, answer
    assert answer["studies_published"] == studies and answer["counts"]["instances"] == 3 * studies - 2
    assert list((node.state / "intake" / "quarantine").iterdir()) == []


@pytest.mark.parametrize("where", ["/etc", "/nowhere"])
def test_a_folder_outside_the_source_roots_is_not_taken_in(house: House, where: str) -> None:
    node = house.hospitals[0]
    before = node.json("dataset", "list")
    done = attempt("node", "ingest", where, "--project", "p", "--dataset", "p", "--config", node.config)
    done.fault(2, "source roots")
    assert node.json("dataset", "list") == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--clinical", "clinical.csv", "--column", "lesoin=0:1"), "no column lesoin"),
        (("--clinical", "clinical.csv", "--column", "remark=0:1"), "a value for remark"),
        (("--clinical", "absent.csv", "--column", "lesion=0:1"), "clinical file is not there"),
        (("--clinical", "clinical.csv"), "without --column"), (("--column", "lesion=0:1"), "--column names"),
        (("--clinical", "clinical.csv", "--column", "Lesion=0:1"), "lower case"),
        (("--profile", "eucain"), "no such de-identification profile"), (("--test-fraction", "2"), "--test-fraction"),
    ],
)  # fmt: skip
def test_a_slip_in_an_order_is_told_in_the_first_second_and_nothing_is_taken_in(
    house: House, words: tuple[str, ...], says: str
) -> None:
    node = house.hospitals[0]
    before, begun = node.last(), time.monotonic()
    done = attempt(
        "node", "ingest", node.source, "--project", "slips", "--dataset", "slips", *words, "--config", node.config
    )
    assert time.monotonic() - begun < 10, "most of which is the start of the command"
    done.fault(2, says)
    assert node.count(before, action="dataset_publish") == 0
    assert list((node.state / "intake" / "quarantine").iterdir()) == []


def test_a_link_out_of_a_source_root_and_the_nodes_own_state_are_no_sources(house: House) -> None:
    node = house.hospitals[0]
    (node.source / "out").symlink_to(node.state)
    try:
        for where in (node.source / "out", node.source / "out" / "audit", node.source / ".." / "state" / "audit"):
            attempt("node", "ingest", where, "--project", "p", "--dataset", "p", "--config", node.config).fault(2)
    finally:
        (node.source / "out").unlink()


def test_a_dataset_of_another_project_is_not_overwritten(house: House) -> None:
    node = house.hospitals[0]
    before = node.last()
    done = attempt("node", "ingest", node.source, "--project", "another", "--config", node.config)
    done.fault(2, "another project")
    assert node.count(before, action="ingest_order") == 0


def of_version_9(permit: Path, key: SigningKey) -> str:
    """A permit that the committee signed with software of the future."""
    payload = json.loads(jws.extract_compact(permit.read_bytes().strip()).payload) | {"version": 9}
    header = {"alg": "Ed25519", "kid": key.key_id, "typ": payload["kind"]}
    signed = f"{b64(canonical.dumps(header))}.{b64(canonical.dumps(payload))}"
    return f"{signed}.{b64(key.sign_bytes(signed.encode()))}"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# ---- a full disk


@pytest.fixture
def small(house: House) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if not AS_ROOT:
        pytest.skip("only root can mount one")
    folder = house.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system to the last byte; the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass
    return filler


def test_a_full_disk_is_said_and_what_was_begun_can_be_done_again(house: House, small: Path) -> None:
    """A node of its own, on the small disk, with the second hospital's users and cohort."""
    node, config = house.hospitals[1], house.root / "small.toml"
    config.write_text(node.config.read_text().replace(str(node.folder), str(small)))
    shutil.copytree(node.source, small / "source")
    for path in (small / "source", *(small / "source").rglob("*")):
        give(path, node.uids["intake"])
    filler = fill(small)
    attempt("node", "init", "--config", config).fault(5, "disk is full")
    attempt("keys", "new", small / "new.key").fault(5, "disk is full")
    assert not list(small.glob("new.key*"))
    filler.unlink()
    assert attempt("node", "init", "--config", config).code == 0
    process = start(house.root / "small.log", "node", "serve", "--config", config)
    try:
        eventually(lambda: attempt("node", "status", "--config", config).code == 0, within_s=60, what="the start")
        take_in_on_a_full_disk(small, config)
        assert process.poll() is None
    finally:
        stop(process)


def take_in_on_a_full_disk(small: Path, config: Path) -> None:
    words = (
        "node", "ingest", small / "source", "--project", "p", "--clinical", "clinical.csv",
        "--column", "lesion=0:1", "--test-fraction", "0.4", "--config", config, "--json",
    )  # fmt: skip
    filler = fill(small)
    attempt(*words).fault(5)
    filler.unlink()
    assert attempt("node", "dataset", "list", "--config", config, "--json").json() == []
    assert attempt(*words).json()["studies_published"] > 0
    assert len(attempt("node", "dataset", "list", "--config", config, "--json").json()) == 1
