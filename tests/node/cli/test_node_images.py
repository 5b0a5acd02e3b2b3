"""`cloister node image` on the real engine: in by archive, engine or registry, looked at, approved, withdrawn."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest

from node.cli import main
from node.core import staff
from node.core.core import CoreProcess
from node.core.images.handlers import architecture
from node.host.config import load_config
from node.host.keys import read_verify_key
from node.host.state import prepare_state
from node.ipc.server import Server
from tests.containers.bench import ENGINE_URL, image_id
from tests.node.core.process.test_process import configured
from tests.sim.images import BASE, Tiny, layer, registry, sha, unfold, write
from tests.sim.runner import FakeRunner
from tests.sim.users import as_user

pytestmark = pytest.mark.engine
SENTINEL = "cloister-sentinel"


class Done(NamedTuple):
    code: object
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


@dataclass
class Desk:
    """A node's core, and the command line in this process."""

    root: Path
    core: CoreProcess
    run: Callable[..., Done]

    def configure(self, old: str, new: str) -> None:
        file = self.root / "node.toml"
        file.write_text(file.read_text().replace(old, new))

    def approved(self) -> frozenset[str]:
        with self.core.core.store.read() as snapshot:
            return snapshot.approved_images()

    def log(self) -> list[str]:
        with self.core.core.store.read() as snapshot:
            lines = [json.loads(line) for line in snapshot.audit_lines(2, 100)]
        return [f"{each['actor']} {each['action']} {each['verdict']}" for each in lines]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    root = Path(tempfile.mkdtemp(prefix="cl-"))
    file = root / "node.toml"
    configured(root)
    text = file.read_text().replace("[engine]\n", f'[engine]\nsocket = "{ENGINE_URL}"\n')
    file.write_text(f"{text}[images]\nregistries = []\n")
    config = load_config(file)
    prepare_state(config)
    core = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
    core.start()
    servers: list[Server] = list(staff.servers(config, core))
    for server in servers:
        server.start()

    def run(*words: object) -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["cloister", "node", "image", *map(str, words), "--config", str(file)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capfd.readouterr())

    yield Desk(root, core, run)
    for server in servers:
        server.stop()
    core.stop()
    shutil.rmtree(root)


@pytest.fixture
def engine() -> docker.APIClient:
    return docker.APIClient(ENGINE_URL, version="auto", timeout=300)


@pytest.fixture
def tiny(engine: docker.APIClient) -> Iterator[Tiny]:
    """An image that no engine has ever seen; removed afterwards."""
    made = Tiny(layers=[layer({**BASE, "unique": uuid.uuid4().bytes})], tags=["tiny:1"], packing="gzip")
    made.outer["architecture"] = architecture()
    yield made
    for name in (made.id, *_repository_names(engine, made.id)):
        try:
            engine.remove_image(name, force=True)
        except docker.errors.APIError:
            pass  # gone with another of its names, or never there


def _repository_names(engine: docker.APIClient, image: str) -> list[str]:
    try:
        return list(engine.inspect_image(image).get("RepoDigests") or [])
    except docker.errors.ImageNotFound:
        return []


def test_a_saved_image_is_added_shown_and_approved_and_its_facts_are_the_engines(
    desk: Desk, engine: docker.APIClient, tmp_path: Path
) -> None:
    saved = tmp_path / "sentinel.tar"
    with saved.open("wb") as file:
        for piece in engine.get_image(SENTINEL):
            file.write(piece)
    image = image_id(SENTINEL)
    (added,) = desk.run("add", saved, "--json").json()
    assert (added["image"], added["lineage"]) == (image, SENTINEL)
    shown = desk.run("show", image, "--json").json()
    inspected = engine.inspect_image(image)
    config, facts = inspected["Config"], shown["facts"]["config"]
    assert facts["entrypoint"] == config["Entrypoint"] and facts["command"] == (config["Cmd"] or [])
    env = dict(each.split("=", 1) for each in config["Env"])
    told = {name.partition(" ")[2]: each for name, each in facts["settings"].items() if name.startswith("environment ")}
    assert set(told) == set(env) and told["PATH"]["shown"] == env["PATH"]
    assert facts["labels"] == (config["Labels"] or {}) and facts["volumes"] == sorted(config["Volumes"] or {})
    assert (facts["user"], facts["folder"]) == (config["User"], config["WorkingDir"])
    assert (facts["architecture"], facts["system"]) == (inspected["Architecture"], inspected["Os"])
    assert [each["diff_id"] for each in shown["facts"]["layers"]] == inspected["RootFS"]["Layers"]
    assert {f"{each['name']} {each['version']}" for each in shown["facts"]["packages"] if each["kind"] == "deb"} == (
        installed(engine, image)
    )
    assert shown["state"] == "added" and shown["unfit"] == [] and shown["against"] is None
    done = desk.run("approve", image.removeprefix("sha256:")[:7], "--by", "a.silva", "--yes")
    assert done.code == 2 and "too little" in done.err and desk.approved() == frozenset()
    done = desk.run("approve", image.removeprefix("sha256:")[:8], "--by", "a.silva", "--yes")
    assert done.err.startswith(f"image {image}\n") and desk.approved() == {image}, done
    assert done.code == 0 and f"approved {image}" in done.err
    for said in ("entry point", "keeper.py", "layer", "deb (", "libc6", "bill of materials", "linux/"):
        assert said in done.out, said
    assert desk.approved() == {image}
    assert desk.log() == ["it_admin.unknown image_add done", "it_admin.unknown image_approve done"]
    assert desk.run("list", "--json").json()[0]["approved_by"] == "a.silva"
    assert "approved" in desk.run("list").out
    # the same out of the engine: nothing new, and nothing else
    desk.run("add", "--from-engine", image, "--json").json()
    assert desk.run("show", image, "--json").json()["facts"] == shown["facts"] and len(desk.log()) == 2
    assert desk.run("withdraw", image, "--by", "b.costa").code == 0 and desk.approved() == frozenset()


def installed(engine: docker.APIClient, image: str) -> set[str]:
    """Debian packages as the container's own file system has them."""
    container = engine.create_container(image, network_disabled=True)
    try:
        pieces, _ = engine.get_archive(container, "/var/lib/dpkg/status")
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            text = archive.extractfile("status").read().decode()  # type: ignore[union-attr]
    finally:
        engine.remove_container(container, force=True)
    found = set()
    for each in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in each.splitlines() if ": " in line and line[0] != " ")
        if fields["Status"] == "install ok installed":
            found.add(f"{fields['Package']} {fields['Version']}")
    return found


@pytest.mark.parametrize("form", ["docker", "oci", "folder"])
def test_an_archive_is_loaded_under_its_digest_alone(
    desk: Desk, engine: docker.APIClient, tiny: Tiny, tmp_path: Path, form: str
) -> None:
    """A tag of the archive's would take the name away from an image that other programs start by it."""
    tiny.tags = [f"{SENTINEL}:latest"]
    if form == "folder":
        path = unfold(tmp_path / "layout", tiny.laid_out())
    else:
        path = write(tmp_path / "a.tar", tiny.saved() if form == "docker" else tiny.laid_out())
    before = image_id(SENTINEL)
    desk.run("add", path, "--lineage", "tiny", "--json").json()
    held = engine.inspect_image(tiny.id)
    assert held["Id"] == tiny.id and not held["RepoTags"] and image_id(SENTINEL) == before
    assert held["RootFS"]["Layers"] == [
        each["diff_id"] for each in desk.run("show", tiny.id, "--json").json()["facts"]["layers"]
    ]


def test_an_image_is_fetched_by_digest_only_from_a_registry_that_the_site_names(
    desk: Desk, engine: docker.APIClient, tiny: Tiny
) -> None:
    manifest = f"sha256:{sha(tiny.manifest)}"
    with registry(tiny) as host:
        name = f"{host}/team/tiny"
        refused = desk.run("pull", f"{name}@{manifest}")
        assert refused.code == 3 and "registry" in refused.err and "Traceback" not in refused.err
        assert desk.run("pull", f"{name}:latest").code == 2 and desk.run("pull", f"tiny@{manifest}").code == 2
        with pytest.raises(docker.errors.ImageNotFound):
            engine.inspect_image(tiny.id)
        desk.configure("registries = []", f'registries = ["{host}"]')
        assert desk.run("pull", f"{name}@sha256:{'0' * 64}").code == 5
        (added,) = desk.run("pull", f"{name}@{manifest}", "--json").json()
    assert added == {"image": tiny.id, "lineage": name, "names": []}
    shown = desk.run("show", manifest, "--json").json()
    assert (shown["facts"]["origin"], shown["facts"]["manifest"]) == ("registry", manifest)
    assert desk.run("approve", manifest, "--by", "a.silva", "--yes").code == 0
    assert desk.approved() == {tiny.id, manifest}, "a permit may name either"


def test_what_changed_since_the_last_approved_is_told(desk: Desk, tiny: Tiny, tmp_path: Path) -> None:
    newer = Tiny(layers=[*tiny.layers, layer({"opt/evil-6.6.dist-info/METADATA": b"Name: evil\nVersion: 6.6\n"})],
                 inner={"Entrypoint": ["/bin/other"]}, outer=dict(tiny.outer), tags=["tiny:2"])  # fmt: skip
    images = tiny.saved() | newer.saved() | {"manifest.json": json.dumps([tiny.entry(), newer.entry()]).encode()}
    assert len(desk.run("add", write(tmp_path / "both.tar", images), "--json").json()) == 2
    try:
        assert desk.run("diff", newer.id).code == 3
        assert desk.run("approve", tiny.id, "--by", "a.silva", "--yes", "--json").json()["against"] is None
        told = desk.run("diff", newer.id, "--json").json()
        assert told["against"] == tiny.id
        assert {(each["what"], each["before"], each["after"]) for each in told["differences"]} >= {
            ("entry point", '["/bin/true"]', '["/bin/other"]'), ("package python evil", "", "6.6"),
        }  # fmt: skip
        assert desk.run("diff", tiny.id, newer.id, "--json").json()["against"] == newer.id
        done = desk.run("show", newer.id)
        assert "compared with" in done.out and "evil" in done.out and "/bin/other" in done.out
    finally:
        docker.APIClient(ENGINE_URL).remove_image(newer.id, force=True)


def test_an_unfit_image_is_shown_refused_and_written_down(desk: Desk, tiny: Tiny, tmp_path: Path) -> None:
    tiny.inner["Volumes"] = {"/out": {}}
    desk.run("add", write(tmp_path / "a.tar", tiny.saved()), "--json").json()
    done = desk.run("approve", tiny.id, "--by", "a.silva")
    assert done.code == 3 and "volume" in done.err and "cannot run here" in done.out
    assert desk.approved() == frozenset() and desk.log()[-1] == "it_admin.unknown image_approve refused"


def test_nobody_on_a_terminal_is_asked_so_nothing_is_approved(desk: Desk, tiny: Tiny, tmp_path: Path) -> None:
    desk.run("add", write(tmp_path / "a.tar", tiny.saved()), "--json").json()
    command = [str(Path(sys.executable).with_name("cloister")), "node", "image", "approve", tiny.id, "--by", "a.silva"]
    command += ["--config", str(desk.root / "node.toml")]
    alone = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert alone.returncode == 2 and "nobody to ask" in alone.stderr and desk.approved() == frozenset()
    for answer, code in ((b"n\n", 3), (b"y\n", 0)):
        here, there = pty.openpty()
        asked = subprocess.Popen(command, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.write(here, answer)
        said, _ = asked.communicate(timeout=60)
        os.close(here)
        os.close(there)
        assert asked.returncode == code and b"approved by a.silva?" in said, said
        assert desk.approved() == (frozenset() if code else {tiny.id})


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("add", 2, "give a file"), ("add a.tar --from-engine {d}", 2, "give a file"),
        ("add absent.tar", 2, "cannot read"),
        ("add /dev/null", 2, "plain file"), ("add --from-engine latest", 2, "digest"),
        ("add --from-engine {d}", 2, "holds no image"), ("add {hostile}", 2, "leaves it"),
        ("show {d}", 3, "nothing is known"),
        ("show latest", 2, "digest"), ("approve {d} --by a --yes", 3, "nothing is known"),
        ("withdraw {d} --by a", 3, "nothing is known"), ("pull nothing", 2, "HOST/NAME"),
        ("pull r.example/x@latest", 2, "digest"), ("pull r.example/x@{d}", 3, "registry"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_added(
    desk: Desk, tmp_path: Path, words: str, code: int, says: str
) -> None:
    hostile = write(tmp_path / "hostile.tar", Tiny().saved() | {"../../etc/cron.d/x": b"x"})
    done = desk.run(*words.format(d="sha256:" + "0" * 64, hostile=hostile).split())
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == code and len(errors) == 1 and says in errors[0], done
    assert "Traceback" not in done.err and desk.run("list", "--json").json() == []


def test_an_engine_that_is_not_there_is_named(desk: Desk, tiny: Tiny, tmp_path: Path) -> None:
    desk.configure(ENGINE_URL, "unix:///nowhere/docker.sock")
    done = desk.run("add", write(tmp_path / "a.tar", tiny.saved()))
    assert done.code == 5 and "engine" in done.err and desk.run("list", "--json").json() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
def test_a_user_who_may_not_open_the_engines_socket_is_told_so() -> None:
    path = ENGINE_URL.removeprefix("unix://")
    program = f"from containers.image_store import ImageStore; ImageStore('unix://{path}')"
    done = subprocess.run(
        as_user([sys.executable, "-c", program]),
        cwd="/",
        capture_output=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        text=True,
    )
    assert done.returncode and "may not open the container engine's socket" in done.stderr
