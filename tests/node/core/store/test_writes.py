"""Every change of the store: what it keeps, and that it never happens without its audit record."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from mediator.airlock.review import FileEvent
from mediator.audit import Action, Epoch, LogHead, Verdict, decode_line, witness_checkpoint
from mediator.datasets import HeldStudy
from mediator.errors import Code, Denied, HubCode, IntegrityBroken
from mediator.imports import ImportStep
from mediator.jobs import JobState, JobStep
from mediator.manifests import Deidentification
from mediator.types import Kind
from node.core.records import AuditEvent, NewImport, RefusalDayRow
from node.core.store.engine import make_engine
from node.core.store.reads import Reads
from node.core.store.store import Store, open_store
from node.core.store.writes import Tx
from tests.node.core.store import samples
from tests.node.core.store.samples import HEX, IMAGE, KEY, NOW, VERSION, event, signed

Step = Callable[[Tx, AuditEvent], Any]

# Every mutating method once, in an order in which each finds something to change.
HELD = HeldStudy("1" * 32, "2" * 32, "train", 2, HEX, 9, Deidentification("eucaim", HEX, "4"))
SEEN = LogHead(0, 99, "ab" * 32)
STEPS: list[tuple[str, Step]] = [
    ("record", lambda tx, e: tx.record(event=e)),
    ("add_document", lambda tx, e: tx.add_document(signed(samples.permit()), event=e)),
    ("add_document", lambda tx, e: tx.add_document(signed(samples.acceptance()), event=e)),
    ("add_document", lambda tx, e: tx.add_document(signed(samples.run_order()), event=e)),
    ("add_document", lambda tx, e: tx.add_document(signed(samples.revocations()), event=e)),
    ("add_dataset_version", lambda tx, e: tx.add_dataset_version(samples.manifest(), HEX, "lung/b", event=e)),
    ("add_image", lambda tx, e: tx.add_image(IMAGE, None, "job", "{}", event=e)),
    ("approve_image", lambda tx, e: tx.approve_image(IMAGE, "ours", "a.silva", event=e)),
    ("withdraw_image", lambda tx, e: tx.withdraw_image(IMAGE, event=e)),
    ("set_paused", lambda tx, e: tx.set_paused(True, event=e)),
    ("add_instruction", lambda tx, e: tx.add_instruction(signed(samples.instruction()), b"ctx", "job-1", event=e)),
    ("charge", lambda tx, e: tx.charge(samples.charge(), event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.ADMIT, dataset_version=VERSION, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.PREPARE, sandbox="train-1", event=e)),
    ("recover", lambda tx, e: tx.recover("job-1", event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.PREPARE, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.START, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.PREEMPT, used_s=3.0, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.PREPARE, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.START, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.PRODUCE, event=e)),
    ("advance", lambda tx, e: tx.advance("job-1", JobStep.RELEASE, event=e)),
    ("add_release", lambda tx, e: tx.add_release(samples.release(), "job-1", event=e)),
    ("take_back", lambda tx, e: tx.take_back("run-1/1/train/1", Code.STOPPED, HubCode.PAUSED, event=e)),
    ("mark_delivered", lambda tx, e: tx.mark_delivered("run-1/1/train/1", event=e)),
    ("add_instruction", lambda tx, e: tx.add_instruction(signed(samples.instruction(2)), b"", "job-2", event=e)),
    ("refuse_at_once", lambda tx, e: tx.refuse_at_once(*REFUSED, Code.PERMIT_EXPIRED, HubCode.PAUSED, event=e)),
    ("sum_up_refusals", lambda tx, e: tx.sum_up_refusals(RefusalDayRow("link/unread", "2026-11-22", 200, 9), event=e)),
    ("add_airlock_file", lambda tx, e: tx.add_airlock_file(samples.airlock_file(), FileEvent.CHECK, event=e)),
    ("hand_out", lambda tx, e: tx.hand_out("file-1", event=e)),
    ("add_review", lambda tx, e: tx.add_review(samples.review(), FileEvent.ENDORSE, event=e)),
    ("advance_airlock_file", lambda tx, e: tx.advance_airlock_file("file-1", FileEvent.EXPIRE, event=e)),
    ("count_failure", lambda tx, e: tx.count_failure("message", HEX, "internal", set_aside=True, event=e)),
    ("add_canary", lambda tx, e: tx.add_canary(HEX, True, {"dns": True}, event=e)),
    ("withdraw_dataset_version", lambda tx, e: tx.withdraw_dataset_version(VERSION, event=e)),
    ("add_import", lambda tx, e: tx.add_import(NewImport("ingest-1", "lesions", "images", "it", "{}"), event=e)),
    ("advance_import", lambda tx, e: tx.advance_import("ingest-1", ImportStep.TAKE_IN, event=e)),
    ("take_import_study", lambda tx, e: tx.take_import_study("ingest-1", 1, HELD, event=e)),
    ("add_checkpoint", lambda tx, e: tx.add_checkpoint("north", KEY, event=e)),
    ("add_witnessed", lambda tx, e: tx.add_witnessed(_witnessed(tx), event=e)),
    ("note_set_back", lambda tx, e: tx.note_set_back(SEEN, event=e)),
    ("open_epoch", lambda tx, e: tx.open_epoch(Epoch(1, 0, SEEN), event=e)),
    ("accept_again", lambda tx, e: tx.accept_again(signed(samples.acceptance()).sha256, event=e)),
    ("accept_clock", lambda tx, e: tx.accept_clock(event=e)),
]
REFUSED = ("run-1/2/train/1", "job-2")
# Those that count what has a record already, or has one later.
COUNTS = {"count_refusals", "forget_refusals"}
# Those that say "held already" the second time and leave no record of it.
IDEMPOTENT = {
    "add_document", "add_dataset_version", "add_image", "approve_image", "withdraw_image", "set_paused",
    "add_instruction", "charge", "mark_delivered", "withdraw_dataset_version", "add_witnessed", "take_import_study",
    "note_set_back", "accept_again", "take_back",
}  # fmt: skip


def _witnessed(tx: Tx) -> Any:
    from mediator.audit import decode_checkpoint

    newest = tx.newest_checkpoint()
    assert newest is not None
    return witness_checkpoint(decode_checkpoint(newest.text.encode()), None, KEY)


def mutating() -> dict[str, Any]:
    own = {name: method for name, method in inspect.getmembers(Tx, inspect.isfunction) if not name.startswith("_")}
    return {name: method for name, method in own.items() if not hasattr(Reads, name) and name not in COUNTS}


def run_steps(store: Store, until: str) -> None:
    """All steps up to the first of that name; the documents are four steps."""
    with store.transaction(NOW) as tx:
        for number, (name, step) in enumerate(STEPS):
            step(tx, event())
            if name == until and STEPS[number + 1][0] != until:
                return


def test_every_mutating_method_demands_its_event() -> None:
    for name, method in mutating().items():
        parameter = inspect.signature(method).parameters.get("event")
        assert parameter is not None, name
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty, name


def test_the_steps_cover_every_mutating_method() -> None:
    assert {name for name, _ in STEPS} == mutating().keys()


def test_every_change_grows_the_log_by_its_own_record(store: Store) -> None:
    for number, (name, step) in enumerate(STEPS, 1):
        written = event(Action.ACCESS, f"step-{number}")
        with store.transaction(NOW) as tx:
            step(tx, written)
        with store.read() as reads:
            assert reads.audit_size() == number, name
            record = decode_line(reads.audit_lines(number - 1, 1)[0].encode())
            assert (record.sequence, record.object, record.time) == (number, f"step-{number}", NOW)


def test_a_second_time_changes_nothing_and_leaves_no_record(store: Store) -> None:
    for name, step in STEPS:
        with store.transaction(NOW) as tx:
            assert step(tx, event()) is not False, name
        if name in IDEMPOTENT:
            with store.transaction(NOW) as tx:
                size = tx.audit_size()
                assert step(tx, event()) is False, name
                assert tx.audit_size() == size, name


def test_a_transaction_that_raises_leaves_neither_change_nor_record(store: Store) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), store.transaction(NOW) as tx:
        tx.add_document(signed(samples.permit()), event=event())
        raise RuntimeError("on purpose")
    with store.read() as reads:
        assert reads.permits() == () and reads.audit_size() == 0


def test_an_event_that_could_carry_text_stops_the_change(store: Store) -> None:
    with pytest.raises(ValueError, match="an id of ours"), store.transaction(NOW) as tx:
        tx.approve_image(IMAGE, "", event=event(Action.IMAGE_APPROVE, "DOE JANE"))
    with store.read() as reads:
        assert reads.images() == () and reads.audit_size() == 0


def test_a_transaction_inside_a_transaction_is_a_defect(store: Store) -> None:
    with pytest.raises(RuntimeError, match="inside"), store.transaction(NOW), store.transaction(NOW):
        pass


def test_documents_come_back_as_they_came(store: Store) -> None:
    run_steps(store, "add_document")
    with store.read() as reads:
        permit, order = reads.permit("p-1", 1), reads.run_order("run-1")
        assert permit is not None and permit.text == signed(samples.permit()).text
        assert (permit.key_id, permit.received, permit.expires) == (KEY.key_id, NOW, NOW + timedelta(days=30))
        assert order is not None and (order.state, order.rounds) == ("ordered", 3)
        held = reads.acceptance("p-1", 1)
        assert held is not None and held.text == signed(samples.acceptance()).text
        newest = reads.newest_revocation_list()
        assert newest is not None and newest.number == 1
        assert reads.permit("p-1", 2) is None and reads.run_order("other") is None
        assert reads.acceptance("p-1", 2) is None


def test_every_permit_is_kept_and_the_newest_acceptance_counts(store: Store) -> None:
    with store.transaction(NOW) as tx:
        for version in (2, 1):
            tx.add_document(signed(samples.permit(version)), event=event())
        tx.add_document(signed(samples.acceptance()), event=event())
    with store.transaction(NOW + timedelta(seconds=1)) as tx:
        tx.add_document(signed(samples.acceptance(2)), event=event())
        held = tx.acceptance("p-1", 1)
        assert [row.permit_version for row in tx.permits()] == [1, 2]
        assert held is not None and held.text == signed(samples.acceptance(2)).text


@pytest.mark.parametrize(
    ("held", "rival"),
    [
        (samples.permit(), samples.permit(purpose="another")),
        (samples.run_order(), samples.run_order(nonce="n2")),
        (samples.revocations(3), samples.revocations(3, "p-1")),
    ],
)
def test_another_document_under_a_taken_id_is_refused(store: Store, held: Any, rival: Any) -> None:
    with store.transaction(NOW) as tx:
        tx.add_document(signed(held), event=event())
    with pytest.raises(Denied) as caught, store.transaction(NOW) as tx:
        tx.add_document(signed(rival), event=event())
    assert caught.value.reasons[0].code is Code.DOCUMENT_CONFLICT
    with store.read() as reads:
        assert reads.audit_size() == 1


def test_a_revocation_list_that_goes_back_is_refused(store: Store) -> None:
    with store.transaction(NOW) as tx:
        tx.add_document(signed(samples.revocations(7, "p-1")), event=event())
    with pytest.raises(Denied) as caught, store.transaction(NOW) as tx:
        tx.add_document(signed(samples.revocations(6)), event=event())
    assert caught.value.reasons[0].code is Code.REVOCATION_LIST_ROLLED_BACK
    with store.read() as reads:
        newest = reads.newest_revocation_list()
        assert newest is not None and newest.number == 7


def test_only_documents_of_the_four_kinds_are_kept(store: Store) -> None:
    with pytest.raises(TypeError), store.transaction(NOW) as tx:
        tx.add_document(signed(samples.instruction()), event=event())


def test_a_dataset_version_is_kept_with_its_patients_pseudonyms(store: Store) -> None:
    second = "sha256:" + "9" * 64
    with store.transaction(NOW) as tx:
        tx.add_dataset_version(samples.manifest(), HEX, "lung/b", event=event())
        newer = replace(samples.manifest(second, VERSION), created=NOW + timedelta(hours=1))
        tx.add_dataset_version(newer, HEX, "lung/9", event=event())
        tx.withdraw_dataset_version(VERSION, event=event())
    with store.read() as reads:
        old, new = reads.dataset_versions()
        assert (old.dataset_version, old.withdrawn, old.excluded) == (VERSION, NOW, {"burned_in": 1})
        assert (new.supersedes, new.withdrawn, new.folder, new.project) == (VERSION, None, "lung/9", "lung")
        assert reads.dataset_version(second) == new and reads.dataset_version("sha256:0") is None


def test_a_dataset_cannot_change_its_project(store: Store) -> None:
    with store.transaction(NOW) as tx:
        tx.add_dataset_version(samples.manifest(), HEX, "a", event=event())
    moved = replace(samples.manifest("sha256:" + "8" * 64), project="heart")
    with pytest.raises(Denied), store.transaction(NOW) as tx:
        tx.add_dataset_version(moved, HEX, "b", event=event())


def test_images_and_pause(store: Store) -> None:
    with store.transaction(NOW) as tx:
        assert not tx.paused() and tx.approved_images() == frozenset()
        tx.approve_image(IMAGE, "reference", event=event())
        tx.set_paused(True, event=event())
        assert tx.paused() and tx.approved_images() == {IMAGE} and tx.images()[0].note == "reference"
        tx.set_paused(False, event=event())
        assert not tx.paused()


def test_a_replayed_instruction_leaves_log_and_jobs_unchanged(store: Store) -> None:
    with store.transaction(NOW) as tx:
        assert tx.add_instruction(signed(samples.instruction()), b"ctx", "job-1", event=event())
    with store.transaction(NOW) as tx:
        assert not tx.add_instruction(signed(samples.instruction()), b"evil", "job-2", event=event())
        seen = tx.instruction("run-1/1/train/1")
        assert seen is not None and (seen.reply_context, seen.state, seen.task) == (b"ctx", "open", Kind.TRAIN)
        assert [job.job for job in tx.jobs()] == ["job-1"] and tx.audit_size() == 1


def test_a_job_goes_from_received_to_delivered(store: Store) -> None:
    run_steps(store, "add_release")
    with store.read() as reads:
        job = reads.job("job-1")
        assert job is not None and (job.state, job.dataset_version) == (JobState.RELEASED, VERSION)
        (out,) = reads.outgoing()
        assert (out.envelope, out.folder, out.hub_code) == ("envelope-text", "run-1.1.train", None)
        assert out.reply_context == b"ctx"
    with store.transaction(NOW + timedelta(seconds=5)) as tx:
        assert tx.mark_delivered("run-1/1/train/1", event=event(Action.DELIVER))
    with store.read() as reads:
        job, found = reads.job("job-1"), reads.find_release("run-1", 1, Kind.TRAIN)
        assert job is not None and job.state is JobState.DELIVERED
        assert found is not None and found.delivered == NOW + timedelta(seconds=5) and found.size_bytes == 42
        assert found.objects == samples.release().objects
        assert reads.outgoing() == () and reads.unfinished() == ()


def test_a_job_cannot_leave_its_table(store: Store) -> None:
    run_steps(store, "add_instruction")
    with pytest.raises(IntegrityBroken), store.transaction(NOW) as tx:
        tx.advance("job-1", JobStep.PRODUCE, event=event())
    with pytest.raises(IntegrityBroken), store.transaction(NOW) as tx:
        tx.add_release(samples.release(), "job-1", event=event())
    with pytest.raises(IntegrityBroken), store.transaction(NOW) as tx:
        tx.advance("no-such-job", JobStep.ADMIT, event=event())
    with store.read() as reads:
        job = reads.job("job-1")
        assert job is not None and job.state is JobState.RECEIVED and reads.outgoing() == ()


def test_a_refused_job_answers_the_hub_until_it_is_delivered(store: Store) -> None:
    run_steps(store, "add_instruction")
    with store.transaction(NOW) as tx:
        job = tx.advance(
            "job-1", JobStep.REFUSE, code=Code.PERMIT_EXPIRED, hub_code=HubCode.REFUSED_PERMIT, event=event()
        )
        assert (job.state, job.code) == (JobState.REFUSED, Code.PERMIT_EXPIRED)
    with store.transaction(NOW) as tx:
        (out,) = tx.outgoing()
        assert (out.envelope, out.hub_code) == (None, HubCode.REFUSED_PERMIT)
        assert tx.mark_delivered(out.instruction, event=event())
        assert not tx.mark_delivered(out.instruction, event=event())
        assert not tx.mark_delivered("unknown/1/train/1", event=event())
        assert tx.outgoing() == ()


def test_a_release_recalled_before_delivery_goes_out_as_a_code(store: Store) -> None:
    run_steps(store, "add_release")
    with store.transaction(NOW) as tx:
        tx.advance("job-1", JobStep.STOP, code=Code.PERMIT_REVOKED, hub_code=HubCode.REFUSED_PERMIT, event=event())
        (out,) = tx.outgoing()
        assert (out.envelope, out.folder, out.hub_code) == (None, None, HubCode.REFUSED_PERMIT)


def test_a_crashed_job_continues_where_the_table_says(store: Store) -> None:
    run_steps(store, "charge")
    with store.transaction(NOW) as tx:
        tx.add_dataset_version(samples.manifest(VERSION), HEX, "x", event=event())
        for happened in (JobStep.ADMIT, JobStep.PREPARE, JobStep.START):
            tx.advance("job-1", happened, sandbox="train-1", event=event())
    with store.transaction(NOW) as tx:
        (crashed,) = tx.unfinished()
        assert (crashed.state, crashed.sandbox) == (JobState.RUNNING, "train-1")
        again = tx.recover("job-1", event=event(Action.RECOVER, "job-1"))
        assert (again.state, again.sandbox) == (JobState.ADMITTED, None)


@pytest.mark.parametrize("decided_first", [False, True])
def test_a_redelivery_keeps_both_releases_and_finds_the_newest(store: Store, decided_first: bool) -> None:
    run_steps(store, "mark_delivered")
    with store.transaction(NOW + timedelta(minutes=1)) as tx:
        assert tx.last_attempt("run-1", 1, Kind.TRAIN) == 1
        tx.add_instruction(signed(samples.instruction(1, 2)), b"new", "job-1b", event=event())
        assert tx.last_attempt("run-1", 1, Kind.TRAIN) == 1
        if decided_first:
            tx.advance("job-1b", JobStep.REDELIVER, event=event(Action.REDELIVER))
        tx.add_release(samples.release(attempt=2), "job-1b", event=event(Action.REDELIVER))
        found = tx.find_release("run-1", 1, Kind.TRAIN)
        assert found is not None and found.attempt == 2 and found.delivered is None
        assert [row.attempt for row in tx.releases("run-1")] == [1, 2]
        assert [out.reply_context for out in tx.outgoing()] == [b"new"]
        assert tx.find_release("run-1", 2, Kind.TRAIN) is None
        assert tx.last_attempt("run-1", 1, Kind.TRAIN) == 2 and tx.last_attempt("run-1", 9, Kind.TRAIN) == 0
        assert tx.run_dataset_version("run-1") == VERSION and tx.run_dataset_version("run-9") is None
        with pytest.raises(IntegrityBroken):
            tx.add_release(samples.release(attempt=2), "job-1b", event=event())


def test_content_never_released_cannot_slip_out_as_a_redelivery(store: Store) -> None:
    run_steps(store, "mark_delivered")
    with store.transaction(NOW) as tx:
        tx.add_instruction(signed(samples.instruction(1, 2)), b"new", "job-1b", event=event())
        size = tx.audit_size()
    with pytest.raises(IntegrityBroken), store.transaction(NOW) as tx:
        tx.add_release(replace(samples.release(attempt=2), root="0" * 64), "job-1b", event=event())
    with store.read() as reads:
        assert reads.outgoing() == () and reads.audit_size() == size


def test_a_task_is_charged_once_however_often_it_is_asked(store: Store) -> None:
    run_steps(store, "add_document")
    with store.transaction(NOW) as tx:
        assert tx.charge(samples.charge(1), event=event())
        order = tx.run_order("run-1")
        assert order is not None and order.state == "running"
        assert not tx.charge(samples.charge(1, size_bytes=999), event=event())
        assert tx.charge(samples.charge(1, Kind.EVALUATE, 10), event=event())
        assert tx.charge(samples.charge(2), event=event())
        totals = tx.ledger_totals("p-1", 1, "run-1")
        assert (totals.rounds, totals.size_bytes, totals.epsilon) == (2, 210, 0.75)
        none = tx.ledger_totals("p-1", 2, "run-1")
        assert (none.rounds, none.size_bytes, none.epsilon) == (0, 0, 0.0)
        charged = tx.charged("p-1", "run-1", 1, Kind.TRAIN)
        assert charged is not None and charged.size_bytes == 100 and charged.time == NOW
        assert [row.size_bytes for row in tx.charges("p-1")] == [10, 100, 100] and tx.charges("p-2") == ()


def test_the_newest_canary_of_a_fingerprint_counts(store: Store) -> None:
    with store.transaction(NOW) as tx:
        tx.add_canary(HEX, True, {"dns": True}, event=event())
        tx.add_canary(HEX, False, {"dns": False}, event=event())
        tx.add_canary("f" * 64, True, {}, event=event())
        newest = tx.newest_canary(HEX)
        assert newest is not None and not newest.passed and newest.probes == {"dns": False}
        assert tx.newest_canary("0" * 64) is None


def test_the_newest_audit_time_never_goes_back(store: Store) -> None:
    with store.read() as reads:
        assert reads.newest_audit_time() is None
    for moment in (NOW, NOW - timedelta(hours=1)):
        with store.transaction(moment) as tx:
            tx.record(event=event())
    with store.read() as reads:
        assert reads.newest_audit_time() == NOW and reads.audit_size() == 2


def test_a_checkpoint_covers_its_own_record_and_verifies(store: Store) -> None:
    with store.transaction(NOW) as tx:
        for _ in range(5):
            tx.record(event=event())
        assert tx.records_since_checkpoint() == 5
        checkpoint = tx.add_checkpoint("north", KEY, event=event(Action.CHECKPOINT))
        checkpoint.verify(samples.RING)
        assert checkpoint.size == 6 and checkpoint.root == tx.audit_tree().root
        assert tx.records_since_checkpoint() == 0
        tx.add_witnessed(_witnessed(tx), event=event(Action.CHECKPOINT))
        assert tx.records_since_checkpoint() == 0, "a witness alone is no reason for another checkpoint"
        assert [row.size for row in tx.checkpoints()] == [6] and [row.size for row in tx.witnessed()] == [6]
        assert tx.checkpoints(6) == () and tx.witnessed(6) == ()


def test_a_witness_of_another_log_is_refused(store: Store) -> None:
    with store.transaction(NOW) as tx:
        checkpoint = tx.add_checkpoint("north", KEY, event=event(Action.CHECKPOINT))
    for foreign in (replace(checkpoint, root="0" * 64), replace(checkpoint, size=9)):
        with pytest.raises(IntegrityBroken), store.transaction(NOW) as tx:
            tx.add_witnessed(witness_checkpoint(foreign, None, KEY), event=event())
    with store.read() as reads:
        assert reads.witnessed() == () and reads.audit_size() == 1


def test_records_hold_the_fields_of_their_event(store: Store) -> None:
    told = AuditEvent("steward-1", Action.TASK_ADMIT, "run-1/1/train/1", Verdict.REFUSED, "p-1@1", Code.PERMIT_EXPIRED)
    with store.transaction(NOW) as tx:
        tx.record(event=told)
    with store.read() as reads:
        record = decode_line(reads.audit_lines(0, 10)[0].encode())
    assert (record.actor, record.permit, record.code) == ("steward-1", "p-1@1", "permit_expired")


def test_what_jobs_used_is_added_up_and_told_by_project(store: Store) -> None:
    run_steps(store, until="add_canary")
    with store.read() as reads:
        row, project = reads.job("job-1"), reads.permits()[0].project
        used = reads.recent_use(NOW - timedelta(days=1))
        assert row is not None and (row.used_s, row.preempted) == (3.0, 1)
        assert [(each.project, each.used_s) for each in used] == [(project, 3.0)]
        assert reads.recent_use(NOW + timedelta(days=1)) == ()


def test_a_node_of_before_holds_to_every_list_it_ever_took(tmp_path: Path) -> None:
    """Lists of before add: what an early one revoked is revoked, though later ones did not name it."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    store = open_store(url, NOW)
    with store.transaction(NOW) as tx:
        for number, permits in ((1, ("p-1",)), (2, ("p-2",)), (3, ())):
            tx.add_document(signed(samples.revocations(number, *permits)), event=event())
    store.close()
    engine = make_engine(url)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        connection.exec_driver_sql("ALTER TABLE revocation_list DROP COLUMN revoked")
        importlib.import_module("node.core.store.migrations.versions.m0011_revoked").upgrade()
    engine.dispose()
    again = open_store(url, NOW)
    with again.read() as snapshot:
        row = snapshot.newest_revocation_list()
    again.close()
    assert row is not None and row.number == 3 and row.revoked == ("p-1", "p-2")
