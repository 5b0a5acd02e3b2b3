"""A node whose database was restored from a backup: it has forgotten what it served, and its log shows that."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from mediator.audit import (
    decode_line,
    encode_checkpoint,
    encode_line,
    epoch_of,
    sign_checkpoint,
    witness_checkpoint,
)
from mediator.audit_check import AuditReport, verify_log
from mediator.errors import Code, Denied, HubCode, IntegrityBroken, Malformed, UsageFault
from mediator.jobs import JobState
from mediator.signatures import KeyRing
from mediator.tree import Frontier
from node.core.audit import epochs
from node.core.audit.witness import WitnessDesk
from node.core.store import models
from node.core.store.audit_log import AuditLog
from node.core.tasks.watch import checkpoint
from tests.end_to_end.commands import attempt
from tests.mediator import samples
from tests.node.core.desk import AUDIT, Desk, Gate, eventually, later
from tests.sim.witness import HubWitness

HUB = KeyRing([samples.HUB.verify_key])


class House(Desk):
    """A core with its log's files and a hub that witnesses it."""

    def _open(self) -> None:
        super()._open()
        for name in ("audit", "witness"):
            (self.root / name).mkdir(exist_ok=True)
        self.audit_log = AuditLog(self.core.store, self.root / "audit", self.root / "witness" / "witness.jsonl")
        self.witness = WitnessDesk(self.core)

    def back_up(self) -> None:
        self.core.store.close()
        shutil.copy(self.root / "node.db", self.root / "backup.db")
        self._open()

    def restore(self) -> None:
        """What a person does with a backup; core starts on it."""
        self.jobs.stop()
        self.core.store.close()
        shutil.copy(self.root / "backup.db", self.root / "node.db")
        for left in self.root.glob("node.db-*"):
            left.unlink()
        self._open()
        epochs.look_back(self.core, self.audit_log)
        self.audit_log.export()
        self.jobs.start()

    def see(self, hub: HubWitness) -> int:
        """A checkpoint is signed, and shown to the hub; the files are brought up to date."""
        checkpoint(self.core)
        signed = hub.visit(self.witness)
        self.audit_log.export()
        return signed

    def set_back(self) -> int | None:
        with self.core.store.read() as snapshot:
            noted = snapshot.set_back()
        return None if noted is None else noted.head.size

    def open_epoch(self, restored: bool = False) -> None:
        epochs.open_epoch(self.core, self.audit_log, "it_admin.a.silva", restored=restored)
        self._changed()
        self.audit_log.export()

    def accept(self) -> bool:
        return self.documents.receive(samples.acceptance().text, by="data_steward", actor="data_steward.b")

    def refusal(self, *, round_: int, issued: datetime) -> Code | None:
        """Why an instruction is refused."""
        context = f"{round_} at {issued}".encode()
        self.ask(round=round_, issued=issued, expires=issued + timedelta(hours=1), context=context)
        return self.until(JobState.REFUSED, round_=round_).code

    def restart(self) -> None:
        self.jobs.stop()
        self.core.store.close()
        self._open()
        epochs.look_back(self.core, self.audit_log)
        self.audit_log.export()
        self.jobs.start()

    def rewrite(self) -> None:
        """Change the second record, and every hash after it, as whoever holds the database and the keys can."""
        store, tree = self.core.store, Frontier()
        with store.transaction(self.now) as tx:
            session = tx._session
            row = session.get_one(models.AuditRecordTable, 2)
            row.line = encode_line(replace(decode_line(row.line.encode()), actor="somebody")).decode().rstrip("\n")
            session.flush()
            for line in tx.audit_lines(0, 10_000):
                tree = tree.append(line.encode())
            session.get_one(models.AuditHeadTable, 1).frontier = [peak.hex() for peak in tree.peaks]
            session.execute(update(models.CheckpointTable).values(frontier=None))

    def report(self, witness: bytes | None = None, folder: Path | None = None) -> AuditReport:
        paths = sorted((folder or self.root / "audit").iterdir())
        keys = KeyRing([AUDIT.verify_key])
        files = [(path.name, path.read_bytes()) for path in paths]
        return verify_log(files, keys, witness_lines=witness, witness_keys=None if witness is None else HUB)


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.open.set()
    return gate


@pytest.fixture
def house(tmp_path: Path, gate: Gate) -> Iterator[House]:
    house = House(tmp_path, gate)
    house.jobs.start()
    yield house
    gate.open.set()
    house.jobs.stop()
    house.core.store.close()


@pytest.fixture
def hub(tmp_path: Path) -> HubWitness:
    (tmp_path / "hub").mkdir()
    return HubWitness(tmp_path / "hub", samples.SITE, AUDIT.verify_key, samples.HUB, samples.NOW)


def served_and_restored(house: House, hub: HubWitness, *, files: bool) -> None:
    """One round is released and witnessed after the backup; `files` are restored with the database, or not."""
    assert house.see(hub) == 1
    house.back_up()
    aside = house.root / "files"
    for name in ("audit", "witness"):
        shutil.copytree(house.root / name, aside / name)
    house.jobs.start()
    house.ask()
    house.until(JobState.RELEASED)
    assert house.see(hub) == 1
    if files:
        for name in ("audit", "witness"):
            shutil.rmtree(house.root / name)
            shutil.copytree(aside / name, house.root / name)
    house.restore()


def test_a_restored_node_is_told_by_its_own_files_and_serves_nothing(house: House, hub: HubWitness, gate: Gate) -> None:
    served_and_restored(house, hub, files=False)
    assert house.set_back() is not None
    before = sorted((path.name, path.read_bytes()) for path in (house.root / "audit").iterdir())
    assert house.ask(context=b"again") is HubCode.NOT_READY
    assert house.until(JobState.REFUSED).code is Code.LOG_SET_BACK and gate.asked == 1 and not house.charges()
    # the files say what happened since the backup: nothing is written over them
    house.audit_log.export()
    assert sorted((path.name, path.read_bytes()) for path in (house.root / "audit").iterdir()) == before


def test_a_node_restored_with_its_files_is_told_by_the_hub_which_refuses_and_notes(
    house: House, hub: HubWitness, gate: Gate
) -> None:
    served_and_restored(house, hub, files=True)
    assert house.set_back() is None, "nothing here knows better"
    lines = hub.lines()
    assert house.see(hub) == 0
    assert house.set_back() is not None and hub.refused() and hub.lines() == lines and house.witness.refused
    told = [(each.action, each.verdict, each.code) for each in house.log() if each.verdict == "refused"]
    assert ("log_set_back", "refused", "log_set_back") in told and ("checkpoint", "refused", "") in told
    house.ask(context=b"again")
    eventually(lambda: house.job().state is JobState.REFUSED)
    assert gate.asked == 1
    # it is written once, however often the hub says so
    size = house.size()
    hub.visit(house.witness)
    assert house.size() == size


def test_what_computes_ends_when_the_hub_shows_that_the_log_was_set_back(
    house: House, hub: HubWitness, gate: Gate
) -> None:
    served_and_restored(house, hub, files=True)
    gate.open.clear()
    house.ask(round=2, context=b"two")
    eventually(lambda: gate.asked == 2)
    house.see(hub)
    house.watch.look()
    assert house.until(JobState.STOPPED, JobState.FAILED, JobState.REFUSED, round_=2).code is Code.LOG_SET_BACK


@pytest.mark.parametrize("files", [False, True], ids=["told by the files", "told by the hub"])
def test_an_epoch_ends_all_from_before_and_every_permit_is_accepted_anew(
    house: House, hub: HubWitness, gate: Gate, files: bool
) -> None:
    served_and_restored(house, hub, files=files)
    house.see(hub)
    old = hub.lines()
    house.now = later(minutes=1)
    house.open_epoch()
    assert house.set_back() is None
    # the hub signs again, and keeps both epochs
    assert house.see(hub) == 1 and not hub.refused() and hub.lines().startswith(old)
    # what was issued before is refused, whatever else holds
    assert house.accept()
    assert house.refusal(round_=1, issued=samples.NOW) is Code.EPOCH_OVER
    # and so is a new instruction for a run that was ordered before
    assert house.refusal(round_=2, issued=house.now + timedelta(minutes=3)) is Code.EPOCH_OVER
    with house.core.store.read() as snapshot:
        assert [row.state for row in snapshot.run_orders()] == ["ended"]
    assert gate.asked == 1 and not house.charges()
    # a new order under the permit accepted anew is served
    house.documents.receive(samples.RESEARCHER.sign(samples.order(run="run-2", nonce="another")))
    house.now += timedelta(minutes=5)
    issued = house.now
    assert house.ask(run="run-2", issued=issued, expires=issued + timedelta(hours=1)) is None
    eventually(lambda: gate.asked == 2)


def test_a_kept_acceptance_does_not_count_again_until_a_person_says_yes(house: House, hub: HubWitness) -> None:
    served_and_restored(house, hub, files=False)
    house.open_epoch()
    with house.core.store.read() as snapshot:
        assert snapshot.acceptance("lesions-2026", samples.permit().permit_version) is None
    for text in (samples.acceptance().text, samples.acceptance(maximum_rounds=1).text):
        with pytest.raises(Denied) as denied:
            house.documents.receive(text)
        assert denied.value.reasons[0].code is Code.ROLE_NOT_PERMITTED
    assert house.refusal(round_=1, issued=later(hours=1)) is Code.EPOCH_OVER
    assert house.accept() and not house.accept()
    with house.core.store.read() as snapshot:
        assert snapshot.acceptance("lesions-2026", samples.permit().permit_version) is not None


@pytest.mark.parametrize("files", [False, True], ids=["told by the files", "told by the hub"])
def test_verify_shows_the_seam_and_both_logs_verify(house: House, hub: HubWitness, files: bool) -> None:
    served_and_restored(house, hub, files=files)
    house.see(hub)
    with house.core.store.read() as snapshot:
        kept = snapshot.witnessed_size()
    house.open_epoch()
    house.see(hub)
    report = house.report(hub.lines())
    assert report.ok, report.findings
    (seam,) = report.seams
    assert seam.witnessed and seam.epoch.number == 1 and seam.epoch.kept == kept < seam.epoch.before.size
    with house.core.store.read() as snapshot:
        (line,) = snapshot.audit_lines(seam.record - 1, 1)
    assert epoch_of(decode_line(line.encode())) == seam.epoch
    assert decode_line(line.encode()).actor == "it_admin.a.silva"
    aside = house.root / "witness" / "before-epoch-1"
    assert aside.exists() is not files
    if not files:  # what was there before is whole, and is the hub's epoch 0
        old = b"".join(line for line in hub.lines().splitlines(keepends=True) if b'"epoch"' not in line)
        assert house.report(old, aside / "audit").ok


def test_an_auditor_takes_the_lines_from_the_hub_and_sees_the_seam(house: House, hub: HubWitness) -> None:
    served_and_restored(house, hub, files=False)
    house.open_epoch()
    house.see(hub)
    keys, lines, empty = (house.root / name for name in ("audit-keys.txt", "from-the-hub.jsonl", "empty"))
    keys.write_text(f"audit {AUDIT.verify_key.text}\nwitness {samples.HUB.verify_key.text}\n")
    lines.write_bytes(hub.lines())
    empty.mkdir()
    done = attempt("audit", "verify", house.root / "audit", "--key", keys, "--witness", lines, "--json")
    assert done.code == 0 and "the log was set back: epoch 1 begins with record" in done.err, done
    (seam,) = done.json()["seams"]
    assert seam["epoch"] == 1 and seam["witnessed"]
    attempt("audit", "verify", empty, "--key", keys, "--witness", lines).fault(4, "there is no log here")
    lines.write_bytes(b"")
    attempt("audit", "verify", house.root / "audit", "--key", keys, "--witness", lines).fault(4, "holds no line")


def test_nobody_opens_an_epoch_of_a_log_that_is_whole_by_mistake(house: House, hub: HubWitness) -> None:
    house.see(hub)
    before = house.size()
    with pytest.raises(UsageFault):
        house.open_epoch()
    assert house.size() == before
    house.open_epoch(restored=True)
    assert house.see(hub) == 1 and house.report(hub.lines()).ok


def test_an_epoch_opened_without_the_hub_is_opened_again_when_the_hub_knows_more(house: House, hub: HubWitness) -> None:
    """Restored with all its files, far from any hub: the person says so, and the hub had signed more."""
    served_and_restored(house, hub, files=True)
    house.open_epoch(restored=True)
    assert house.see(hub) == 0 and house.set_back() is not None
    house.open_epoch()
    assert house.see(hub) == 1
    report = house.report(hub.lines())
    assert report.ok, report.findings
    assert [seam.epoch.number for seam in report.seams] == [1, 2]
    assert [seam.witnessed for seam in report.seams] == [False, True]


def test_a_log_set_back_twice_keeps_every_seam(house: House, hub: HubWitness) -> None:
    served_and_restored(house, hub, files=False)
    house.open_epoch()
    house.see(hub)
    house.restore()
    assert house.set_back() is not None
    house.open_epoch()
    assert house.see(hub) == 1
    report = house.report(hub.lines())
    assert report.ok, report.findings
    assert [seam.epoch.before.epoch for seam in report.seams] == [1]


def test_a_restart_goes_on_being_set_back_and_an_open_epoch_goes_on(house: House, hub: HubWitness) -> None:
    served_and_restored(house, hub, files=False)
    for _ in range(2):
        house.restart()
        assert house.set_back() is not None
    house.open_epoch()
    house.see(hub)
    for _ in range(2):
        house.restart()
        assert house.set_back() is None
    assert house.see(hub) == 1 and house.report(hub.lines()).ok


def test_a_hub_that_was_restored_itself_is_given_the_proof_from_where_it_stands(house: House, hub: HubWitness) -> None:
    house.see(hub)
    held = hub.witness.held(samples.SITE)
    house.see(hub)
    house.see(hub)
    hub.forget_all_but_the_first()
    assert hub.witness.held(samples.SITE) == held
    assert house.see(hub) == 1 and house.set_back() is None


def test_a_lost_answer_of_the_hub_is_made_good(house: House, hub: HubWitness) -> None:
    house.see(hub)
    checkpoint(house.core)
    hub.visit(WitnessDesk(house.core), lose=True)
    assert house.see(hub) == 1 and not hub.refused() and house.report(hub.lines()).ok


def test_a_rewritten_log_that_goes_on_is_refused_and_noted_on_both_sides(house: House, hub: HubWitness) -> None:
    """An insider with the node's keys: a record is changed in the database, and everything signed anew."""
    house.see(hub)
    house.rewrite()
    lines = hub.lines()
    assert house.see(hub) == 0
    assert hub.lines() == lines and hub.refused() and house.set_back() is not None


def test_a_witness_that_makes_up_ever_longer_logs_fills_no_log_of_ours(house: House, hub: HubWitness) -> None:
    """Without the node's own signature a line is the witness's word: written down once, and it sets nothing back."""
    house.see(hub)
    before, stranger = house.size(), samples.key("stranger")
    for size in range(1000, 1020):
        forged = sign_checkpoint(samples.SITE, Frontier(size, (b"x" * 32,)), house.now, stranger)
        line = encode_checkpoint(witness_checkpoint(forged, None, samples.HUB)).decode().rstrip("\n")
        house.witness.holds(line, False)
    assert house.size() == before + 1 and house.set_back() is None and house.witness.refused


def test_a_link_that_tells_of_a_refusal_and_of_an_old_signature_in_turns_fills_no_log(
    house: House, hub: HubWitness
) -> None:
    """And it does not make the refusal forgotten: what was signed before says nothing of now."""
    house.see(hub)
    before, old = house.size(), hub.witness.held(samples.SITE)
    for _ in range(50):
        house.witness.holds(old, True)
        house.witness.witnessed(old)
    assert house.witness.refused and house.size() == before + 1
    checkpoint(house.core)
    assert house.see(hub) == 1 and not house.witness.refused


def test_a_line_that_no_witness_of_ours_signed_sets_nothing_back(house: House, hub: HubWitness) -> None:
    house.see(hub)
    line = hub.witness.held(samples.SITE)
    for bad in (line.replace('"size":', '"size":9'), "{}", "é"):
        with pytest.raises((IntegrityBroken, Malformed)):
            house.witness.holds(bad, False)
    assert house.set_back() is None
