"""A researcher's own engine: images built and found by name, on Docker and on Podman; what a job prints, tamed."""

from __future__ import annotations

import tarfile
import time
from pathlib import Path

import pytest

from containers.kit_engine import MAX_CONTEXT_BYTES, KitEngine, KitRunner, _context, printable
from mediator.errors import UsageFault
from tests.containers.bench import ENGINE_URL, Bench, forget_images, until

RECIPE = "FROM cloister-attacker\nCOPY note.txt /note.txt\n"


def project(folder: Path, recipe: str = RECIPE) -> Path:
    folder.mkdir()
    (folder / "Containerfile").write_text(recipe)
    (folder / "note.txt").write_text("mine")
    return folder


def build(url: str, folder: Path) -> None:
    engine = KitEngine(url)
    try:
        assert list(engine.build(folder, "cloister-test-home"))
        digest = engine.digest_of("cloister-test-home")
        assert digest is not None and digest.startswith("sha256:")
        assert engine.digest_of("cloister-test-home:latest") == engine.digest_of(digest) == digest
        assert engine.digest_of("cloister-test-other") is None and engine.digest_of("sha256:" + "0" * 64) is None
        image = engine.image(digest)
        assert image is not None and image.has_program
    finally:
        forget_images("cloister-test-home", url=url)


@pytest.mark.engine
def test_docker_builds_an_image_and_finds_it_by_name_and_by_digest(tmp_path: Path) -> None:
    build(ENGINE_URL, project(tmp_path / "p"))


@pytest.mark.engine
def test_podman_does_too(tmp_path: Path, podman_url: str) -> None:
    build(podman_url, project(tmp_path / "p"))


@pytest.mark.engine
def test_nothing_is_fetched_for_a_build(tmp_path: Path) -> None:
    engine = KitEngine(ENGINE_URL)
    with pytest.raises(UsageFault, match="is not on this machine"):
        list(
            engine.build(project(tmp_path / "p", "FROM --platform=linux/amd64 debian:bookworm AS one\nFROM one\n"), "x")
        )
    # a stage of its own is no base image, and a build has no network
    recipe = 'FROM cloister-base AS one\nFROM one\nRUN [ "$(ls /sys/class/net)" = lo ]\n'
    list(engine.build(project(tmp_path / "q", recipe), "cloister-test-stages"))
    forget_images("cloister-test-stages")


@pytest.mark.engine
def test_a_running_job_is_measured_and_heard(bench: Bench) -> None:
    engine = KitEngine(ENGINE_URL)
    runner = KitRunner(bench.broker(), engine, bench.site.site)
    bench.start(runner, misbehave="keyctl")  # type: ignore[arg-type]
    events = runner.execute("job")
    until(events, "started")
    main = next(one.id for one in engine.containers(bench.site.site, "job") if one.role == "job")
    assert 0 < engine.memory_bytes(main) < bench.spec().resources.memory_bytes
    deadline = time.monotonic() + 30
    while not (runner.observed["job"].peak_bytes and engine.last_lines(main)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    runner.terminate("job", 0)
    until(events, "stopped", "exited")
    assert set(runner.observed) == {"job"} and runner.observed["job"].lines == ("ways through:",)


def test_a_project_takes_along_its_code_and_nothing_hidden(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    (tmp_path / "secret").write_text("key")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("token")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "code").mkdir()
    (folder / "code" / "run.sh").write_text("true")
    (folder / "code" / "run.sh").chmod(0o700)
    with tarfile.open(fileobj=_context(folder)) as tar:
        entries = {entry.name: entry for entry in tar.getmembers()}
    assert set(entries) == {"Containerfile", "note.txt", "code/run.sh"}
    assert entries["code/run.sh"].mode == 0o755 and {entry.mtime for entry in entries.values()} == {0}


def test_a_folder_of_data_is_no_project(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    with (folder / "scans.bin").open("wb") as file:
        file.truncate(MAX_CONTEXT_BYTES + 1)
    with pytest.raises(UsageFault, match="data has no place there"):
        _context(folder)


def test_a_line_cannot_command_the_terminal() -> None:
    assert printable("\x1b]0;owned\x07 loss\u202e 0.5\r\n") == "]0;owned loss 0.5"
