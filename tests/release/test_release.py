"""A release is made of a commit that may be one, by one script, and what anybody changes in it afterwards is seen."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from deploy.install.bundle import Bundle
from deploy.install.release_keys import read_keys
from deploy.release import debs, images, keys, provenance, publishing, sbom, wheels
from deploy.release.failures import Stopped
from tests.release.making import RELEASE
from tests.sim.images import Tiny, write

ROOT = Path(__file__).parents[2]
VERSION = "7.6.5"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def checkout(folder: Path, key: Path) -> Path:
    """What is committed here, as a release of its own: version, changelog and key are set, and committed."""
    git(ROOT, "clone", "--quiet", "--shared", "--no-tags", str(ROOT), str(folder))
    pyproject, changes = folder / "pyproject.toml", folder / "CHANGELOG.md"
    before = f'version = "{git(ROOT, "show", "HEAD:pyproject.toml").partition("version = ")[2].split(chr(34))[1]}"'
    pyproject.write_text(pyproject.read_text().replace(before, f'version = "{VERSION}"', 1))
    said = f"## {VERSION}\n\nWhat a **test** would notice.\n\n## 0"
    changes.write_text(changes.read_text().replace("## 0", said, 1))
    with (folder / "deploy/release-keys.txt").open("a") as file:
        file.write(key.with_name(key.name + ".pub").read_text())
    for name in ("user.name=test", "user.email=test@test"):
        git(folder, "config", *name.split("="))
    git(folder, "commit", "--quiet", "--all", "-m", "a release")
    return folder


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As deploy/release.sh runs it, in the environment that is here."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "deploy.release", *words], capture_output=True, text=True, env=environment,
        cwd=folder, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release.key"
    keys.keygen(path, "A publisher")
    return path


@pytest.fixture
def repo(tmp_path: Path, key: Path) -> Path:
    return checkout(tmp_path / "repo", key)


# --- keys -----------------------------------------------------------------------------------------------------


def test_a_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    before = os.umask(0)
    try:
        made = keys.keygen(path, "A publisher")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert read_keys([tmp_path / "release.key.pub"]) == (made.public,) == (keys.load(path).public,)
    content = path.read_bytes()
    with pytest.raises(Stopped, match="File exists"):
        keys.keygen(path, "Another")
    assert path.read_bytes() == content and made.public.fingerprint in repr(made) and str(path) not in repr(made)
    other = tmp_path / "other"
    other.with_name("other.pub").write_text("here already")
    with pytest.raises(Stopped):
        keys.keygen(other, "Another")
    assert not other.exists() and other.with_name("other.pub").read_text() == "here already"


def test_two_keys_are_two(tmp_path: Path) -> None:
    assert keys.keygen(tmp_path / "a", "A").public.raw != keys.keygen(tmp_path / "b", "A").public.raw


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 81, "\x1b[2J"])
def test_a_key_has_a_name_that_can_be_shown(name: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="name"):
        keys.keygen(tmp_path / "key", name)
    assert not list(tmp_path.iterdir())


def _open_to_all(path: Path) -> None:
    path.chmod(0o640)


def _another(path: Path) -> None:
    other = keys.keygen(path.with_name("other"), "A publisher")
    path.write_bytes(other.path.read_bytes())


def _public(path: Path) -> None:
    path.write_bytes(path.with_name(path.name + ".pub").read_bytes())


@pytest.mark.parametrize("change", [_open_to_all, _another, _public, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_key_that_others_read_or_that_is_none_signs_nothing(change: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "release.key"
    keys.keygen(path, "A publisher")
    change(path)
    with pytest.raises(Stopped) as caught:
        keys.load(path)
    assert caught.value.code == 2 and caught.value.hint


# --- what a bundle is told ------------------------------------------------------------------------------------


def test_a_lock_is_read_for_the_system_it_is_for() -> None:
    lock = (ROOT / wheels.LOCK).read_text()
    older, newer = (wheels.for_system(lock, wheels.SYSTEMS[system]) for system in ("debian-12", "ubuntu-24.04"))
    assert ";" not in older + newer and "pywin32" not in older and "uvloop==" in older and "uvloop==" in newer
    versions = [[line for line in text.splitlines() if line.startswith("numpy==")] for text in (older, newer)]
    assert [len(found) for found in versions] == [1, 1] and versions[0] != versions[1]
    assert older.count("--hash=sha256:") > 300
    assert wheels.entry_of("a==1 \\\n    --hash=sha256:0 \\\n    --hash=sha256:1\n    # via b\nb==2 \\\n", "a") == (
        "a==1 \\\n    --hash=sha256:0 \\\n    --hash=sha256:1\n"
    )
    with pytest.raises(Stopped, match="a line that is none"):
        wheels.for_system("--index-url x\n", wheels.SYSTEMS["debian-12"])
    with pytest.raises(Stopped, match="not locked"):
        wheels.entry_of(lock, "no-such-package")


def test_requirements_name_exactly_the_wheels_that_are_there_but_pip(tmp_path: Path) -> None:
    for name in ("pip-26.3-py3-none-any.whl", "rapidocr_onnxruntime-1.4.4-py3-none-any.whl"):
        (tmp_path / name).write_bytes(name.encode())
    sha256 = hashlib.sha256(b"rapidocr_onnxruntime-1.4.4-py3-none-any.whl").hexdigest()
    said = wheels.requirements(list(tmp_path.iterdir()))
    assert said == f"rapidocr-onnxruntime==1.4.4 --hash=sha256:{sha256}\n"


def test_a_packages_epoch_is_read_out_of_its_files_name() -> None:
    assert debs.name_and_version(Path("docker.io_1%3a20.10+dfsg1_amd64.deb")) == ("docker.io", "1:20.10+dfsg1")


def test_the_packages_of_another_system_are_never_taken_from_this_one(repo: Path, key: Path, tmp_path: Path) -> None:
    other = "ubuntu-24.04" if Path("/etc/debian_version").read_text().startswith("12") else "debian-12"
    from deploy.release.bundling import Order, _debs

    with pytest.raises(Stopped) as caught:
        _debs(Order(system=other), tmp_path / "work")
    assert caught.value.code == 2 and other in str(caught.value)


def test_an_image_is_in_the_bill_of_materials_with_what_is_in_it(tmp_path: Path) -> None:
    tiny = Tiny()
    (tmp_path / "images").mkdir()
    write(tmp_path / "images/tiny.tar", tiny.saved())
    (wheel,) = _wheels(tmp_path / "wheels")
    (image,) = images.given(tmp_path / "images")
    assert (image.name, image.facts.image) == ("tiny", tiny.id)
    package = Path(shutil.copy(wheel, tmp_path / "a_1%3a2_all.deb"))
    sbom.write(tmp_path / "bill.json", RELEASE, [wheel], [package], [image])
    bill = json.loads((tmp_path / "bill.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["timestamp"] == "2025-10-09T08:53:20Z"
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "Apache-2.0"}]
    deb, found = bill["components"]
    assert deb["purl"] == "pkg:deb/debian/a@1%3A2?arch=amd64&distro=debian-12"
    assert (found["type"], found["version"]) == ("container", tiny.id)
    assert {(each["name"], each["version"]) for each in found["components"]} == {
        (each.name, each.version) for each in image.facts.packages if each.kind in ("deb", "python")
    }
    references = [each["bom-ref"] for each in (*bill["components"], *found["components"])]
    assert len(set(references)) == len(references) > 3
    before = (tmp_path / "bill.json").read_bytes()
    sbom.write(tmp_path / "bill.json", RELEASE, [wheel], [package], [image])
    assert (tmp_path / "bill.json").read_bytes() == before


def _wheels(folder: Path) -> list[Path]:
    folder.mkdir()
    path = folder / "cloister-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "cloister-0.2.0.dist-info/METADATA", "Metadata-Version: 2.4\nLicense-Expression: Apache-2.0\n\nX\n"
        )
    return [path]


def test_what_is_no_archive_of_one_image_goes_into_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2048)
    with pytest.raises(Stopped) as caught:
        images.given(tmp_path)
    assert caught.value.code == 4


@pytest.mark.engine
def test_an_engines_image_is_the_same_archive_every_time(tmp_path: Path) -> None:
    engine = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=600)
    image = engine.inspect_image("cloister-sentinel:latest")["Id"]
    first = images.write(engine, "cloister-sentinel", image, tmp_path)
    content = hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert images.write(engine, "cloister-sentinel", image, tmp_path).facts.image == image
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == content
    assert [path.name for path in tmp_path.iterdir()] == ["cloister-sentinel.tar"]
    assert images.given(tmp_path)[0].facts == first.facts and len(first.facts.packages) > 50


# --- whether a release may be made ----------------------------------------------------------------------------


def _passed(repo: Path) -> None:
    (repo / ".git" / publishing.TESTED).write_text(git(repo, "rev-parse", "HEAD^{tree}") + "\n")


def _dry(repo: Path, key: Path, *more: str, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    return script(repo, "make", version, "--key", str(key), "--dry-run", "--no-advisories", *more)


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(repo: Path, key: Path) -> None:
    _passed(repo)
    done = _dry(repo, key, "--system", "debian-12", "--system", "ubuntu-24.04")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("would ") for line in lines) and lines[-1] == f"would make the signed tag v{VERSION}"
    assert [line for line in lines if "bundle for" in line] == [
        "would make the bundle for debian-12", "would make the bundle for ubuntu-24.04"
    ]  # fmt: skip
    assert not (repo / "dist").exists() and git(repo, "tag") == "" and git(repo, "status", "--porcelain") == ""


def _commit(repo: Path, path: str, change: Callable[[str], str]) -> None:
    file = repo / path
    file.write_text(change(file.read_text()))
    git(repo, "commit", "--quiet", "--all", "-m", "a change")
    _passed(repo)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda repo: (repo / "new").write_text("x"), 2, "changes that no commit holds"),
        (lambda repo: _commit(repo, "pyproject.toml", lambda text: text.replace(VERSION, "7.6.6")), 2, "says 7.6.6"),
        (lambda repo: _commit(repo, "CHANGELOG.md", lambda text: text.replace(VERSION, "7.6")), 2, "no section"),
        (lambda repo: git(repo, "tag", f"v{VERSION}"), 2, "is there already"),
        (lambda repo: (repo / f"dist/cloister-{VERSION}").mkdir(parents=True), 2, "is there already"),
        (lambda repo: _commit(repo, "deploy/release-keys.txt", lambda _: "# none\n"), 3, "does not hold this key"),
        (lambda repo: (repo / ".git" / publishing.TESTED).unlink(), 3, "has not passed on this very tree"),
        (lambda repo: git(repo, "commit", "--quiet", "--allow-empty", "-m", "x"), 0, ""),
        (lambda repo: (repo / ".git" / publishing.TESTED).write_text("0" * 40), 3, "has not passed on this very tree"),
    ],
)  # fmt: skip
def test_what_may_be_no_release_is_refused_before_anything_is_made(
    change: Callable[[Path], object], code: int, says: str, repo: Path, key: Path
) -> None:
    _passed(repo)
    change(repo)
    done = _dry(repo, key)
    assert done.returncode == code and says in done.stderr, done
    assert code == 0 or done.stdout == ""


def test_a_version_is_the_one_in_pyproject(repo: Path, key: Path) -> None:
    assert "pyproject.toml says" in _dry(repo, key, version="7.6.4").stderr


def test_the_record_of_tests_is_written_by_the_whole_suite_alone() -> None:
    said = (ROOT / "deploy/test.sh").read_text()
    assert said.count(publishing.TESTED) == 1 and '[ "$bad$fast$#" = 0no0 ]' in said


# --- a whole release ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real release, from the package index and Debian's archive, without images (they need an engine)."""
    repo = checkout(tmp_path_factory.mktemp("made") / "repo", key)
    _passed(repo)
    done = script(
        repo, "make", VERSION, "--key", str(key), "--no-images", "--engine", "none", "--no-advisories",
        "--out", str(repo.parent / "release"),
    )  # fmt: skip
    assert done.returncode == 0, f"a release needs the package index and Debian's archive: {done.stderr}"
    assert done.stdout.splitlines() == [str(path) for path in sorted((repo.parent / "release").iterdir())]
    return repo.parent


BUNDLE, WHEEL = f"cloister-{VERSION}-cp311-x86_64.bundle", f"cloister-{VERSION}-py3-none-any.whl"
PROVENANCE, SBOM = f"cloister-{VERSION}.intoto.jsonl", f"cloister-{VERSION}-debian-12.sbom.cdx.json"


@pytest.mark.slow
def test_a_release_is_made_signed_and_tagged_by_one_script(made: Path, key: Path) -> None:
    release, repo = made / "release", made / "repo"
    names = {path.name for path in release.iterdir()}
    assert names == {
        BUNDLE, WHEEL, PROVENANCE, SBOM, f"cloister-{VERSION}-install.tar",
        "CHANGES.md", "SHA256SUMS", "SHA256SUMS.sig", "release-key.pub",
    }  # fmt: skip
    assert (release / "CHANGES.md").read_text() == "What a **test** would notice.\n"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=release, check=True)
    allowed = made / "allowed"
    allowed.write_text(f"test@test {key.with_name(key.name + '.pub').read_text()}")
    git(repo, "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-tag", f"v{VERSION}")
    assert "What a **test** would notice." in git(repo, "tag", "--list", "-n9", f"v{VERSION}")
    done = script(repo, "verify", str(release))
    assert done.returncode == 0 and "signed by A publisher (SHA256:" in done.stdout and "tests passed" in done.stdout
    assert git(repo, "rev-parse", "HEAD") in done.stdout


@pytest.mark.slow
def test_the_same_commit_gives_the_same_bundle_elsewhere_and_later(made: Path, key: Path, tmp_path: Path) -> None:
    git(made, "clone", "--quiet", str(made / "repo"), str(tmp_path / "elsewhere"))
    before = os.umask(0o077)
    try:
        done = script(
            tmp_path / "elsewhere", "bundle", "--key", str(key), "--no-images", "--engine", "none", "--out",
            str(tmp_path / "out"),
        )  # fmt: skip
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out' / BUNDLE}\n"
    compared = subprocess.run(["cmp", str(tmp_path / "out" / BUNDLE), str(made / "release" / BUNDLE)], check=False)
    assert compared.returncode == 0


@pytest.mark.slow
def test_a_bundle_holds_all_that_pip_needs_and_its_bill_of_materials_names_every_file(
    made: Path, key: Path, tmp_path: Path
) -> None:
    trusted = read_keys([key.with_name(key.name + ".pub")])
    found = Bundle.verify(made / "release" / BUNDLE, trusted, machine=None)
    folder = tmp_path / "unpacked"
    found.unpack(folder)
    (pip,) = [folder / file.path for file in found.of("wheel") if file.name == "pip"]
    # pip resolves offline, by hash, and would put in exactly what the lock has
    words = "install --dry-run --quiet --no-index --ignore-installed --no-deps --require-hashes --no-warn-conflicts"
    done = subprocess.run(
        [sys.executable, "-I", f"{pip}/pip", *words.split(), "--target", str(tmp_path / "t"), "--find-links",
         str(folder / "wheels"), "-r", str(folder / "requirements.txt")],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": "/dev/null"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    assert bill == json.loads((made / "release" / SBOM).read_text())
    named = {each["hashes"][0]["content"] for each in [*bill["components"], bill["metadata"]["component"]]}
    assert named == {file.sha256 for kind in ("wheel", "deb", "image") for file in found.of(kind)}
    assert {each["name"] for each in bill["components"]} >= {"flwr", "pip", "logrotate"}
    assert "python3" not in {file.name for file in found.of("deb")}  # a base system has it
    assert (folder / "install/bundle.py").is_file() and (folder / "release-keys.txt").is_file()
    with tarfile.open(made / "release" / f"cloister-{VERSION}-install.tar") as tar:
        assert "install/bundle.py" in tar.getnames()


@pytest.mark.slow
def test_a_bill_of_materials_is_one_that_others_read(made: Path) -> None:
    from cyclonedx.model.bom import Bom

    bill = Bom.from_json(json.loads((made / "release" / SBOM).read_text()))  # type: ignore[attr-defined]
    assert len(bill.components) > 90 and bill.metadata.component.version == VERSION
    assert all(str(component.purl).startswith("pkg:") for component in bill.components)


@pytest.mark.slow
def test_provenance_says_the_commit_the_locks_and_every_file(made: Path, key: Path) -> None:
    release, repo = made / "release", made / "repo"
    envelope = json.loads((release / PROVENANCE).read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    said = provenance.read(release / PROVENANCE, list(read_keys([release / "release-key.pub"])))
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    subjects = {each["name"]: each["digest"]["sha256"] for each in said["subject"]}
    for name, sha256 in subjects.items():
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == sha256
    assert {BUNDLE, WHEEL} <= subjects.keys()
    commit, *locks = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert commit["digest"]["gitCommit"] == git(repo, "rev-parse", "HEAD")
    lock = hashlib.sha256((repo / wheels.LOCK).read_bytes()).hexdigest()
    assert {"name": wheels.LOCK, "digest": {"sha256": lock}} in locks
    checks = said["predicate"]["buildDefinition"]["internalParameters"]["checks"]
    assert checks == {"tests": "passed", "advisories": "not asked", "key": "listed"}


def _append(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"\n")

    return change


def _forged_provenance(folder: Path) -> None:
    """Another statement under the old signature, and a list of checksums that fits it."""
    path = folder / PROVENANCE
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b'"passed"', b'"perfect"')
    envelope["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(envelope))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        _append("SHA256SUMS"), _append("SHA256SUMS.sig"), _append("CHANGES.md"), _append(WHEEL),
        _append(PROVENANCE), _forged_provenance, lambda folder: (folder / "more").write_text("x"),
        lambda folder: (folder / "CHANGES.md").unlink(), lambda folder: (folder / "SHA256SUMS.sig").write_bytes(b""),
    ],
)  # fmt: skip
def test_a_release_that_somebody_changed_does_not_verify(
    change: Callable[[Path], object], made: Path, key: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    shutil.copytree(made / "release", folder, copy_function=os.link)
    for path in folder.iterdir():
        if path.stat().st_size < 10 << 20:  # the bundle stays a link: it is not what is changed here
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    trusted = list(read_keys([key.with_name(key.name + ".pub")]))
    assert publishing.verify(folder, trusted)
    change(folder)
    with pytest.raises(Stopped) as caught:
        publishing.verify(folder, trusted)
    assert caught.value.code == 4


@pytest.mark.slow
def test_a_release_signed_by_somebody_else_does_not_verify_though_it_brings_its_key(made: Path, tmp_path: Path) -> None:
    other = keys.keygen(tmp_path / "other", "A publisher")
    for trusted in ([], [other.public]):
        with pytest.raises(Stopped) as caught:
            publishing.verify(made / "release", trusted)
        assert caught.value.code == 4


@pytest.mark.slow
def test_a_signed_statement_with_another_signature_or_type_is_none(made: Path, key: Path, tmp_path: Path) -> None:
    signing = keys.load(key)
    path = tmp_path / "x.intoto.jsonl"
    provenance.write(path, {"_type": "another"}, signing)
    with pytest.raises(Stopped, match="no provenance"):
        provenance.read(path, [signing.public])
    for content in ("", "{}", "[]", '{"payload": "!", "payloadType": "x", "signatures": []}'):
        path.write_text(content)
        with pytest.raises(Stopped, match="not signed"):
            provenance.read(path, [signing.public])
