"""Rounds through the real SuperLink, real TLS and real signatures; only the nodes' cores are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mediator.release import tensors
from tests.federation.ground import SPECS, Town, found


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = found(tmp_path_factory.mktemp("town"))
    town.start()
    yield town
    town.stop()


async def test_three_rounds_of_weighted_averaging(town: Town) -> None:
    cores = [
        town.core("aachen", value=1.0, examples=10),
        town.core("bergen", value=2.0, examples=20),
        town.core("coimbra", value=4.0, examples=10),
    ]
    async with town.links(*cores):
        town.submit("run-1")
        history = await town.settled("run-1")
    assert history["state"] == "done", history
    assert [entry["round"] for entry in history["rounds"]] == [0, 1, 2, 3]
    # each round adds the mean of 1, 2, 4 weighted 1:2:1
    final = tensors.parse(town.hub.checkpoints.model("run-1", 3), SPECS)
    assert np.allclose(final["layer.weight"], 3 * 2.25) and final["layer.weight"].dtype == np.float32
    assert float(final["layer.bias"]) == pytest.approx(6.75)
    assert final["layer.steps"].tolist() == [3, 4]
    print({entry["round"]: (entry["seconds"], entry.get("train_seconds"), entry.get("evaluate_seconds")) for entry in history["rounds"]})
    assert all(not entry["refusals"] for entry in history["rounds"])
