"""The hub as witness of audit logs: it signs what goes on where it saw it last, and refuses and notes the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from federation import control
from federation.client.ports import ShownCheckpoint
from federation.hub.refusals import KEPT_PER_DAY
from federation.hub.tables import EventRow, HubCheckpointRow
from mediator.audit import Epoch, decode_checkpoint, decode_witness, encode_checkpoint, sign_checkpoint
from mediator.errors import IntegrityBroken, UnsupportedVersion, UsageFault
from mediator.signatures import KeyRing, SigningKey
from mediator.tree import Frontier, prove
from tests.end_to_end.commands import attempt
from tests.federation.ground import Town
from tests.sim.core import FakeCore


def tree(lines: Sequence[bytes]) -> Frontier:
    grown = Frontier()
    for line in lines:
        grown = grown.append(line)
    return grown


def shown(
    site: str, lines: Sequence[bytes], key: SigningKey, *, after: int = 0, epoch: Epoch | None = None
) -> ShownCheckpoint:
    """A checkpoint over `lines`, with the proof that the first `after` of them are its beginning."""
    signed = sign_checkpoint(site, tree(lines), datetime.now(UTC), key, epoch)
    text = encode_checkpoint(signed).decode().removesuffix("\n")
    return ShownCheckpoint(text, prove(tree(lines[:after]), lines[after:]))


async def lines_of(core: FakeCore, count: int) -> list[str]:
    for _ in range(100):
        if len(core.witness_lines) == count:
            break
        await asyncio.sleep(0.05)
    return core.witness_lines


async def test_checkpoints_are_co_signed_over_the_link(town: Town) -> None:
    core, key = town.core("bergen"), town.keys["bergen/audit"]
    core.to_witness = [shown("bergen", [b"a"] * size, key, after=after) for size, after in ((1, 0), (3, 1))]
    async with town.links(core):
        lines = await lines_of(core, 2)
    witnesses = KeyRing([town.hub.witness_key.verify_key])
    for line, size in zip(lines, (1, 3), strict=True):
        witnessed = decode_witness(line.encode())
        witnessed.verify(witnesses)
        assert witnessed.checkpoint.size == size
    row = next(node for node in town.hub.nodes() if node["site"] == "bergen")
    assert (row["witnessed_records"], row["log_epoch"], row["witness_refused"]) == (3, 0, None)
    assert core.witness_held == [("", False)]
    # and it says what time it is there
    assert core.hub_times and abs((core.hub_times[0] - datetime.now(UTC)).total_seconds()) < 10


SEEN = [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("attack", "lines", "after"),
    [
        ("a log rolled back", [b"a"], 0),
        ("a log of the same length with another record", [b"a", b"b", b"x"], 0),
        ("a log that was rewritten and then grew", [b"a", b"x", b"c", b"d"], 3),
        ("a log that grew, and proves nothing", [b"a", b"b", b"c", b"d"], 0),
        ("a log that grew, and proves another beginning", [b"a", b"b", b"c", b"d"], 2),
    ],
)
async def test_a_log_that_was_rewritten_is_not_witnessed(
    town: Town, attack: str, lines: list[bytes], after: int
) -> None:
    key, peer, witness = town.keys["aachen/audit"], town.hub.registry.active()["aachen"], town.hub.witness
    first = shown("aachen", SEEN, key)
    witness.sign(peer, first.text, first.proof, town.hub.witness_key)
    held, before, rows = witness.held("aachen"), refusals(town), signed(town, "aachen")
    core = town.core("aachen")
    core.to_witness = [shown("aachen", lines, key, after=after), first]
    async with town.links(core):
        got = await lines_of(core, 1)
    # the bad one was refused and noted, and core was told what the hub holds; the link went on with the next
    assert [decode_witness(line.encode()).checkpoint.size for line in got] == [3]
    assert core.witness_held == [(held, False), (held, True)]
    assert refusals(town) == before + 1
    assert signed(town, "aachen") == rows


def test_who_repeats_a_refused_checkpoint_fills_no_table(town: Town) -> None:
    key, peer, witness = town.keys["aachen/audit"], town.hub.registry.active()["aachen"], town.hub.witness
    first = shown("aachen", SEEN, key)
    witness.sign(peer, first.text, first.proof, town.hub.witness_key)
    before, bad = refusals(town), shown("aachen", [b"a", b"x", b"c", b"d"], key)
    for _ in range(20):
        with pytest.raises(IntegrityBroken, match="goes on"):
            witness.sign(peer, bad.text, bad.proof, town.hub.witness_key)
    assert refusals(town) == before + 1
    row = next(node for node in town.hub.nodes() if node["site"] == "aachen")
    assert row["witness_refused"] is not None and row["witnessed_records"] == 3
    witness.sign(peer, first.text, first.proof, town.hub.witness_key)
    row = next(node for node in town.hub.nodes() if node["site"] == "aachen")
    assert row["witness_refused"] is None


def test_who_shows_good_and_bad_checkpoints_in_turns_fills_its_lines_of_a_day(town: Town) -> None:
    key, peer, witness = town.keys["aachen/audit"], town.hub.registry.active()["aachen"], town.hub.witness
    first, bad = shown("aachen", SEEN, key), shown("aachen", [b"a", b"x", b"c", b"d"], key)
    rows = signed(town, "aachen")
    for _ in range(KEPT_PER_DAY + 40):
        witness.sign(peer, first.text, first.proof, town.hub.witness_key)
        with pytest.raises(IntegrityBroken):
            witness.sign(peer, bad.text, bad.proof, town.hub.witness_key)
    assert refusals(town) <= KEPT_PER_DAY and signed(town, "aachen") in (rows, rows + 1)


def test_a_checkpoint_of_another_site_or_key_is_not_witnessed(town: Town) -> None:
    peer, witness = town.hub.registry.active()["coimbra"], town.hub.witness
    for each in (
        shown("bergen", [b"a"], town.keys["bergen/audit"]),
        shown("coimbra", [b"a"], town.keys["bergen/audit"]),
    ):
        with pytest.raises(IntegrityBroken):
            witness.sign(peer, each.text, each.proof, town.hub.witness_key)
    assert next(node for node in town.hub.nodes() if node["site"] == "coimbra")["witnessed_records"] == 0
    with pytest.raises(UsageFault):
        list(witness.export("coimbra"))


def test_a_log_that_was_set_back_opens_an_epoch_and_both_are_kept(town: Town) -> None:
    key, peer, witness = town.keys["coimbra/audit"], town.hub.registry.active()["coimbra"], town.hub.witness
    old = [b"1", b"2", b"3", b"4"]
    for size, after in ((2, 0), (4, 2)):
        each = shown("coimbra", old[:size], key, after=after)
        witness.sign(peer, each.text, each.proof, town.hub.witness_key)
    head = decode_checkpoint(each.text.encode()).head
    lines, epoch = [b"1", b"2", b"new"], Epoch(1, 2, head)
    rewritten = shown("coimbra", [b"1", b"x", b"new"], key, after=2, epoch=epoch)
    with pytest.raises(IntegrityBroken, match="keeps what it says"):
        witness.sign(peer, rewritten.text, rewritten.proof, town.hub.witness_key)
    opened = shown("coimbra", lines, key, after=2, epoch=epoch)
    witness.sign(peer, opened.text, opened.proof, town.hub.witness_key)
    row = next(node for node in town.hub.nodes() if node["site"] == "coimbra")
    assert (row["witnessed_records"], row["log_epoch"], row["witness_refused"]) == (3, 1, None)
    exported = [decode_witness(line).checkpoint for line in witness.export("coimbra")]
    assert [(one.number, one.size) for one in exported] == [(0, 2), (0, 4), (1, 3)]
    with town.hub.database.read() as session:
        told = session.scalars(select(EventRow.object).where(EventRow.action == "epoch")).all()
    assert told == [epoch.object]
    # what was given up cannot be gone on with
    late = shown("coimbra", [*old, b"5"], key, after=4)
    with pytest.raises(IntegrityBroken, match="epoch that is over"):
        witness.sign(peer, late.text, late.proof, town.hub.witness_key)


def test_the_lines_of_a_site_are_handed_to_an_auditor(town: Town, tmp_path: Path) -> None:
    key, peer, witness = town.keys["aachen/audit"], town.hub.registry.active()["aachen"], town.hub.witness
    first = shown("aachen", SEEN, key)
    witness.sign(peer, first.text, first.proof, town.hub.witness_key)
    held = b"".join(witness.export("aachen"))
    words = ("hub", "witness", "export", "aachen", "--config", town.folder / "hub.toml")
    assert attempt(*words).out.encode() == held
    attempt(*words, "--out", tmp_path / "lines")
    assert (tmp_path / "lines").read_bytes() == held
    attempt("hub", "witness", "export", "nowhere", *words[4:]).fault(2, "there is no site nowhere")


def test_a_checkpoint_message_from_before_there_were_proofs_is_refused_by_its_version() -> None:
    old = b'{"version":1,"checkpoint":"{}"}'
    with pytest.raises(UnsupportedVersion):
        control.decode(control.CheckpointMessage, old)
    with pytest.raises(UnsupportedVersion):
        control.decode(control.WitnessQuestion, b'{"version":2}')


def test_witnessing_costs_the_same_after_a_hundred_thousand_lines(town: Town) -> None:
    """The newest line is found by index: what a look costs does not grow with what was witnessed."""
    key, peer, witness = town.keys["bergen/audit"], town.hub.registry.active()["bergen"], town.hub.witness
    many = "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 100000)"
    with town.hub.database.write() as session:
        session.execute(text(f"INSERT INTO checkpoints {many} SELECT 'dover', 0, n, 'ab', '', x'7b7d0a' FROM count"))
    first = shown("bergen", [b"a"] * 3, key, after=witnessed_of(witness.held("bergen")))
    began = time.process_time()
    for _ in range(20):
        assert witness.held("dover") == "{}"
        witness.sign(peer, first.text, first.proof, town.hub.witness_key)
    assert time.process_time() - began < 2.0
    assert sum(1 for _ in witness.export("dover")) == 100_000


def witnessed_of(line: str) -> int:
    return decode_witness(line.encode()).checkpoint.size if line else 0


def refusals(town: Town) -> int:
    with town.hub.database.read() as session:
        query = select(EventRow).where(EventRow.action == "checkpoint", EventRow.verdict == "refused")
        return len(session.scalars(query).all())


def signed(town: Town, site: str) -> int:
    with town.hub.database.read() as session:
        query = select(func.count()).select_from(HubCheckpointRow).where(HubCheckpointRow.site == site)
        return session.scalar(query) or 0


def test_a_hub_database_from_before_there_were_epochs_keeps_its_lines(tmp_path: Path) -> None:
    from alembic import command

    from federation.hub.database import Database, _alembic

    database = Database(tmp_path / "hub.db")
    config = _alembic(database._migrations)
    with database._writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with database.write() as session:
        session.execute(text("INSERT INTO checkpoints VALUES ('aachen', 7, 'ab', 'then', x'7b7d')"))
    database.upgrade()
    with database.read() as session:
        row = session.scalars(select(HubCheckpointRow)).one()
        assert (row.site, row.epoch, row.size, row.witness) == ("aachen", 0, 7, b"{}")
    database.close()
