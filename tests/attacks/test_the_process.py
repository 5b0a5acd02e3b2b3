"""Attacks by the job's process itself: outliving its stop, saying something by its exit code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from containers.engine import ContainerEngine
from containers.warm.conversation import ENDINGS
from mediator.errors import Code, hub_code
from mediator.ports import JobEvent
from tests.attacks.surroundings import nothing_else_changes
from tests.containers.bench import Bench, until

pytestmark = pytest.mark.engine


def processes_of(bench: Bench, job: str) -> set[int]:
    """The processes of the job's container, as this machine sees them."""
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site, job) if one.role == "job")
    return {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cgroup") if main in text_of(path)}


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_nothing_outlives_its_stop(bench: Bench) -> None:
    """A daemon in a session of its own, deaf to every signal that can be ignored."""
    broker = bench.broker()
    with nothing_else_changes(bench, broker) as around:
        broker.prepare(bench.sign(bench.spec()))
        bench.give("job", 1, misbehave="outlive-the-stop")
        around.before = around.look()
        events = broker.execute("job")
        next(events)
        deadline = time.monotonic() + 20
        while len(there := processes_of(bench, "job")) < 3:  # the engine's init, the job, its daemon
            assert time.monotonic() < deadline
            time.sleep(0.05)
        broker.terminate("job", 1)
        assert until(events, "stopped", "exited").kind == "stopped"
        assert not any(Path(f"/proc/{pid}").exists() for pid in there)
        assert processes_of(bench, "job") == set()


@pytest.mark.parametrize("status", [0, 17, 42, 255])
def test_an_exit_code_says_nothing_outside(bench: Bench, status: int) -> None:
    """Eight bits for the hospital's staff; the hub hears one word, the same for each of them."""
    event = until(bench.start(bench.broker(), misbehave="exit-code", value=status), "exited", "done")
    assert event == JobEvent("exited", status=status)
    assert hub_code(ENDINGS[event.kind]) == hub_code(Code.JOB_FAILED)
