"""The hub as witness of audit logs: it signs what grows, and refuses what shrinks or changes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from federation.hub.tables import EventRow
from mediator.audit import decode_witness, encode_checkpoint, sign_checkpoint
from mediator.errors import IntegrityBroken
from mediator.signatures import KeyRing, SigningKey
from mediator.tree import Frontier
from tests.federation.ground import Town


def checkpoint(site: str, lines: list[bytes], key: SigningKey) -> str:
    tree = Frontier()
    for line in lines:
        tree = tree.append(line)
    return encode_checkpoint(sign_checkpoint(site, tree, datetime.now(UTC), key)).decode().removesuffix("\n")


async def test_checkpoints_are_co_signed_over_the_link(town: Town) -> None:
    core, key = town.core("bergen"), town.keys["bergen/audit"]
    core.to_witness = [checkpoint("bergen", [b"a"] * size, key) for size in (1, 3)]
    async with town.links(core):
        for _ in range(100):
            if len(core.witness_lines) == 2:
                break
            await asyncio.sleep(0.05)
    witnesses = KeyRing([town.hub.witness_key.verify_key])
    for line, size in zip(core.witness_lines, (1, 3), strict=True):
        witnessed = decode_witness(line.encode())
        witnessed.verify(witnesses)
        assert witnessed.checkpoint.size == size
    assert next(node for node in town.hub.nodes() if node["site"] == "bergen")["witnessed_records"] == 3


@pytest.mark.parametrize(
    ("attack", "lines"),
    [("a log rolled back", [b"a"]), ("a log of the same length with another record", [b"a", b"b", b"x"])],
)
async def test_a_log_that_went_back_is_not_witnessed(town: Town, attack: str, lines: list[bytes]) -> None:
    key, peer, registry = town.keys["aachen/audit"], town.hub.registry.active()["aachen"], town.hub.registry
    first = checkpoint("aachen", [b"a", b"b", b"c"], key)
    registry.witness(peer, first, town.hub.witness_key)
    before = refusals(town)
    core = town.core("aachen")
    core.to_witness = [checkpoint("aachen", lines, key), checkpoint("aachen", [b"a", b"b", b"c"], key)]
    async with town.links(core):
        for _ in range(100):
            if core.witness_lines:
                break
            await asyncio.sleep(0.05)
    # the bad one was refused and recorded; the link went on with the next
    assert [decode_witness(line.encode()).checkpoint.size for line in core.witness_lines] == [3]
    assert refusals(town) == before + 1


def test_a_checkpoint_of_another_site_or_key_is_not_witnessed(town: Town) -> None:
    peer, registry = town.hub.registry.active()["coimbra"], town.hub.registry
    for text in (
        checkpoint("bergen", [b"a"], town.keys["bergen/audit"]),
        checkpoint("coimbra", [b"a"], town.keys["bergen/audit"]),
    ):
        with pytest.raises(IntegrityBroken):
            registry.witness(peer, text, town.hub.witness_key)
    assert next(node for node in town.hub.nodes() if node["site"] == "coimbra")["witnessed_records"] == 0


def refusals(town: Town) -> int:
    with town.hub.database.read() as session:
        query = select(EventRow).where(EventRow.action == "checkpoint", EventRow.verdict == "refused")
        return len(session.scalars(query).all())
