"""The engine's seam: an engine that is slow, silent or gone is a named state, within bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from containers.engine import ContainerEngine
from mediator.errors import Denied, EngineUnavailable
from tests.containers.bench import Bench, image_id, until


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """A socket that accepts and never answers."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield f"unix://{path}"


def test_an_engine_that_stops_answering_is_named_within_its_timeout(silent: str) -> None:
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):
        ContainerEngine(silent, timeout_s=0.3).containers("site")
    assert time.monotonic() - began < 5


def test_an_engine_that_hangs_up_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rude.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(1)], daemon=True).start()
        with pytest.raises(EngineUnavailable) as caught:
            ContainerEngine(f"unix://{path}", timeout_s=1).facts("")
    assert str(tmp_path) not in f"{caught.value}{caught.value.hint}"


@pytest.mark.engine
def test_an_image_is_found_by_its_id_and_never_by_a_tag(bench: Bench) -> None:
    engine = ContainerEngine(bench.url)
    digest = image_id("cloister-sentinel", bench.url)
    found = engine.image(digest)
    assert found is not None
    assert (found.id, found.volumes, found.has_program) == (digest, (), True)
    for name in ("cloister-sentinel", "cloister-sentinel:latest", digest[:19], "sha256:" + "0" * 64):
        assert engine.image(name) is None


@pytest.mark.engine
def test_the_facts_of_an_engine_hold_still(bench: Bench) -> None:
    engine = ContainerEngine(bench.url)
    assert engine.facts("") == engine.facts("")
    assert all(engine.facts("").values())


@pytest.mark.engine
def test_a_program_that_says_too_much_or_takes_too_long_is_cut_off(bench: Bench) -> None:
    events = bench.start(bench.broker())
    until(events, "done")
    engine = ContainerEngine(bench.url)
    keeper = next(one.id for one in engine.containers(bench.site.site) if one.role == "keeper")
    shout = ["python3", "-c", "print('x' * 100_000)"]
    assert engine.run(keeper, shout, limit_bytes=200_000, timeout_s=10) == (0, b"x" * 100_000 + b"\n")
    with pytest.raises(Denied, match="more output"):
        engine.run(keeper, shout, limit_bytes=1000, timeout_s=10)
    dawdle = ["python3", "-c", "import time\nwhile True: print('x', flush=True); time.sleep(0.05)"]
    with pytest.raises(Denied, match="in time"):
        engine.run(keeper, dawdle, limit_bytes=100_000, timeout_s=0.5)


@pytest.mark.engine
def test_the_lines_of_a_container_end_when_it_is_removed(bench: Bench) -> None:
    events = bench.start(bench.broker())
    until(events, "done")
    engine = ContainerEngine(bench.url)
    keeper = next(one.id for one in engine.containers(bench.site.site) if one.role == "keeper")
    lines = engine.follow(keeper)
    assert lines.take(5)
    before = threading.active_count()
    engine.remove(keeper)
    with pytest.raises(EOFError):
        for _ in range(100):
            lines.take(0.1)
    lines.close()
    assert threading.active_count() <= before
    assert docker.APIClient(bench.url).ping()
