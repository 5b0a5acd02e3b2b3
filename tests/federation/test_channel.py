"""The control channel end to end: documents reach the nodes the moment they are published, whoever published them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import delete, select

from federation import control, tls
from federation.client import enrolment
from federation.client.control import ControlChannel
from federation.hub.tables import EventRow, HubDocumentRow
from mediator.types import RevocationList
from tests.federation.ground import COMMITTEE, Town, key, permit
from tests.federation.rogue_hub import RogueHub
from tests.sim.core import FakeCore


async def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> float:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < timeout_s
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def test_a_revocation_reaches_every_node_within_a_second(town: Town) -> None:
    cores = [town.core("aachen"), town.core("bergen")]
    async with town.links(*cores):
        await eventually(lambda: all(core.documents for core in cores))
        revoked = COMMITTEE.sign(RevocationList(2, datetime.now(UTC).replace(microsecond=0), ("p9",)))
        town.hub.submit_revocations(revoked)
        waited = await eventually(lambda: all(revoked in core.documents for core in cores))
    assert waited < 1.0


async def test_what_a_rogue_hub_publishes_arrives_as_it_was_signed(town: Town) -> None:
    """The hub can send what it likes; the committee's signature is what it cannot make. The node's core decides."""
    core = town.core("aachen")
    forged = key("x").sign(permit(permit="forged", issuer=key("x").key_id))
    async with town.links(core):
        await eventually(lambda: bool(core.documents))
        RogueHub(town.folder / "hub.toml").publish(forged)
        await eventually(lambda: forged in core.documents)


async def test_a_row_that_no_message_can_carry_is_set_aside_and_the_documents_behind_it_arrive(town: Town) -> None:
    """A damaged row of the hub's own: no stream ends over it, and the hub's events say once that it is there."""
    core, other = town.core("aachen"), town.core("bergen")
    with town.hub.database.write() as session:
        session.add(
            HubDocumentRow(
                kind="cloister.permit", name="damaged@1", sha256="00" * 32, key_id="k", received="2026-01-01T00:00:00Z",
                expires=None, text="no { document",
            )
        )  # fmt: skip
    behind = COMMITTEE.sign(permit(permit="behind"))
    town.hub.submit_permit(behind)
    try:
        async with town.links(core, other):
            await eventually(lambda: behind in core.documents and behind in other.documents)
        with town.hub.database.read() as session:
            told = session.scalars(select(EventRow).where(EventRow.action == "document_send")).all()
            assert [(row.verdict, row.code) for row in told] == [("failed", "malformed")]
    finally:
        with town.hub.database.write() as session:
            session.execute(delete(HubDocumentRow).where(HubDocumentRow.name == "damaged@1"))


async def test_the_link_says_when_the_hub_is_found(town: Town) -> None:
    core: FakeCore = town.core("coimbra")
    async with town.links(core):
        await eventually(lambda: core.connected)
    node = next(node for node in town.hub.nodes() if node["site"] == "coimbra")
    assert node["connected"] is not None and node["certificate_expires"] is not None


async def test_an_inventory_is_kept(town: Town) -> None:
    own = enrolment.load(town.link_folder("bergen"))
    channel = ControlChannel(own.bundle.hub, tls.client_context(own.ca, own.certificate, own.key))
    inventory = control.Inventory(
        software="0.1.0",
        datasets=[control.DatasetSummary(dataset="ct", dataset_version="sha256:" + "ab" * 32, studies=40)],
        images=[],
    )
    try:
        assert (await channel.ask(control.INVENTORY, inventory, control.Stored)).outcome == "stored"
    finally:
        await channel.close()
    node = next(node for node in town.hub.nodes() if node["site"] == "bergen")
    assert node["inventory"]["datasets"][0]["studies"] == 40
