"""A node and a hub one version apart work together, whichever is older; further apart neither does anything with the
other, both say so in words, and nothing is lost until one is upgraded. Real hubs and links over real sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from federation import control, protocol
from federation.client.standing import WORDS
from federation.protocol import PROTOCOL
from mediator.errors import Malformed
from tests.federation.ground import SITES, Town, found
from tests.federation.test_ingress import ask, plain_context

FAR = PROTOCOL + 2


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A hub of any protocol: not started yet."""
    town = found(tmp_path, patience_s=30.0)
    yield town
    town.stop()


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A hub of today that the tests share."""
    town = found(tmp_path_factory.mktemp("steady"))
    town.start()
    yield town
    town.stop()


async def until(holds: Callable[[], object], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("hub", "nodes"), [(PROTOCOL, PROTOCOL - 1), (PROTOCOL - 1, PROTOCOL)])
async def test_a_round_is_run_by_a_hub_and_nodes_one_version_apart(hub: int, nodes: int, town: Town) -> None:
    town.hub_speaks, town.nodes_speak = hub, nodes
    town.start()
    cores = [town.core(site) for site in SITES]
    async with town.links(*cores):
        town.submit("apart", rounds=1)
        assert (await town.settled("apart"))["state"] == "done"
    assert all(core.released and not core.troubles for core in cores)
    assert [row["protocol"] for row in town.hub.nodes()] == [nodes] * 3 and town.hub.alarms() == []


@pytest.mark.slow
async def test_an_upgrade_too_far_ends_no_run_and_both_sides_say_who_is_behind(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub is upgraded by two in the middle of a run, and then the nodes are: the run goes on where it was."""
    caplog.set_level(logging.INFO, "cloister.link")
    town.start()
    cores = [town.core(site, seconds=0.3) for site in SITES]
    async with town.links(*cores):
        town.submit("far", rounds=3)
        await town.until("far", lambda history: len(history["rounds"]) > 0)
    town.stop()
    town.hub_speaks = FAR
    town.start()
    async with town.links(*cores):
        await until(lambda: all("node_too_old" in core.troubles for core in cores))
        released = sum(len(core.released) for core in cores)
        await asyncio.sleep(1.0)
    assert sum(len(core.released) for core in cores) == released and not any(core.connected for core in cores)
    words = protocol.words(hub=FAR, node=PROTOCOL)
    assert words.endswith("upgrade the node") and words in (town.folder / "hub.log").read_text()
    assert any(WORDS["node_too_old"].meaning in record.message for record in caplog.records)
    assert not any(core.failures for core in cores)  # what waits was not counted against anything
    town.nodes_speak = FAR
    async with town.links(*cores):
        assert (await town.settled("far"))["state"] == "done"


async def test_a_hub_that_is_behind_is_told_and_its_operator_sees_which_sites(steady: Town) -> None:
    steady.nodes_speak = FAR
    core = steady.core("bergen")
    async with steady.links(core):
        await until(lambda: "hub_too_old" in core.troubles)
        assert not core.connected and not core.documents
        (alarm,) = steady.hub.alarms()
        assert (alarm["site"], alarm["code"]) == ("bergen", "unsupported_version")
        assert alarm["about"] == protocol.words(hub=PROTOCOL, node=FAR) and alarm["about"].endswith("upgrade the hub")
    steady.nodes_speak = PROTOCOL
    async with steady.links(core):
        await until(lambda: core.connected)
    assert steady.hub.alarms() == []


def test_a_link_that_ignores_the_hubs_word_gets_nothing_of_flower_either(steady: Town) -> None:
    context = plain_context(steady, "aachen")
    header = {"flwr-public-key": next(iter(steady.hub.registry.active().values())).flower_header}
    far = {protocol.HEADER: str(FAR)}
    for path in (control.HELLO, control.EVENTS):
        status, answer = ask(steady, context, "GET", path, **far)
        assert status == 503 and protocol.words(hub=PROTOCOL, node=FAR).encode() in answer
    status, answer = ask(steady, context, "POST", "/v1/fleet/pull-messages", **header)
    assert status == 503 and b"upgrade the hub" in answer
    # a link of the release before says nothing at all, and is served
    assert ask(steady, context, "GET", control.HELLO)[0] == 200
    assert ask(steady, context, "POST", "/v1/fleet/pull-messages", **header)[0] != 503


def test_what_is_no_protocol_is_refused_and_changes_nothing(steady: Town) -> None:
    context = plain_context(steady, "coimbra")
    for said in ("", "0", "-1", "2.0", "x" * 5000, "12345678", "٢"):
        raw = said.encode("utf-8").decode("latin-1")
        assert ask(steady, context, "GET", control.HELLO, **{protocol.HEADER: raw})[0] == 400, said
        with pytest.raises(Malformed):
            protocol.read(said)
    assert steady.hub.nodes()[2]["protocol"] is None and ask(steady, context, "GET", control.HELLO)[0] == 200


@pytest.mark.parametrize("one", range(1, 6))
def test_together_is_one_apart_at_most(one: int) -> None:
    assert [protocol.together(one, other) for other in range(1, 6)] == [abs(one - other) < 2 for other in range(1, 6)]
