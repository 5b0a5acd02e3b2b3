"""Rounds through the real SuperLink, real TLS and real signatures; only the nodes' cores are played."""

from __future__ import annotations

import numpy as np
import pytest

from mediator import tensors
from mediator.errors import HubCode
from tests.federation.ground import SPECS, Town


async def test_three_rounds_of_weighted_averaging(town: Town) -> None:
    cores = [
        town.core("aachen", value=1.0, examples=10),
        town.core("bergen", value=2.0, examples=20),
        town.core("coimbra", value=4.0, examples=10),
    ]
    async with town.links(*cores):
        town.submit("averaging")
        history = await town.settled("averaging")
    assert history["state"] == "done", history
    assert [entry["round"] for entry in history["rounds"]] == [0, 1, 2, 3]
    assert all(not entry["refusals"] and entry["seconds"] > 0 for entry in history["rounds"])
    # each round adds the mean of 1, 2, 4 weighted 1:2:1
    final = tensors.parse(town.hub.checkpoints.model("averaging", 3), SPECS)
    assert np.allclose(final["layer.weight"], 3 * 2.25) and final["layer.weight"].dtype == np.float32
    assert float(final["layer.bias"]) == pytest.approx(6.75)
    assert final["layer.steps"].tolist() == [3, 4] and final["layer.steps"].dtype == np.int64
    last = history["rounds"][3]
    assert set(last["evaluate"]) == {"aachen", "bergen", "coimbra"} and last["mean"]["num-examples"] == 40
    losses = [
        last["evaluate"][site]["loss"] * weight for site, weight in (("aachen", 1), ("bergen", 2), ("coimbra", 1))
    ]
    assert last["mean"]["loss"] == pytest.approx(sum(losses) / 4)
    # every site got the documents, the revocation list first
    assert all(len(core.documents) >= 3 for core in cores)
    # nothing but what was signed crossed: three tasks a round, one instruction each
    assert [len(core.instructions) for core in cores] == [7, 7, 7]


async def test_only_the_sites_of_the_order_are_asked(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen"), town.core("coimbra")]
    async with town.links(*cores):
        town.submit("one-site", sites=("bergen",), rounds=1)
        history = await town.settled("one-site")
    assert history["state"] == "done"
    assert [len(core.instructions) for core in cores] == [0, 3, 0]


async def test_a_refusal_stops_a_run_that_needs_every_site(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen", refuse=HubCode.REFUSED_PERMIT), town.core("coimbra")]
    async with town.links(*cores):
        town.submit("all-needed")
        history = await town.settled("all-needed")
        assert history["state"] == "stopped" and "without bergen" in history["detail"]
        refusal = history["rounds"][0]["refusals"][0]
        assert (refusal["site"], refusal["outcome"], refusal["code"]) == ("bergen", "refused", "refused_permit")
        # the hospital changes its mind; the run goes on where it stood, and nobody computes a round twice
        cores[1].refuse = None
        town.hub.resume_run("all-needed")
        history = await town.settled("all-needed")
    assert history["state"] == "done" and history["attempt"] >= 2
    assert len(cores[0].computed) == len(set(cores[0].computed)) == 7


async def test_a_paused_hospital_is_waited_for(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen", refuse=HubCode.PAUSED, refuse_times=2), town.core("coimbra")]
    async with town.links(*cores):
        town.submit("paused", rounds=1)
        await town.until("paused", lambda history: "bergen is paused" in history["detail"])
        history = await town.settled("paused")
    assert history["state"] == "done"
    assert [entry["code"] for entry in history["rounds"][0]["refusals"]] == ["paused"]


async def test_a_run_waits_until_every_site_is_connected(town: Town) -> None:
    async with town.links(town.core("aachen"), town.core("bergen")):
        town.submit("waiting", rounds=1)
        await town.until("waiting", lambda history: history["detail"] == "waiting for coimbra")
        async with town.links(town.core("coimbra")):
            assert (await town.settled("waiting"))["state"] == "done"


async def test_a_run_stopped_by_hand_stays_stopped(town: Town) -> None:
    cores = [town.core(site, seconds=0.5) for site in ("aachen", "bergen", "coimbra")]
    async with town.links(*cores):
        town.submit("by-hand", rounds=50)
        await town.until("by-hand", lambda history: history["completed_round"] >= 0)
        town.hub.stop_run("by-hand")
        history = await town.settled("by-hand")
    assert history["detail"] == "stopped by hand"
