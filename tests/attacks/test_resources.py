"""Attacks on the machine: memory, processes, the log. Bounded by the kernel, with a named end."""

from __future__ import annotations

import json

import docker
import pytest

from containers.engine import ContainerEngine
from tests.containers.bench import LIMITS, Bench, by_name, until

pytestmark = pytest.mark.engine


def test_a_memory_bomb_ends_as_out_of_memory(bench: Bench) -> None:
    assert (
        until(bench.start(bench.broker(), misbehave="memory-bomb"), "out_of_memory", "exited", "done").kind
        == "out_of_memory"
    )


def test_a_fork_bomb_stops_at_the_limit(bench: Bench) -> None:
    broker = bench.broker()
    assert until(bench.start(broker, misbehave="fork-bomb"), "done", "exited").kind == "done"
    children = json.loads(by_name(broker.finalise("job", 1))["metrics.json"])["num-examples"]
    assert 0 < children < LIMITS.pids


def test_a_flooded_log_is_bounded(bench: Bench) -> None:
    broker = bench.broker()
    until(bench.start(broker, misbehave="fill-log"), "done")
    engine = ContainerEngine(bench.url)
    main = next(one.id for one in engine.containers(bench.site.site) if one.role == "job")
    printed = docker.APIClient(bench.url).logs(main, stdout=True, stderr=True)
    assert 0 < len(printed) <= 5 << 20  # two files of 2 MB, and what one line may add
