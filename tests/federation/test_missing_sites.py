"""`minimum_sites` is asked: a round goes on without who never comes, dies or says no, and stops where few are left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mediator.errors import HubCode
from tests.federation.ground import Town, found
from tests.sim.core import FakeCore

PATIENCE_S = 3.0


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"), patience_s=PATIENCE_S)
    town.start()
    yield town
    town.stop()


async def here(*cores: FakeCore) -> None:
    while not all(core.connected for core in cores):
        await asyncio.sleep(0.05)


def told(history: dict[str, Any], round_: int) -> set[tuple[str, str, str]]:
    return {(each["site"], each["task"], each["code"]) for each in history["rounds"][round_]["refusals"]}


async def test_a_site_that_never_connects_is_waited_for_once(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen")]
    async with town.links(*cores):
        await here(*cores)
        town.submit("never", rounds=2, minimum_sites=2)
        await town.until("never", lambda history: history["detail"] == "waiting for coimbra")
        history = await town.settled("never")
    assert history["state"] == "done" and history["attempt"] == 1
    assert [entry["missing"] for entry in history["rounds"]] == [
        {"evaluate": ["coimbra"]},
        {"train": ["coimbra"], "evaluate": ["coimbra"]},
        {"train": ["coimbra"], "evaluate": ["coimbra"]},
    ]
    assert told(history, 0) == {("coimbra", "evaluate", "absent")}
    # the first task waited for it as long as the run has patience; no later one did
    waited = [entry[f"{task}_seconds"] for entry in history["rounds"] for task in entry["missing"]]
    assert waited[0] >= PATIENCE_S > min(waited[1:]) and sum(waited[1:]) < 2 * waited[0] + 4


@pytest.mark.slow
async def test_a_site_killed_while_it_computes_is_left_behind_and_comes_back(town: Town) -> None:
    """SIGKILL says no goodbye: the hub hears of it from Flower, when heartbeats are missing."""
    cores = [town.core("aachen"), town.core("bergen")]
    async with town.links(*cores):
        await here(*cores)
        node = town.node_process("coimbra", "--die-at-hand-over")
        while "connected to the hub" not in (town.folder / "coimbra.log").read_text():
            await asyncio.sleep(0.05)
        town.submit("dies", rounds=30, minimum_sites=2)
        assert await asyncio.to_thread(node.wait, 60) == -signal.SIGKILL
        history = await town.until("dies", lambda history: history["completed_round"] >= 0, 120)
        assert history["rounds"][0]["missing"] == {"evaluate": ["coimbra"]}
        assert told(history, 0) == {("coimbra", "evaluate", "away"), ("coimbra", "evaluate", "absent")}
        node = town.node_process("coimbra")
        try:
            back = lambda history: any("coimbra" in entry["train"] for entry in history["rounds"])  # noqa: E731
            history = await town.until("dies", back, 120)
        finally:
            node.terminate()
            await asyncio.to_thread(node.wait, 30)
        town.hub.stop_run("dies")
        await town.settled("dies")
    assert history["attempts"][0]["reason"] == "opened"


async def test_a_site_that_refuses_is_left_out(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen", refuse=HubCode.REFUSED_PERMIT), town.core("coimbra")]
    async with town.links(*cores):
        await here(*cores)
        town.submit("refuses", rounds=1, minimum_sites=2)
        history = await town.settled("refuses")
    assert history["state"] == "done"
    assert history["rounds"][1]["missing"] == {"train": ["bergen"], "evaluate": ["bergen"]}
    assert told(history, 1) == {("bergen", "train", "refused_permit"), ("bergen", "evaluate", "refused_permit")}


async def test_a_hospital_that_is_paused_is_waited_for_once(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen", refuse=HubCode.PAUSED), town.core("coimbra")]
    async with town.links(*cores):
        await here(*cores)
        town.submit("paused", rounds=1, minimum_sites=2)
        history = await town.settled("paused")
    assert history["state"] == "done" and history["rounds"][0]["evaluate_seconds"] >= PATIENCE_S
    assert history["rounds"][1]["missing"] == {"train": ["bergen"], "evaluate": ["bergen"]}


async def test_below_the_minimum_the_run_stops_and_says_for_want_of_whom(town: Town) -> None:
    core = town.core("aachen")
    async with town.links(core):
        await here(core)
        town.submit("too-few", rounds=1, minimum_sites=2)
        history = await town.settled("too-few")
        assert history["state"] == "stopped"
        assert history["detail"] == "round 0, evaluate: 1 of at least 2 sites; without bergen, coimbra"
        assert told(history, 0) <= {("bergen", "evaluate", "absent"), ("coimbra", "evaluate", "absent")}
        assert not [each for each in core.instructions if each.run == "too-few"], (
            "nobody computes for a round that cannot be"
        )
        # they come, and the run goes on from where it stood
        other = town.core("bergen")
        async with town.links(other):
            await here(other)
            town.hub.resume_run("too-few")
            history = await town.settled("too-few")
    assert history["state"] == "done" and history["rounds"][1]["missing"]["train"] == ["coimbra"]


@pytest.mark.slow
async def test_a_hub_that_is_started_anew_does_not_wait_again_for_who_was_missing(tmp_path: Path) -> None:
    """And a site whose certificate was ended meanwhile is missing from the run, and no reason to stop it."""
    town = found(tmp_path, patience_s=PATIENCE_S)
    town.start()
    cores = [town.core(site, seconds=0.5) for site in ("aachen", "bergen")]
    try:
        async with town.links(*cores):
            await here(*cores)
            town.submit("anew", rounds=3, minimum_sites=2)
            await town.until("anew", lambda history: history["completed_round"] == 0)
            town.stop(signal.SIGKILL)
            town.hub.revoke("coimbra")
            town.start()
            history = await town.settled("anew", 90)
    finally:
        town.stop(signal.SIGKILL)
    assert history["state"] == "done" and history["attempt"] >= 2
    assert told(history, 3) == {("coimbra", "train", "not_enrolled"), ("coimbra", "evaluate", "not_enrolled")}
    for core in cores:
        assert len(core.computed) == len(set(core.computed)) == 7
