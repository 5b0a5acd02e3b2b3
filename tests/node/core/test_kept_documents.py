"""What a node keeps outlives what it was kept under: a key that is trusted no more, a clock that was wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from mediator.audit import Action, Verdict
from mediator.errors import Code, Denied, HubCode, Reason
from mediator.jobs import JobState
from mediator.signatures import KeyRing
from node.core.clock import ClockWatch
from node.core.context import Trust, event
from node.core.tasks import admit_task
from tests.mediator import samples
from tests.node.core.desk import Desk, eventually


def test_a_permit_whose_key_is_trusted_no_more_keeps_no_answer_and_no_record_waiting(tmp_path: Path) -> None:
    """The committee's key is replaced while a release waits."""
    desk = Desk(tmp_path)
    desk.jobs.start()
    desk.ask()
    desk.until(JobState.RELEASED)
    desk.jobs.stop()
    desk.core.store.close()
    committee = samples.key("committee-new")
    desk.changes["trust"] = Trust(
        KeyRing([committee.verify_key]), samples.STEWARD_RING, samples.HUB_RING, samples.HUB_RING
    )
    desk._open()
    assert not desk.outbox.may_leave("run-1/1/train/1")
    desk.outbox.take_back()
    desk.outbox.forget_ended_runs()
    assert next(desk.outbox.follow(lambda: True)).hub_code is HubCode.REFUSED_PERMIT
    desk.documents.receive(committee.sign(samples.revocations(number=50)))
    eventually(lambda: desk.core.deferred.count() == 0)
    desk.core.store.close()


def test_a_record_that_can_never_be_written_holds_up_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    def refused(_tx: object) -> None:
        raise Denied(Reason(Code.UNTRUSTED_KEY))

    lost = desk.core.deferred.add(refused)
    kept = desk.core.deferred.add(
        lambda tx: tx.record(event=event(Action.JOB_STOP, "job/1", Verdict.DONE, actor="it_admin"))
    )
    assert kept.paid.wait(5) and lost.paid.wait(10)
    entries = [(entry.action, entry.verdict) for entry in desk.log()]
    assert entries[-2:] == [("job_stop", "done"), ("recover", "failed")]
    desk.core.store.close()


def test_a_clock_that_was_ahead_when_an_upload_began_writes_no_record_of_the_future(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.core.store.before_writing = ClockWatch(lambda: desk.now, lambda: 0.0).require
    desk.now = samples.NOW + timedelta(days=300)

    def chunks() -> Iterator[bytes]:
        desk.now = samples.NOW  # set right while the model comes in
        yield samples.MODEL

    admit_task.receive(desk.core, _asking(), b"context", chunks())
    with desk.core.store.read() as snapshot:
        newest = snapshot.newest_audit_time()
    assert newest is not None and newest <= samples.NOW
    desk.core.store.close()


def test_an_instruction_that_expired_while_its_model_came_in_is_refused_and_not_charged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    def slow() -> Iterator[bytes]:
        desk.now = samples.instruction().expires + timedelta(days=1)
        yield samples.MODEL

    assert admit_task.receive(desk.core, _asking(), b"context", slow()) is not None
    assert desk.charges() == ()
    desk.core.store.close()


def _asking() -> str:
    return samples.HUB.sign(samples.instruction(model_sha256=hashlib.sha256(samples.MODEL).hexdigest()))


def test_a_narrower_acceptance_is_in_force_also_after_the_clock_was_ahead(tmp_path: Path) -> None:
    desk = Desk(tmp_path, documents=False)
    desk.now = samples.NOW + timedelta(days=20)
    desk.documents.receive(samples.COMMITTEE.sign(samples.permit()))
    desk.documents.receive(samples.acceptance().text, by="data_steward")
    desk.now = samples.NOW
    with desk.core.store.transaction(desk.now) as tx:
        tx.accept_clock(event=event(Action.CLOCK_ACCEPT, "clock/accepted", Verdict.DONE))
    narrow = samples.acceptance(maximum_rounds=1)
    assert desk.documents.receive(narrow.text, by="data_steward")
    permit = samples.permit()
    with desk.core.store.read() as snapshot:
        row = snapshot.acceptance(permit.permit, permit.permit_version)
    assert row is not None and row.sha256 == narrow.sha256
    desk.core.store.close()


def test_a_release_without_noise_does_not_leave_once_a_budget_protects_its_data(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.jobs.start()
    desk.ask()
    desk.until(JobState.RELEASED)
    assert desk.outbox.may_leave("run-1/1/train/1")
    granted = samples.permit(permit="p-2", permit_version=1, supersedes=None, **samples.PRIVATE)
    signed = samples.signed_permit(granted)
    desk.documents.receive(signed.text)
    desk.documents.receive(samples.acceptance(signed).text, by="data_steward")
    assert not desk.outbox.may_leave("run-1/1/train/1")
    desk.jobs.stop()
    desk.core.store.close()
